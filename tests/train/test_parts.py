"""A batch computed in parts: the same losses and gradients as at once."""

import dataclasses
from pathlib import Path

import pytest
import torch

import toy
from albef.config import Config, TaskConfig, TaskName, TrainConfig
from albef.data.records import Batch
from albef.systems import build_task
from albef.tasks.base import Output, Stage, Targets, Task, joined
from albef.train.checkpoint import CheckpointWriter
from albef.train.optim import build_optimizer
from albef.train.steps import Loop

STAGE = Stage(alpha=0.4)


def config_of(task: TaskConfig, micro_batch_size: int = 0, dropout: float = 0.0) -> Config:
    train = TrainConfig(batch_size=64, micro_batch_size=micro_batch_size, precision="fp32")
    config = toy.config(task=task, train=train)
    return dataclasses.replace(config, model=dataclasses.replace(toy.MODEL, dropout=dropout))


def loop_of(config: Config, task: Task, folder: Path = Path()) -> Loop:
    optimizer = build_optimizer(task.student, config.train)
    writer = CheckpointWriter(folder, {}, keep=1)
    device = torch.device("cpu")
    return Loop(config, folder, task, optimizer, device, "fp32", 10, {"seconds": 0.0}, None, writer)


def batch_for(name: str, size: int = 64) -> Batch:
    """Some pairs of the same picture or caption, from 0 to 4 words masked, and what else the task reads."""
    batch = toy.batch(size, length=9, masked=4)
    kept = torch.arange(len(batch.mlm_positions)) % 7 < 3
    kept[: size // 2] = False  # nothing masked in the first pairs
    batch = dataclasses.replace(
        batch,
        mlm_positions=batch.mlm_positions[kept],
        mlm_labels=batch.mlm_labels[kept],
        image_id=torch.arange(size) // 3,
        label=torch.arange(size) % 2,
    )
    generator = torch.Generator().manual_seed(1)
    if name == "nlvr":
        return dataclasses.replace(batch, second_pixels=torch.randn(batch.pixels.shape, generator=generator))
    if name == "vqa":
        rows = torch.arange(size).repeat_interleave(torch.arange(size) % 3 + 1)
        return dataclasses.replace(
            batch,
            answer_ids=torch.randint(5, toy.VOCABULARY, (len(rows), 4), generator=generator),
            answer_mask=torch.ones(len(rows), 4, dtype=torch.bool),
            answer_weights=torch.rand(len(rows), generator=generator),
            answer_row=rows,
        )
    return batch


def gradients(task: Task) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in task.student.named_parameters() if p.grad is not None}


def computed(settings: TaskConfig, micro_batch_size: int) -> tuple[Output, dict[str, torch.Tensor], Task]:
    torch.manual_seed(0)
    config = config_of(settings, micro_batch_size)
    task = build_task(config).train()
    loop, batch = loop_of(config, task), batch_for(settings.name)
    if hasattr(task, "queue"):
        task.update(task(batch, task.prepare(batch, STAGE), STAGE))  # fills the queue
    return loop.backward(task, batch, 3, STAGE), gradients(task), task


@pytest.mark.parametrize(
    "settings",
    [
        TaskConfig(queue_size=100, losses=("itc", "mlm")),
        TaskConfig(name="retrieval", queue_size=100),
        TaskConfig(name="vqa"),
        TaskConfig(name="entailment"),
        TaskConfig(name="nlvr"),
    ],
    ids=lambda settings: settings.name,
)
@pytest.mark.parametrize("size", [16, 25])
def test_a_batch_in_parts_has_the_losses_and_gradients_of_the_whole(
    settings: TaskConfig, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if settings.name == "retrieval":  # whose matching is over the pairs of a part
        monkeypatch.setattr(
            "albef.tasks.pretrain.match", lambda student, *_: (0 * student.temperature[0],) * 2
        )
    whole, expected, task = computed(settings, 0)
    parts, got, _ = computed(settings, size)
    for name, loss in whole.losses.items():
        torch.testing.assert_close(parts.losses[name], loss.detach(), rtol=1e-5, atol=1e-6)
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-5, atol=1e-5)
    if whole.keys is not None and parts.keys is not None:
        for one, other in zip(whole.keys, parts.keys, strict=True):
            torch.testing.assert_close(one, other)
        assert task.queue.count == 64


def test_matching_and_assignment_are_means_over_the_usable_pairs_of_all_parts() -> None:
    for settings in (TaskConfig(queue_size=0, losses=("itm",)), TaskConfig(name="text_assignment")):
        torch.manual_seed(0)
        task, batch = build_task(config_of(settings)).eval(), batch_for(settings.name, 7)
        batch = dataclasses.replace(batch, image_id=torch.tensor([0, 0, 0, 1, 2, 3, 4]))
        (name,) = task(batch, task.prepare(batch, STAGE), STAGE).losses
        # Only the second of the three parts has negatives.
        parts = batch.split(3)
        alone = [task.prepare(part, STAGE) for part in parts]
        expected, total = torch.zeros(()), torch.zeros(())
        for part, targets in zip(parts, alone, strict=True):
            torch.manual_seed(1)
            expected += task(part, targets, STAGE).losses[name].detach() * targets.counts[name]
            total += targets.counts[name]
        got = torch.zeros(())
        for part, targets in zip(parts, joined(alone, True), strict=True):
            torch.manual_seed(1)
            got += task(part, targets, STAGE).losses[name].detach()
        assert total == (13 if name == "itm" else 3)
        torch.testing.assert_close(got, expected / total)


def test_dropout_and_draws_of_a_part_depend_on_seed_step_and_part() -> None:
    config = config_of(TaskConfig(queue_size=10), 16, dropout=0.5)
    torch.manual_seed(0)
    task = build_task(config).train()
    loop, batch = loop_of(config, task), batch_for("pretrain")

    def losses(step: int) -> list[float]:
        return [float(loss) for loss in loop.backward(task, batch, step, STAGE).losses.values()]

    first, again, next_step = losses(3), losses(3), losses(4)
    assert first == again
    assert all(one != other for one, other in zip(first, next_step, strict=True))
    single = loop_of(dataclasses.replace(config, train=dataclasses.replace(config.train, seed=7)), task)
    assert [float(loss) for loss in single.backward(task, batch, 3, STAGE).losses.values()] != first
    # The parts don't share their dropout: the same pairs twice have two losses.
    twin = dataclasses.replace(batch.slice(0, 16))
    torch.manual_seed(0)
    outputs = []
    for rows in (16, 8):
        loop.config = config_of(TaskConfig(queue_size=10), rows, dropout=0.5)
        outputs.append(float(loop.backward(task, twin, 3, STAGE).losses["mlm"]))
    assert outputs[0] != outputs[1]


def test_the_own_slice_is_contrasted_with_alone_where_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the second of two processes with 4 pairs each, the first of which has the same pairs."""
    monkeypatch.setattr("albef.tasks.base.rank", lambda: 1)
    monkeypatch.setattr(
        "albef.tasks.base.all_gather",
        lambda *tensors: tuple(torch.cat([tensor.flip(0), tensor]) for tensor in tensors),
    )
    torch.manual_seed(0)
    task = build_task(config_of(TaskConfig(queue_size=6))).eval()
    batch = toy.batch(4)
    alone = task.prepare(batch, STAGE)
    published, gathered = (joined([alone], gather)[0] for gather in (False, True))
    assert published.first_row == gathered.first_row == 4
    assert len(published.keys.image) == len(gathered.keys.image) == 8
    torch.manual_seed(0)
    expected = task(batch, alone, STAGE).losses
    torch.manual_seed(0)
    got = task(batch, published, STAGE).losses
    torch.testing.assert_close(got, expected)
    assert not torch.allclose(task(batch, gathered, STAGE).losses["itc"], expected["itc"])


@pytest.mark.parametrize("micro_batch_size", [0, 16])
def test_a_step_casts_each_of_the_teachers_weights_once(micro_batch_size: int) -> None:
    config = config_of(TaskConfig(queue_size=10), micro_batch_size)
    task = build_task(config).train()
    loop, prepare, casts = loop_of(config, task), task.prepare, toy.Casts(task.teacher)
    loop.precision = "bf16"

    def watched(batch: Batch, stage: Stage) -> Targets:
        with casts:
            return prepare(batch, stage)

    task.prepare = watched
    loop.backward(task, batch_for("pretrain"), 3, STAGE)
    assert "module.text_encoder.layers.0.attention.qkv.weight" in casts.counts  # used for two texts of a pair
    assert set(casts.counts.values()) == {1}
    assert not any(weight.requires_grad for weight in task.teacher.parameters())


@pytest.mark.parametrize("name", ["pretrain", "vqa"])
def test_the_teachers_words_of_all_parts_are_never_there_at_once(name: TaskName) -> None:
    task = build_task(config_of(TaskConfig(name=name, queue_size=10)))
    for part in batch_for(name).split(16):
        targets = task.prepare(part, STAGE)
        assert targets.states is not None
        assert targets.logits is None
        assert targets.states.shape[1] == toy.MODEL.text_width < toy.VOCABULARY
