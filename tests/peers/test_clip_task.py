"""CLIP's training: parts and processes add up, pairs that are alike are no negatives, runs resume."""

import dataclasses

import pytest
import torch
from torch import Tensor

import toy
import toy_clip
from albef.config import Config, TaskConfig, TrainConfig, UserError
from albef.data.records import Batch
from albef.peers.clip_task import ClipTask
from albef.systems import build_task
from albef.tasks.base import Stage, joined

STAGE = Stage(alpha=0.0)


def config(micro: int = 0, **task: object) -> Config:
    train = TrainConfig(batch_size=6, micro_batch_size=micro)
    return Config(model=toy_clip.CONFIG, task=TaskConfig(**task), train=train)


def batch(images: list[int] | None = None, captions: list[int] | None = None) -> Batch:
    ids = toy_clip.texts([1], [2, 3], [4], [5, 6, 7], [8], [9])
    return Batch(
        pixels=toy_clip.pixels(6),
        ids=ids,
        mask=torch.ones_like(ids, dtype=torch.bool),
        masked_ids=ids,
        mlm_positions=torch.zeros(0, dtype=torch.long),
        mlm_labels=torch.zeros(0, dtype=torch.long),
        image_id=torch.tensor(images or range(6)),
        caption_id=torch.tensor(captions or range(6)),
    )


def stepped(task: ClipTask, given: Batch, rows: int) -> tuple[float, dict[str, Tensor]]:
    """The loss of a batch in parts of so many rows, and the gradients."""
    parts = given.split(rows)
    targets = joined([task.prepare(part, STAGE) for part in parts], task.config.gather_batch)
    losses = [task(part, one, STAGE).losses["itc"] for part, one in zip(parts, targets, strict=True)]
    total = torch.stack(losses).sum()
    total.backward()
    gradients = {name: p.grad.clone() for name, p in task.student.named_parameters()}
    task.zero_grad()
    return total.item(), gradients


def task_with(state: dict[str, Tensor], **settings: object) -> ClipTask:
    task = build_task(config(**settings))
    assert isinstance(task, ClipTask)
    task.student.load_state_dict(state)
    return task


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_parts_add_up_to_the_whole_batch(rows: int, alike: bool) -> None:
    state = toy_clip.model().state_dict()
    given = batch([0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 3]) if alike else batch()
    loss, gradients = stepped(task_with(state), given, 6)
    in_parts, of_parts = stepped(task_with(state, micro=rows), given, rows)
    assert in_parts == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(of_parts[name], gradient, rtol=1e-4, atol=1e-6)


def test_pairs_that_are_alike_are_no_negatives_of_each_other() -> None:
    state, given = toy_clip.model().state_dict(), batch([0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 3])
    robust, _ = stepped(task_with(state), given, 6)
    published, _ = stepped(task_with(state, mask_same_pairs=False), given, 6)
    unlike, _ = stepped(task_with(state, mask_same_pairs=False), batch(), 6)
    assert robust < published == unlike


def test_without_the_pairs_of_others_it_is_the_loss_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    task, given = task_with(toy_clip.model().state_dict(), gather_batch=False), batch()
    alone, _ = stepped(task, given, 6)
    assert alone == pytest.approx(stepped(task_with(task.student.state_dict()), given, 6)[0])


def test_the_scale_stays_in_range() -> None:
    task = task_with(toy_clip.model().state_dict())
    with torch.no_grad():
        task.student.logit_scale.fill_(9.0)
    task.update(task(batch(), task.prepare(batch(), STAGE), STAGE))
    assert task.student.temperature.item() == pytest.approx(0.01)


@pytest.mark.parametrize("name", ["vqa", "entailment", "nlvr", "grounding", "text_assignment"])
def test_other_tasks_are_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=rf"task.name is {name}.*system clip.*pretrain, retrieval"):
        build_task(dataclasses.replace(config(), task=TaskConfig(name=name)))


def test_the_activation_of_another_system_is_refused() -> None:
    model = dataclasses.replace(toy.MODEL, activation="quick_gelu")
    with pytest.raises(UserError, match=r"model\.activation is quick_gelu.*albef"):
        build_task(Config(model=model))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": {"vocabulary": "bert"}}, r"model\.vocabulary is bert.*one of clip, trained"),
        ({"train": {"init_image": "deit"}}, r"train\.init_image.*system albef"),
    ],
)
def test_settings_of_another_system_are_refused(changes: dict[str, dict[str, str]], sentence: str) -> None:
    given = config()
    for section, values in changes.items():
        given = dataclasses.replace(
            given, **{section: dataclasses.replace(getattr(given, section), **values)}
        )
    with pytest.raises(UserError, match=sentence):
        build_task(given)
