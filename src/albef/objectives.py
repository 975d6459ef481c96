"""The equations of the paper, one pure function each (Li et al., NeurIPS 2021, §3.2–3.4 and §4).

Only functions named `sample_` are random. Shapes: `rows` are the pairs of this forward pass. `bank` are all
candidates of the other modality: the global batch, then the queue. A loss is a sum divided by `count`, the number of
pairs, tokens or questions in the whole batch. If a batch is computed in parts, the losses of its parts add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

# The losses: their names in the log, and their names for readers.
LOSSES = {
    "itc": "image–text contrast (ITC)",
    "itm": "image–text matching (ITM)",
    "mlm": "masked words (MLM)",
    "answer": "answers to the questions",
    "classification": "classes of the texts",
    "assignment": "images of the texts (text assignment)",
    "objects": "objects of the regions",
    "attributes": "attributes of the regions",
    "features": "features of the hidden regions",
    "alignment": "word–region alignment",
    "ranking": "ranking of pairs",
    "pollution": "whether caption, tags and image belong together",
}


def similarity(
    features: Float[Tensor, "rows width"],
    bank: Sequence[Float[Tensor, "_ width"]],
    temperature: Float[Tensor, "1"],
    excluded: Bool[Tensor, "rows bank"] | None = None,
) -> Float[Tensor, "rows bank"]:
    """Logits s = fᵀ g / τ (§3.2). Excluded candidates get the lowest finite number, so their probability is 0.

    The bank comes in parts (batch, queue), since joining them would copy the whole queue. Products are in fp32 under
    autocast too, since they are divided by small temperatures.
    """
    with torch.autocast(features.device.type, enabled=False):
        logits = torch.cat([features @ part.T for part in bank], 1) / temperature
    return logits if excluded is None else logits.masked_fill(excluded, torch.finfo(logits.dtype).min)


def hard_targets(positive: Bool[Tensor, "rows bank"]) -> Float[Tensor, "rows bank"]:
    """Target probabilities, spread evenly over the true candidates of each row (such as all captions of an image)."""
    return positive / positive.sum(1, keepdim=True)


def soft_targets(
    teacher_logits: Float[Tensor, "rows bank"], hard: Float[Tensor, "rows bank"], alpha: float
) -> Float[Tensor, "rows bank"]:
    """Soft targets of momentum distillation: α·softmax(teacher) + (1 − α)·hard (§3.3, eq. 6)."""
    return alpha * teacher_logits.softmax(1) + (1 - alpha) * hard


def cross_entropy(
    logits: Float[Tensor, "rows bank"], targets: Float[Tensor, "rows bank"]
) -> Float[Tensor, " rows"]:
    """H(targets, softmax(logits)) of each row, −Σ y·log p."""
    return -(targets * logits.log_softmax(1)).sum(1)


def itc_loss(
    i2t_logits: Float[Tensor, "rows bank"],
    t2i_logits: Float[Tensor, "rows bank"],
    i2t_targets: Float[Tensor, "rows bank"],
    t2i_targets: Float[Tensor, "rows bank"],
    count: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Image–text contrastive loss, ½·Σ[H(y_i2t, p_i2t) + H(y_t2i, p_t2i)] / count (§3.2, eq. 2)."""
    losses = cross_entropy(i2t_logits, i2t_targets) + cross_entropy(t2i_logits, t2i_targets)
    return losses.sum() / (2 * count)


def contrastive_loss(
    i2t_logits: Float[Tensor, "rows bank"],
    t2i_logits: Float[Tensor, "rows bank"],
    own: Int[Tensor, " rows"],
    count: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """CLIP's symmetric loss, −½·Σ[log p_i2t(own) + log p_t2i(own)] / count (Radford et al., ICML 2021, §2.3).

    The bank is the whole batch, gathered with its gradient. `own` is the place of each row's pair in it. All other
    pairs are negatives, unless `similarity` has excluded them.
    """
    losses = [F.cross_entropy(logits, own, reduction="sum") for logits in (i2t_logits, t2i_logits)]
    return (losses[0] + losses[1]) / (2 * count)


def negative_probabilities(
    logits: Float[Tensor, "rows candidates"], allowed: Bool[Tensor, "rows candidates"], hardness: float
) -> Float[Tensor, "rows candidates"]:
    """Probability of drawing each candidate as a negative: softmax(hardness·s) over the allowed ones (§3.2).

    Hardness 1 is the paper's rule, 0 draws uniformly. The mask comes before the softmax, so that rounding cannot leave
    a row without probability mass. A row without allowed candidates is uniform: do not use its draw.
    """
    scores = (hardness * logits).masked_fill(~allowed, torch.finfo(logits.dtype).min)
    return scores.softmax(1)


def sample_negatives(
    probabilities: Float[Tensor, "rows candidates"], generator: torch.Generator | None = None
) -> Int[Tensor, " rows"]:
    """One candidate per row, drawn with the given probabilities.

    Draws like `torch.multinomial`, which on a GPU would first wait to check the probabilities.
    """
    waiting = torch.empty_like(probabilities).exponential_(generator=generator)
    return (probabilities / waiting).argmax(1)


def itm_loss(
    logits: Float[Tensor, "pairs 2"],
    matched: Int[Tensor, " pairs"],
    weight: Float[Tensor, " pairs"],
    count: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Image–text matching loss, Σ w·H(y, p_itm) / count (§3.2, eq. 4). `count` is the number of pairs of weight 1.

    Weight 0 leaves out negatives that could not be drawn, since all candidates show the same image or say the same.
    """
    losses = F.cross_entropy(at_least_fp32(logits), matched, reduction="none")
    return (losses * weight).sum() / count


def mlm_loss(
    logits: Float[Tensor, "masked vocabulary"],
    teacher_logits: Float[Tensor, "masked vocabulary"] | None,
    labels: Int[Tensor, " masked"],
    alpha: float,
    count: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Masked language modelling with distillation, Σ[(1−α)·H(y, p) + α·H(q, p)] / count (§3.2–3.3, eq. 3, 7).

    0 if no token is masked. Without a teacher only Σ H(y, p) / count is left.
    """
    log_probabilities = at_least_fp32(logits).log_softmax(1)
    loss = F.nll_loss(log_probabilities, labels, reduction="sum")
    if teacher_logits is not None:
        distilled = -(at_least_fp32(teacher_logits).softmax(1) * log_probabilities).sum()
        loss = (1 - alpha) * loss + alpha * distilled
    return loss / or_one(count)


def classification_loss(
    logits: Float[Tensor, "pairs classes"],
    teacher_logits: Float[Tensor, "pairs classes"] | None,
    labels: Int[Tensor, " pairs"],
    alpha: float,
    count: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Classification with distillation, Σ[(1−α)·H(y, p) + α·H(q, p)] / count (docs/published.md).

    The same equation as masked language modelling, with classes in place of words.
    """
    return mlm_loss(logits, teacher_logits, labels, alpha, count)


def answer_loss(
    logits: Float[Tensor, "tokens vocabulary"],
    teacher_logits: Float[Tensor, "tokens vocabulary"] | None,
    labels: Int[Tensor, " tokens"],
    weights: Float[Tensor, " tokens"],
    alpha: float,
    count: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Weighted loss of generated answers, Σ_a w_a Σ_t [(1−α)·H(y_t, p_t) + α·H(q_t, p_t)] / count (§5.3).

    `count` is the number of questions. `weights` repeats an answer's weight for each of its tokens. Soft targets are
    over the vocabulary (docs/published.md, Q1).
    """
    log_probabilities = at_least_fp32(logits).log_softmax(1)
    losses = F.nll_loss(log_probabilities, labels, reduction="none")
    if teacher_logits is not None:
        distilled = -(at_least_fp32(teacher_logits).softmax(1) * log_probabilities).sum(1)
        losses = (1 - alpha) * losses + alpha * distilled
    return (losses * weights).sum() / count


def sample_assignments(
    image_logits: Float[Tensor, "texts images"],
    allowed: Bool[Tensor, "texts images"],
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "texts 2"], Int[Tensor, " texts"]]:
    """Two images for each text, and the label of the one it belongs to: 0 the first, 1 the second, 2 neither.

    Text n belongs to image n. With probability 2/3 a text gets this image and one negative, in random order. With
    probability 1/3 it gets two different negatives. Negatives are drawn with probability softmax(s) among the allowed.
    A text with one allowed negative is never given two. If a text has none, do not use its draw.
    """
    uniform = torch.rand(image_logits.shape, generator=generator, device=image_logits.device)
    # With Gumbel noise the two best are a draw without replacement, and no probability underflows.
    noise = -(-uniform.clamp(min=1e-20).log()).clamp(min=1e-20).log()
    scores = (image_logits.float() + noise).masked_fill(~allowed, -torch.inf)
    best = scores.topk(min(2, scores.shape[1])).indices
    negative, other = best[:, 0], best[:, -1]
    kind, order = torch.rand(2, len(negative), generator=generator, device=negative.device)
    neither, second = (kind < 1 / 3) & (allowed.sum(1) >= 2), order < 0.5
    own = torch.arange(len(negative), device=negative.device)
    pair = torch.stack([torch.where(second, negative, own), torch.where(second, own, negative)], 1)
    pair = torch.where(neither[:, None], torch.stack([negative, other], 1), pair)
    return pair, torch.where(neither, 2, second.long())


def assignment_loss(
    logits: Float[Tensor, "texts 3"],
    labels: Int[Tensor, " texts"],
    weight: Float[Tensor, " texts"],
    count: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Text assignment loss, Σ w·H(y, p) / count (§5, NLVR²). `count` is the number of texts of weight 1.

    Weight 0 leaves out texts without a negative. 0 if there is no text of weight 1.
    """
    losses = F.cross_entropy(at_least_fp32(logits), labels, reduction="none")
    return (losses * weight).sum() / or_one(count)


def infonce_bound(logits: Float[Tensor, "rows bank"], hard: Float[Tensor, "rows bank"]) -> Float[Tensor, ""]:
    """Lower bound on the mutual information of the two modalities in nats, E[log K − L] (§4, eq. 8).

    K is the number of candidates of a row that are not excluded, L its contrastive loss against the true pair.
    """
    candidates = (logits > torch.finfo(logits.dtype).min).sum(1)
    return (candidates.log() - cross_entropy(logits, hard)).mean()


def mlm_bound(
    logits: Float[Tensor, "masked vocabulary"], labels: Int[Tensor, " masked"]
) -> Float[Tensor, ""]:
    """Lower bound on the information that context and image give about a masked token, log V − L in nats (§4, eq. 9).

    0 if nothing is masked.
    """
    loss = F.cross_entropy(at_least_fp32(logits), labels, reduction="sum")
    return math.log(logits.shape[1]) * min(len(labels), 1) - loss / max(len(labels), 1)


def disagreement(
    teacher_logits: Float[Tensor, "rows bank"], positive: Bool[Tensor, "rows bank"]
) -> Float[Tensor, ""]:
    """Share of rows for which the teacher's best candidate is not the true pair: an estimate of label noise."""
    best = teacher_logits.argmax(1, keepdim=True)
    return 1 - positive.gather(1, best).float().mean()


def at_least_fp32(logits: Tensor) -> Tensor:
    """The logits in fp32 if they are of half precision, which is too coarse for logarithms of small probabilities."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def or_one(count: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The count, or 1 in place of 0: a mean over nothing is 0."""
    return torch.where(count > 0, count, torch.ones_like(count))
