"""Rows of the paper's first table: the losses of a recipe, which of them are distilled, how hard negatives are."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import toy
from albef.config import TaskConfig
from albef.data.records import Batch
from albef.data.text import Tokenizer
from albef.engine import Engine
from albef.model.albef import ALBEF
from albef.model_directory import save_model
from albef.systems import build_task
from albef.tasks import contrast
from albef.tasks.base import Negatives, Output, Stage, Task
from albef.tasks.pretrain import Pretrain
from albef.tasks.retrieval import Retrieval
from albef.train.initial import start_from
from albef.train.optim import stage_at

ALPHA, PAIRS = 0.4, 4


class Row(NamedTuple):
    """A row: its settings, and how often the teacher computes in a step. The last row's task is a downstream one."""

    settings: dict[str, Any]
    images: int = 1
    texts: int = 1
    words: int = 0


ALL = ("itc", "itm", "mlm")
ROWS = {
    "mlm, itm": Row({"losses": ("itm", "mlm"), "distill": ()}, 0, 0),
    "and itc": Row({"losses": ALL, "hardness": 0.0, "distill": ()}),
    "and hard negatives": Row({"losses": ALL, "distill": ()}),
    "and distilled itc": Row({"losses": ALL, "distill": ("itc",)}),
    "and distilled mlm": Row({"losses": ALL, "distill": ("itc", "mlm")}, words=1),
    "distilled mlm alone": Row({"losses": ("itm", "mlm"), "distill": ("mlm",)}, 1, 0, 1),
    "downstream": Row({"name": "retrieval", "distill": ("itc",)}),
    "downstream, not distilled": Row({"name": "retrieval", "distill": ()}),
    "downstream without itc": Row({"name": "retrieval", "losses": ("itm",)}, 0, 0),
}


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]


def task_of(settings: dict[str, Any]) -> Task:
    torch.manual_seed(0)
    return build_task(toy.config(task=TaskConfig(queue_size=6, alpha=ALPHA, alpha_ramp_steps=0, **settings)))


def stage_of(settings: dict[str, Any]) -> Stage:
    config = toy.config(task=TaskConfig(alpha=ALPHA, alpha_ramp_steps=0, **settings))
    return stage_at(0, config, steps_per_epoch=1)


def step(task: Task, batch: Batch, stage: Stage) -> Output:
    output = task(batch, task.prepare(batch, stage), stage)
    torch.stack(list(output.losses.values())).sum().backward()
    task.update(output)
    return output


def test_every_row_trains(row: Row) -> None:
    task, stage = task_of(row.settings).train(), stage_of(row.settings)
    losses = set(row.settings.get("losses", ALL)) - ({"mlm"} if "name" in row.settings else set())
    for seed in (0, 1):
        output = step(task, toy.batch(PAIRS, seed), stage)
        assert set(output.losses) == losses
        assert all(loss.isfinite() for loss in output.losses.values())
    for name, parameter in task.student.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


class Calls:
    """How often parts of a model are called, by name."""

    def __init__(self, model: ALBEF, patch: pytest.MonkeyPatch) -> None:
        self.counts: Counter[str] = Counter()
        for name in ("encode_image", "encode_text", "masked_states", "predict_words"):
            patch.setattr(model, name, self.counted(name, getattr(model, name)))

    def counted(self, name: str, call: Any) -> Any:
        def counting(*arguments: Any) -> Any:
            self.counts[name] += 1
            return call(*arguments)

        return counting


def test_the_teacher_computes_only_what_a_loss_reads(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    task, batch = task_of(row.settings), toy.batch(PAIRS)
    assert task.teacher is not None
    calls = Calls(task.teacher.module, monkeypatch)
    task(batch, task.prepare(batch, stage_of(row.settings)), stage_of(row.settings))
    expected = {
        "encode_image": row.images,
        "encode_text": row.texts,
        "masked_states": row.words,
        "predict_words": row.words,
    }
    assert calls.counts == Counter({name: count for name, count in expected.items() if count})


@pytest.mark.parametrize(
    ("settings", "computed"),
    [
        ({"name": "entailment", "distill": ("classification",)}, True),
        ({"name": "entailment", "distill": ("itc", "mlm", "answer")}, False),
        ({"name": "entailment", "distill": ()}, False),
    ],
)
def test_the_teacher_of_classes_computes_only_if_they_are_distilled(
    settings: dict[str, Any], computed: bool
) -> None:
    task, batch = task_of(settings), dataclasses.replace(toy.batch(PAIRS), label=torch.arange(PAIRS) % 3)
    assert (task.prepare(batch, stage_of(settings)).logits is not None) == computed
    step(task, batch, stage_of(settings))


@pytest.fixture
def batches() -> tuple[Batch, Batch]:
    """A batch that fills the queue, and the one that is looked at."""
    return toy.batch(PAIRS, seed=1), toy.batch(PAIRS, seed=2)


def with_another_teacher(task: Pretrain) -> Pretrain:
    """A teacher of its own mind, so that its soft targets are not those of the student."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in task.teacher.module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return task


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if "name" not in row.settings])
def test_losses_of_every_row_by_hand(name: str, batches: tuple[Batch, Batch]) -> None:
    settings = ROWS[name].settings
    task, stage = task_of(settings).eval(), stage_of(settings)
    assert isinstance(task, Pretrain)
    with_another_teacher(task)
    first, batch = batches
    if task.queue is not None:
        task.queue.push(task.prepare(first, stage).keys)
    given = Negatives(image=torch.tensor([1, 2, 3, 0]), text=torch.tensor([3, 0, 1, 2]))
    with torch.no_grad():
        found = task(batch, task.prepare(batch, stage), stage, given).losses
        expected = by_hand(task, first, batch, given, settings["distill"])
    assert found.keys() == set(settings["losses"])
    for loss in settings["losses"]:
        torch.testing.assert_close(found[loss], expected[loss], msg=lambda text, loss=loss: f"{loss}: {text}")


def by_hand(
    task: Pretrain, first: Batch, batch: Batch, negatives: Negatives, distilled: tuple[str, ...]
) -> dict[str, Tensor]:
    """The paper's equations, in which one model is asked for one pair after the other."""
    student, teacher = task.student, task.teacher.module
    alpha = {loss: ALPHA if loss in distilled else 0.0 for loss in ("itc", "mlm")}
    image, text = student.encode_image(batch.pixels), student.encode_text(batch.ids, batch.mask)
    found: dict[str, Tensor] = {}
    if student.can_contrast:
        keys = [
            (teacher.encode_image(one.pixels).feature, teacher.encode_text(one.ids, one.mask).feature)
            for one in (batch, first)
        ]
        images, texts = (torch.cat(side) for side in zip(*keys, strict=True))
        sides = [(image.feature, images[:PAIRS], texts), (text.feature, texts[:PAIRS], images)]
        losses = []
        for query, taught, bank in sides:
            logits, soft = (side @ bank.T / student.temperature for side in (query, taught))
            targets = alpha["itc"] * soft.softmax(1) + (1 - alpha["itc"]) * torch.eye(PAIRS, 2 * PAIRS)
            losses.append(F.cross_entropy(logits, targets))
        found["itc"] = (losses[0] + losses[1]) / 2

    memory, rows = student.image_memory(image), range(PAIRS)
    pairs = [(row, row, 1) for row in rows]
    pairs += [(row, int(negatives.image[row]), 0) for row in rows]
    pairs += [(int(negatives.text[row]), row, 0) for row in rows]
    said = torch.cat(
        [
            student.match(text.tokens[t : t + 1], batch.mask[t : t + 1], memory, torch.tensor([i]))
            for t, i, _ in pairs
        ]
    )
    found["itm"] = F.cross_entropy(said, torch.tensor([matched for *_, matched in pairs]))

    words, soft = (
        model.predict_words(
            model.masked_states(
                batch.masked_ids,
                batch.mask,
                model.image_memory(model.encode_image(batch.pixels)),
                batch.mlm_positions,
            )
        )
        for model in (student, teacher)
    )
    truth = F.one_hot(batch.mlm_labels, words.shape[1])
    found["mlm"] = F.cross_entropy(words, alpha["mlm"] * soft.softmax(1) + (1 - alpha["mlm"]) * truth)
    return found


def test_random_negatives_are_even_and_hard_ones_are_the_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    chances = contrast.objectives.negative_probabilities

    def noted(*arguments: Any) -> Tensor:
        seen.append(chances(*arguments))
        return seen[-1]

    monkeypatch.setattr(contrast.objectives, "negative_probabilities", noted)
    even = (1 - torch.eye(PAIRS)) / (PAIRS - 1)
    for name in ("mlm, itm", "and itc", "downstream without itc"):
        step(task_of(ROWS[name].settings), toy.batch(PAIRS), stage_of(ROWS[name].settings))
    for found in seen:
        torch.testing.assert_close(found, even)
    assert len(seen) == 6
    step(task_of({}), toy.batch(PAIRS), stage_of({}))
    assert not any(torch.allclose(found, even) for found in seen[6:])


def test_without_itc_a_model_has_nothing_to_contrast_by() -> None:
    task = task_of({"losses": ("itm", "mlm")})
    assert isinstance(task, Pretrain)
    assert task.queue is None
    assert (task.student.heads, task.student.can_contrast, task.student.can_match) == (
        ("itm", "mlm"),
        False,
        True,
    )
    assert not any("queue" in name or "projection" in name for name in task.state_dict())
    assert step(task, toy.batch(PAIRS), Stage(ALPHA)).keys is None


def test_a_model_without_itc_is_kept_and_fine_tuned_without_it(tmp_path: Path) -> None:
    student = task_of({"losses": ("itm", "mlm")}).student
    save_model(tmp_path, student, Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY), "")
    assert not Engine.load(tmp_path, quiet=True).can_contrast
    task = task_of({"name": "retrieval", "losses": ("itm",)})
    assert isinstance(task, Retrieval)
    assert start_from(task, str(tmp_path)).random == []


def test_parts_of_a_batch_add_up_without_itc() -> None:
    """Counts are those of the whole batch, whatever is drawn within a part."""
    from albef.tasks.base import joined

    settings = {"losses": ("itm", "mlm"), "distill": ("mlm",)}
    task, stage, batch = task_of(settings).eval(), stage_of(settings), toy.batch(PAIRS)
    beside = torch.tensor([1, 0])
    both = Negatives(torch.tensor([1, 0, 3, 2]), torch.tensor([1, 0, 3, 2]))
    whole = task(batch, task.prepare(batch, stage), stage, both).losses
    cut = [batch.slice(0, 2), batch.slice(2, 4)]
    prepared = joined([task.prepare(part, stage) for part in cut], gather_batch=True)
    parts = [
        task(part, targets, stage, Negatives(beside, beside)).losses
        for part, targets in zip(cut, prepared, strict=True)
    ]
    for loss in settings["losses"]:
        torch.testing.assert_close(sum(part[loss] for part in parts), whole[loss])
