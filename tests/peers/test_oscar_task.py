"""OSCAR's training: pollution and negatives are drawn as published, parts add up, and every loss falls."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import toy_oscar
from albef.config import Config, TrainConfig
from albef.peers.oscar_task import (
    NOT_PREDICTED,
    Negatives,
    OscarNLVR,
    OscarPretrain,
    OscarRetrieval,
    OscarTask,
    OscarVQA,
    Pollution,
    sample_pair_negatives,
    sample_pollution,
)
from albef.tasks.base import Stage, joined
from toy_batches import in_double

CONFIG = Config(model=toy_oscar.CONFIG, train=TrainConfig(batch_size=4))
STAGE = Stage(alpha=0.0)
TASKS = (OscarPretrain, OscarRetrieval, OscarVQA, OscarNLVR)
# Drawn for rows 0, 1 and 2, 3 alike, so that parts of two rows can have it too.
OWN, SWAPPED = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 0, 3, 2])
POLLUTION = Pollution(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 0, 2, 3]), torch.tensor([0, 1, 0, 2]))
NEGATIVES = Negatives(torch.tensor([0, 0, 2, 2]), torch.tensor([1, 1, 3, 3]))


def task_of(kind: type[OscarTask], config: Config = CONFIG) -> OscarTask:
    """A task whose parameters are all random."""
    task = kind(config)
    task.student.load_state_dict(toy_oscar.model(*kind.heads, config=config.model).state_dict())
    return task


def drawn_of(kind: type[OscarTask], rows: slice = slice(0, 4)) -> Pollution | Negatives | None:
    """What is drawn for these rows of the batch."""
    if kind is OscarPretrain:
        return Pollution(
            POLLUTION.text[rows] - rows.start, POLLUTION.tags[rows] - rows.start, POLLUTION.label[rows]
        )
    if kind is OscarRetrieval:
        return Negatives(*(index[rows] - rows.start for index in NEGATIVES))
    return None


def stepped(task: OscarTask, rows: int, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The gradients of a batch in parts of so many rows, and its loss."""
    parts = in_double(toy_oscar.batch()).split(rows)
    drawn = [drawn_of(type(task), slice(rows * n, rows * n + rows)) for n in range(len(parts))]
    targets = []
    for part, one in zip(parts, drawn, strict=True):
        monkeypatch.setattr("albef.peers.oscar_task.sample_pollution", lambda *given, one=one: one)
        targets.append(task.prepare(part, STAGE))
    total = torch.zeros(())
    for part, one, own in zip(parts, joined(targets, True), drawn, strict=True):
        total = total + sum(task(part, one, STAGE, own).losses.values())
    total.backward()
    found = [p.grad.clone() for p in task.student.parameters() if p.grad is not None]
    return [*found, total.detach()]


@pytest.mark.parametrize("kind", TASKS)
def test_parts_add_up(kind: type[OscarTask], monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = (stepped(task_of(kind).double(), rows, monkeypatch) for rows in (4, 2))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", TASKS)
def test_training_learns(kind: type[OscarTask]) -> None:
    torch.manual_seed(0)
    task, given = task_of(kind), toy_oscar.batch()
    optimizer, found = torch.optim.Adam(task.parameters(), 3e-3), []
    for _ in range(15):
        targets = task.prepare(given, STAGE)
        loss = sum(task(given, targets, STAGE, targets.drawn or drawn_of(kind)).losses.values())
        assert isinstance(loss, Tensor)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    assert found[-1] < found[0]


def test_of_tags_that_are_cut_nothing_is_predicted() -> None:
    task, given = task_of(OscarPretrain), toy_oscar.batch()
    assert isinstance(task, OscarPretrain)
    own = Pollution(OWN, OWN, torch.zeros(4, dtype=torch.long))
    seen = task.masked(given, own)
    # Row 2: 6 tokens of text, 12 in all: 5 of 7 tags and [SEP]. Its last masked tag is gone.
    assert seen.tags.ids[2][seen.tags.mask[2]].tolist() == [23, 24, toy_oscar.MASK, 26, 27, toy_oscar.SEP]
    assert (
        seen.labels[2].tolist()
        == [NOT_PREDICTED, 13, NOT_PREDICTED, 15, *[NOT_PREDICTED] * 4, 25] + [NOT_PREDICTED] * 5
    )
    assert (seen.labels != NOT_PREDICTED).sum() == 5 + 3


def test_captions_and_tags_bring_their_own_masks() -> None:
    task, given = task_of(OscarPretrain), toy_oscar.batch()
    assert isinstance(task, OscarPretrain)
    seen = task.masked(given, Pollution(OWN, SWAPPED, torch.ones(4, dtype=torch.long)))
    assert seen.labels[1].tolist()[6:9] == [NOT_PREDICTED, 21, NOT_PREDICTED]
    assert seen.tags.ids[1].tolist()[:3] == [20, toy_oscar.MASK, toy_oscar.SEP]
    other = task.masked(given, Pollution(SWAPPED, OWN, torch.full((4,), 2)))
    assert other.ids[0].tolist() == given.masked_ids[1].tolist()
    assert other.labels[0].tolist()[:3] == [NOT_PREDICTED, 12, NOT_PREDICTED]
    assert other.labels[1, 1] == 10


def test_all_that_is_true_and_all_that_is_polluted_is_of_its_class() -> None:
    task = task_of(OscarPretrain)
    given = toy_oscar.batch()
    targets = task.prepare(given, STAGE)
    losses = task(given, targets, STAGE, POLLUTION).losses
    other = task(given, targets, STAGE, POLLUTION._replace(label=torch.zeros(4, dtype=torch.long))).losses
    torch.testing.assert_close(losses["mlm"], other["mlm"])
    assert not torch.allclose(losses["pollution"], other["pollution"])


@pytest.mark.parametrize(("classes", "tags", "captions"), [(2, 0.5, 0.0), (3, 0.25, 0.25)])
def test_pollution_is_drawn_as_often_as_published(classes: int, tags: float, captions: float) -> None:
    drawn = sample_pollution(torch.arange(4000), classes, torch.Generator().manual_seed(0))
    own = torch.arange(4000)
    assert (drawn.label == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert (drawn.tags != own).float().mean().item() == pytest.approx(tags, abs=0.03)
    assert (drawn.text != own).float().mean().item() == pytest.approx(captions, abs=0.03)
    assert torch.equal(drawn.label == 1, drawn.tags != own)
    assert torch.equal(drawn.label == 2, drawn.text != own)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.integers(0, 99))
def test_what_is_drawn_is_of_another_image(images: list[int], seed: int) -> None:
    image_id, generator = torch.tensor(images), torch.Generator().manual_seed(seed)
    own = torch.arange(len(images))
    drawn = sample_pollution(image_id, 3, generator)
    is_true = (image_id[drawn.text] == image_id) & (image_id[drawn.tags] == image_id)
    assert torch.equal(drawn.label == 0, is_true)
    negatives = sample_pair_negatives(image_id, generator)
    changed = (negatives.text != own).long() + (negatives.image != own).long()
    assert changed.tolist() == [int(len(set(images)) > 1)] * len(images)


def test_a_negative_that_cannot_be_drawn_does_not_count() -> None:
    task, given = task_of(OscarRetrieval), toy_oscar.batch()
    alone = dataclasses.replace(given, image_id=torch.zeros(4, dtype=torch.long))
    targets = task.prepare(alone, STAGE)
    assert targets.counts["itm"] == 4
    assert task.prepare(given, STAGE).counts["itm"] == 8
    own = Negatives(OWN, OWN)
    text, memory = task.encoded(alone)
    logits = task.student.match(text, alone.mask, memory)
    expected = torch.nn.functional.cross_entropy(logits, torch.ones(4, dtype=torch.long))
    torch.testing.assert_close(task(alone, targets, STAGE, own).losses["itm"], expected)


def test_a_statement_sees_both_images_without_tags() -> None:
    task, batch_ = task_of(OscarNLVR), toy_oscar.batch()
    first, second = toy_oscar.regions(3, 1, 2, 2), toy_oscar.regions(2, 3, 1, 2, seed=1)
    text = task.student.encode_text(batch_.ids, batch_.mask).tokens
    pooled = [
        task.student.pooled(text, batch_.mask, toy_oscar.memory(task.student, one)) for one in (first, second)
    ]
    assert task.student.pair_head is not None
    logits = task.student.pair_head(torch.cat(pooled, 1))
    assert batch_.label is not None
    expected = torch.nn.functional.cross_entropy(logits, batch_.label)
    found = task(batch_, task.prepare(batch_, STAGE), STAGE).losses["classification"]
    torch.testing.assert_close(found, expected)
