"""Fine-tuning for retrieval: every text of a picture is a positive, whatever else is official."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import toy
from albef.config import TEMPERATURE_RANGE, TaskConfig
from albef.tasks.base import Stage
from albef.tasks.contrast import align, draw_negatives
from albef.tasks.retrieval import Retrieval


def task_of(**chosen: object) -> Retrieval:
    torch.manual_seed(0)
    return Retrieval(toy.config(task=TaskConfig(name="retrieval", queue_size=6, **chosen))).train()


@settings(max_examples=20)
@given(st.lists(st.integers(0, 2), min_size=2, max_size=6), st.booleans())
def test_positives_and_negatives_follow_the_pictures(pictures: list[int], robust: bool) -> None:
    task = task_of(mask_same_pairs=robust).eval()
    first, second = (
        dataclasses.replace(toy.batch(len(pictures), seed), image_id=torch.tensor(pictures))
        for seed in (0, 1)
    )
    stage = Stage(alpha=0.0)
    task.update(task(first, task.prepare(first, stage), stage))  # fills the queue
    targets = task.prepare(second, stage)
    found = align(task.student, task.queue, second, targets, stage, same_image=True, same_caption=robust)
    bank = [*pictures, *(pictures[-6:] if len(pictures) > 6 else pictures)]
    logits = found.i2t_logits
    slow = 0.0
    for row, own in enumerate(pictures):
        columns = [column for column, other in enumerate(bank) if other == own]
        slow -= logits[row].log_softmax(0)[columns].mean() / len(pictures)
        for column in columns:
            assert found.same[row, column]
    back = 0.0
    for row, own in enumerate(pictures):
        columns = [column for column, other in enumerate(bank) if other == own]
        back -= found.t2i_logits[row].log_softmax(0)[columns].mean() / len(pictures)
    torch.testing.assert_close(found.loss, (slow + back) / 2)
    negatives, usable = draw_negatives(found, 0, 1.0)
    for row, own in enumerate(pictures):
        if usable[row, 0]:
            assert pictures[negatives.image[row]] != own
            assert pictures[negatives.text[row]] != own
        else:
            assert set(pictures) == {own}


def test_without_distillation_the_teacher_is_still_the_bank() -> None:
    task, batch = task_of(), toy.batch(4)
    with torch.no_grad():
        task.teacher.module.text_projection.bias.add_(0.5)
    hard, soft = Stage(alpha=0.0), Stage(alpha=0.4)
    task.eval()
    one = task(batch, task.prepare(batch, hard), hard)
    other = task(batch, task.prepare(batch, soft), soft)
    assert not torch.allclose(one.losses["itc"], other.losses["itc"])
    torch.testing.assert_close(one.keys.text, other.keys.text)
    student_text = task.student.encode_text(batch.ids, batch.mask).feature
    assert not torch.allclose(one.keys.text, student_text)


def test_the_temperature_stays_in_its_range() -> None:
    task = task_of()
    batch = toy.batch(4)
    stage = Stage(alpha=0.0)
    output = task(batch, task.prepare(batch, stage), stage)
    with torch.no_grad():
        task.student.temperature.fill_(100.0)
    task.update(output)
    assert task.student.temperature.item() == pytest.approx(TEMPERATURE_RANGE[1])
