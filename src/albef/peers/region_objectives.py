"""The equations of the systems on region features, one pure function each.

As in `albef.objectives`, a loss is a sum divided by `count`, the number of predictions, pairs or questions in the whole
batch. If a batch is computed in parts, the losses of its parts add up.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from albef.objectives import at_least_fp32, or_one

LEAST_NORM = 1e-5  # of a state, where cosines divide by it


def listed_answer_loss(
    logits: Float[Tensor, "questions answers"],
    targets: Float[Tensor, "questions answers"],
    count: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Σ_q Σ_a BCE(σ(s_qa), y_qa) / count, with scores y in 0–1 (Teney et al., CVPR 2018).

    A sum over the listed answers, as published: the mean times their number.
    """
    loss = F.binary_cross_entropy_with_logits(at_least_fp32(logits), targets, reduction="sum")
    return loss / count


def region_feature_loss(
    predicted: Float[Tensor, "hidden width"],
    features: Float[Tensor, "hidden width"],
    count: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Masked region feature regression, Σ mean_i (ĥ_i − f_i)² / count (UNITER, §3.2).

    A mean over the numbers of a feature, as published. The paper has their sum.
    """
    errors = (at_least_fp32(predicted) - features).square()
    return errors.mean(1).sum() / or_one(count)


def smooth_feature_loss(
    predicted: Float[Tensor, "hidden width"],
    features: Float[Tensor, "hidden width"],
    count: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Regression of the features of hidden regions, Σ mean_i smooth-L1(f̂_i − f_i) / count (LXMERT, §3.1.2).

    Smooth-L1 is ½d² where |d| < 1, and |d| − ½ elsewhere, as published. `count` is the number of all regions.
    """
    losses = F.smooth_l1_loss(at_least_fp32(predicted), features, reduction="none")
    return losses.mean(1).sum() / or_one(count)


def detected_class_loss(
    logits: Float[Tensor, "regions classes"],
    labels: Int[Tensor, " regions"],
    confidence: Float[Tensor, " regions"],
    count: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Loss of the objects or attributes of regions, Σ c·H(y, p) / count (LXMERT, §3.1.2).

    Labels y are the detector's, and c is its confidence in them. `count` is the number of all regions.
    """
    losses = F.cross_entropy(at_least_fp32(logits), labels, reduction="none")
    return (losses * confidence).sum() / or_one(count)


def likeliest_objects(soft_labels: Float[Tensor, "hidden classes"]) -> Int[Tensor, " hidden"]:
    """The class that the detector finds likeliest, but never the background, which is class 0 (UNITER, §3.2)."""
    return soft_labels[:, 1:].argmax(1) + 1


def region_class_divergence(
    logits: Float[Tensor, "hidden classes"],
    soft_labels: Float[Tensor, "hidden classes"],
    count: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Masked region classification with soft labels, Σ KL(c ‖ softmax(s)) / (classes · count) (UNITER, §3.2).

    A mean over the classes, as published: the weights and learning rates there were chosen with it. The paper has no
    such divisor.
    """
    log_probabilities = at_least_fp32(logits).log_softmax(1)
    divergence = F.kl_div(log_probabilities, soft_labels, reduction="sum")
    return divergence / (logits.shape[1] * or_one(count))


def transport_cost(
    words: Float[Tensor, "pairs words width"],
    regions: Float[Tensor, "pairs regions width"],
    word_mask: Bool[Tensor, "pairs words"],
    region_mask: Bool[Tensor, "pairs regions"],
) -> Float[Tensor, "pairs words regions"]:
    """What it costs to move a word to a region, C = 1 − cos, and 0 at padding (UNITER, §3.2)."""
    with torch.autocast(words.device.type, enabled=False):
        words, regions = (
            F.normalize(at_least_fp32(states), dim=2, eps=LEAST_NORM) for states in (words, regions)
        )
        cost = 1 - words @ regions.transpose(1, 2)
    return cost * (word_mask[:, :, None] & region_mask[:, None])


@torch.no_grad()
def transport_plan(
    cost: Float[Tensor, "pairs words regions"],
    word_mask: Bool[Tensor, "pairs words"],
    region_mask: Bool[Tensor, "pairs regions"],
    beta: float = 0.5,
    iterations: int = 50,
) -> Float[Tensor, "pairs regions words"]:
    """How much of each region goes to each word at the least cost. It is 0 at padding and has no gradient.

    IPOT (Xie et al., UAI 2019, algorithm 1), with words and regions of equal weight and one inner step:
    A = exp(−Cᵀ/β), T = 1, σ = 1/n_words; then repeatedly Q = A∘T, δ = 1/(n_regions·Qσ), σ = 1/(n_words·Qᵀδ),
    T = diag(δ) Q diag(σ).
    """
    real = region_mask[:, :, None] & word_mask[:, None]
    # At padding Q is 0. So 1 is added there to what would be divided by 0.
    no_word, no_region = (~word_mask).to(cost.dtype), (~region_mask).to(cost.dtype)
    words, regions = (mask.sum(1, keepdim=True).to(cost.dtype) for mask in (word_mask, region_mask))
    with torch.autocast(cost.device.type, enabled=False):
        kernel = torch.exp(-cost.transpose(1, 2) / beta) * real
        plan = real.to(cost.dtype)
        sigma = word_mask / words
        for _ in range(iterations):
            moved = kernel * plan
            delta = 1 / (regions * (moved @ sigma[:, :, None]).squeeze(2) + no_region)
            sigma = 1 / (words * (delta[:, None] @ moved).squeeze(1) + no_word)
            plan = delta[:, :, None] * moved * sigma[:, None]
    return plan


def transport_distance(
    cost: Float[Tensor, "pairs words regions"], plan: Float[Tensor, "pairs regions words"]
) -> Float[Tensor, " pairs"]:
    """How far the words of each pair are from the regions, D = Σ C∘Tᵀ (UNITER, §3.2)."""
    return (cost * plan.transpose(1, 2)).sum((1, 2))


def alignment_loss(
    distance: Float[Tensor, " pairs"], matched: Int[Tensor, " pairs"], count: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Word–region alignment, (Σ_matched D − Σ_mismatched D) / count: mismatched pairs are pushed apart.

    As in the published code. The paper has the distances of matched pairs alone (UNITER, §3.2).
    """
    return (distance * (2 * matched - 1)).sum() / count


def ranking_loss(
    matched: Float[Tensor, " texts"],
    negatives: Float[Tensor, "texts negatives"],
    weight: Float[Tensor, "texts negatives"],
    margin: float,
    count: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Σ w·max(0, margin + σ(s_neg) − σ(s_pos)) / count, of the scores s of pairs (UNITER).

    `count` is the number of negatives of weight 1 in the whole batch. Weight 0 leaves out those that could not be
    drawn.
    """
    probabilities = at_least_fp32(negatives).sigmoid() - at_least_fp32(matched).sigmoid()[:, None]
    return (F.relu(margin + probabilities) * weight).sum() / or_one(count)


def hardest(scores: Float[Tensor, "texts negatives"], chosen: int) -> Int[Tensor, "texts chosen"]:
    """The negatives with the greatest scores, in the order in which they stand."""
    return scores.topk(chosen, 1).indices.sort(1).values
