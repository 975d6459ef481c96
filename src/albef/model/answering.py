"""Answers of the decoder: ranked among candidates, or written freely (paper §5.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from albef.model.albef import ALBEF
from albef.model.answer_decoder import predicted
from albef.model.text_encoder import KeyValues


def rank_answers(
    model: ALBEF,
    memory: KeyValues,
    candidate_ids: Int[Tensor, "candidates length"],
    candidate_mask: Bool[Tensor, "candidates length"],
    k: int,
    count_first_token_twice: bool = False,
) -> tuple[Int[Tensor, "questions k"], Float[Tensor, "questions k"]]:
    """The `k` best candidates for each question, best first, and their probabilities among the k.

    First come the k candidates with the likeliest first token. They are then scored by the log-probability of all
    their tokens. With fewer than `k` candidates all are scored. The published score counts the first token twice
    (docs/published.md, Q17).
    """
    k = min(k, len(candidate_ids))
    questions = len(memory)
    device = candidate_ids.device
    each = torch.arange(questions, device=device)
    start_ids = candidate_ids[:1, :1].expand(questions, 1)
    logits = model.predict_answers(
        start_ids, torch.ones_like(start_ids, dtype=torch.bool), memory, each, each
    )
    first = logits.float().log_softmax(1)[:, candidate_ids[:, 1]]
    likeliest = first.topk(k, dim=1)
    chosen = likeliest.indices.flatten()
    ids, mask = candidate_ids[chosen], candidate_mask[chosen]
    places = predicted(mask)
    logits = model.predict_answers(ids, mask, memory, each.repeat_interleave(k), places)
    losses = F.cross_entropy(logits.float(), ids.flatten()[places + 1], reduction="none")
    scores = -losses.new_zeros(len(ids)).index_add(0, places // ids.shape[1], losses)
    scores = scores.view(questions, k)
    if count_first_token_twice:
        scores = scores + likeliest.values
    best = scores.softmax(1).sort(dim=1, descending=True)
    return likeliest.indices.gather(1, best.indices), best.values


def write_answers(
    model: ALBEF, memory: KeyValues, cls_id: int, sep_id: int, beams: int, max_tokens: int
) -> tuple[Int[Tensor, "questions beams length"], Float[Tensor, "questions beams"]]:
    """The `beams` likeliest answers to each question that a beam search finds, best first.

    Ids begin with [CLS]. After the closing [SEP] every id is [SEP]. Scores are log-probabilities of whole answers.
    One beam means greedy search. At most `max_tokens` tokens are written.
    """
    questions, device = len(memory), memory.layers[0].device
    ids = torch.full((questions, 1, 1), cls_id, device=device)
    scores = torch.zeros(questions, 1, device=device)
    for length in range(1, max_tokens + 1):
        rows = ids.flatten(0, 1)
        kept = ids.shape[1]
        question_index = torch.arange(questions, device=device).repeat_interleave(kept)
        last = torch.arange(len(rows), device=device) * length + length - 1
        logits = model.predict_answers(
            rows, torch.ones_like(rows, dtype=torch.bool), memory, question_index, last
        )
        step = logits.float().log_softmax(1).view(questions, kept, -1)
        # A finished answer continues with [SEP] at log-probability 0.
        closed = (ids[..., -1] == sep_id)[..., None]
        ends = F.one_hot(torch.tensor(sep_id, device=device), step.shape[-1]).bool()
        step = torch.where(closed, torch.where(ends, 0.0, -torch.inf), step)
        best = (scores[..., None] + step).flatten(1).topk(min(beams, step[0].numel()), dim=1)
        scores = best.values
        parent, piece = best.indices // step.shape[-1], best.indices % step.shape[-1]
        ids = torch.cat([ids.gather(1, parent[..., None].expand(-1, -1, length)), piece[..., None]], -1)
        if bool((ids[..., -1] == sep_id).all()):
            break
    return ids, scores
