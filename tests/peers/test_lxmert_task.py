"""LXMERT's training: what is drawn, parts that add up, losses that fall, and its tasks by name."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import toy_lxmert
from albef.config import Config, TrainConfig
from albef.data.records import Batch
from albef.peers.lxmert_task import (
    LxmertNLVR,
    LxmertPretrain,
    LxmertRetrieval,
    LxmertTask,
    LxmertVQA,
    answer_labels,
    word_labels,
)
from albef.peers.region_draws import Matching, sample_shown_features
from albef.tasks.base import Negatives, Stage, Targets, joined
from toy_batches import in_double

TOY = toy_lxmert.CONFIG
CONFIG = Config(model=TOY, train=TrainConfig(batch_size=4, optimizer="bertadam", schedule="linear"))
STAGE = Stage(alpha=0.0)
# Drawn for rows 0, 1 and 2, 3 alike, so that parts of two rows can have it too.
MATCHING = Matching(torch.tensor([0, 0, 2, 2]), torch.tensor([1, 0, 1, 0]))
NEGATIVES = Negatives(torch.tensor([1, 0, 3, 2]), torch.tensor([1, 0, 3, 2]))
TASKS = (LxmertPretrain, LxmertRetrieval, LxmertVQA, LxmertNLVR)


def rows_of(drawn: Matching | Negatives, rows: slice) -> Matching | Negatives:
    """What is drawn for a part of the batch."""
    first = rows.start
    if isinstance(drawn, Matching):
        return Matching(drawn.image[rows] - first, drawn.matched[rows])
    return Negatives(drawn.image[rows] - first, drawn.text[rows] - first)


def prepared(task: LxmertTask, part: Batch, rows: slice, patch: pytest.MonkeyPatch) -> Targets:
    """The targets of a part with the matching of these tests."""
    patch.setattr("albef.peers.lxmert_task.sample_matching", lambda image_id: rows_of(MATCHING, rows))
    return task.prepare(part, STAGE)


def losses_of(task: LxmertTask, rows: int, patch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The losses of the batch in parts of so many rows, by name."""
    whole, total = in_double(toy_lxmert.batch()), {}
    slices = [slice(first, first + rows) for first in range(0, len(whole), rows)]
    parts = whole.split(rows)
    targets = joined(
        [prepared(task, part, some, patch) for part, some in zip(parts, slices, strict=True)], True
    )
    for part, one, some in zip(parts, targets, slices, strict=True):
        drawn = {LxmertPretrain: part.region_features, LxmertRetrieval: rows_of(NEGATIVES, some)}
        for name, loss in task(part, one, STAGE, drawn.get(type(task))).losses.items():
            total[name] = total.get(name, torch.zeros(())) + loss
    return total


def task_of(kind: type[LxmertTask]) -> LxmertTask:
    task = kind(CONFIG)
    task.student.load_state_dict(toy_lxmert.model(*kind.heads).state_dict())
    return task


@pytest.mark.parametrize("kind", TASKS)
def test_parts_add_up(kind: type[LxmertTask], monkeypatch: pytest.MonkeyPatch) -> None:
    task, found = task_of(kind).double(), []
    for rows in (4, 2):
        losses = losses_of(task, rows, monkeypatch)
        torch.stack(list(losses.values())).sum().backward()
        found.append([*losses.values(), *(p.grad for p in task.student.parameters() if p.grad is not None)])
        task.zero_grad()
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", TASKS)
def test_every_loss_falls(kind: type[LxmertTask], monkeypatch: pytest.MonkeyPatch) -> None:
    task, found = task_of(kind).double(), []
    optimizer = torch.optim.Adam(task.parameters(), 3e-3)
    for _ in range(30):
        losses = losses_of(task, 4, monkeypatch)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append({name: loss.item() for name, loss in losses.items()})
    assert all(found[-1][name] < found[0][name] for name in found[0])
    if kind is LxmertPretrain:
        assert set(found[0]) == {"mlm", "itm", "answer", "objects", "attributes", "features"}


def test_pre_training_draws_for_itself() -> None:
    torch.manual_seed(0)
    task, given_batch = task_of(LxmertPretrain), toy_lxmert.batch()
    output = task(given_batch, task.prepare(given_batch, STAGE), STAGE)
    assert all(loss.isfinite() for loss in output.losses.values())


def test_words_and_answers_go_with_their_text() -> None:
    given_batch = toy_lxmert.batch()
    words = word_labels(given_batch, MATCHING)
    assert words[0].tolist() == words[1].tolist() == [-1, 5, 6, -1, -1, -1]
    assert words[3].tolist() == words[2].tolist()
    assert answer_labels(given_batch, MATCHING).tolist() == [2, -1, -1, -1]
    without = dataclasses.replace(given_batch, listed_answer=None)
    assert answer_labels(without, MATCHING).tolist() == [-1] * 4


def test_without_anything_to_predict_losses_are_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a small batch in which nothing was drawn."""
    nothing = torch.zeros(0, dtype=torch.long)
    given_batch = dataclasses.replace(
        toy_lxmert.batch(),
        mlm_positions=nothing,
        mlm_labels=nothing,
        listed_answer=None,
        hidden_regions=torch.zeros(4, 4, dtype=torch.bool),
    )
    task = task_of(LxmertPretrain)
    losses = task(given_batch, task.prepare(given_batch, STAGE), STAGE).losses
    assert [losses[name].item() for name in ("mlm", "answer", "features")] == [0.0, 0.0, 0.0]
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 99))
def test_shown_features_are_zeros_those_of_a_region_or_their_own(counts: list[int], seed: int) -> None:
    regions = toy_lxmert.regions(*counts, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    hidden = (torch.rand(regions.mask.shape, generator=generator) < 0.5) & regions.mask
    shown = sample_shown_features(regions.features, hidden, regions.mask, generator)
    assert torch.equal(shown[~hidden], regions.features[~hidden])
    real = regions.features[regions.mask]
    for feature in shown[hidden]:
        assert not feature.any() or (feature == real).all(1).any()


def test_hidden_regions_become_what_is_published() -> None:
    features = torch.arange(1.0, 5001.0).view(50, 100, 1)
    every = torch.ones(50, 100, dtype=torch.bool)
    shown = sample_shown_features(features, every, every, torch.Generator().manual_seed(0))
    kept, zeros = (shown == features).float().mean().item(), (shown == 0).float().mean().item()
    assert (zeros, kept) == (pytest.approx(0.8, abs=0.02), pytest.approx(0.1, abs=0.02))
