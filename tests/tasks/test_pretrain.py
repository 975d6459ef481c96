"""Pre-training on awkward batches, its settings, and what moves when."""

import dataclasses

import pytest
import torch

import toy
from albef.config import TaskConfig
from albef.data.records import Batch
from albef.systems import build_task
from albef.tasks.base import Output, Stage
from albef.tasks.contrast import counts_of, draw_negatives, same_pairs
from albef.tasks.pretrain import Pretrain

STAGE = Stage(alpha=0.4)


def task_of(**settings: object) -> Pretrain:
    torch.manual_seed(0)
    defaults = {"queue_size": 10, "momentum": 0.9}
    return Pretrain(toy.config(task=dataclasses.replace(TaskConfig(**defaults), **settings))).train()


def step(task: Pretrain, batch: Batch, stage: Stage = STAGE) -> Output:
    output = task(batch, task.prepare(batch, stage), stage)
    sum(output.losses.values()).backward()
    task.update(output)
    return output


def with_ids(batch: Batch, image_id: list[int] | None = None, caption_id: list[int] | None = None) -> Batch:
    return dataclasses.replace(
        batch,
        image_id=batch.image_id if image_id is None else torch.tensor(image_id),
        caption_id=batch.caption_id if caption_id is None else torch.tensor(caption_id),
    )


@pytest.mark.parametrize(
    "batch",
    [
        toy.batch(1),
        toy.batch(3, masked=0),
        with_ids(toy.batch(4), caption_id=[7] * 4),
        with_ids(toy.batch(4), image_id=[7] * 4),
        toy.batch(16),
        toy.batch(2, length=3, masked=1),
    ],
    ids=["batch of one", "nothing masked", "one caption", "one picture", "larger than the queue", "one word"],
)
@pytest.mark.parametrize("queue_size", [0, 10, 1000])
def test_awkward_batches_train_without_nan(batch: Batch, queue_size: int) -> None:
    task = task_of(queue_size=queue_size)
    for _ in range(3):
        output = step(task, batch)
        assert all(loss.isfinite() for loss in output.losses.values())
    gradients = [p.grad for p in task.student.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_forward_changes_nothing() -> None:
    task, batch = task_of(), toy.batch(4)
    step(task, toy.batch(4, seed=1))
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    task(batch, task.prepare(batch, STAGE), STAGE)
    for name, tensor in task.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_update_moves_teacher_queue_and_temperature() -> None:
    task, batch = task_of(), toy.batch(4)
    output = task(batch, task.prepare(batch, STAGE), STAGE)
    with torch.no_grad():
        task.student.temperature.fill_(9.0)
    before = task.teacher.module.image_projection.weight.clone()
    with torch.no_grad():
        task.student.image_projection.weight.add_(1.0)
    task.update(output)
    assert task.student.temperature.item() == pytest.approx(0.5)
    torch.testing.assert_close(task.teacher.module.image_projection.weight, before + 0.1)
    assert task.queue.image_id[:4].tolist() == batch.image_id.tolist()


def test_while_aligning_only_the_contrastive_loss_is_there() -> None:
    task, batch = task_of(), toy.batch(4)
    output = step(task, batch, Stage(alpha=0.0, fuse=False))
    assert set(output.losses) == {"itc"}
    assert all(p.grad is None for p in task.student.fusion_encoder.parameters())


@pytest.mark.parametrize("losses", [("itc",), ("itc", "itm"), ("itc", "mlm"), ("itm",)])
def test_losses_can_be_left_out_and_heads_with_them(losses: tuple[str, ...]) -> None:
    task = task_of(losses=losses)
    assert set(step(task, toy.batch(4)).losses) == set(losses)
    assert (task.student.itm_head is None) == ("itm" not in losses)
    assert (task.student.mlm_head is None) == ("mlm" not in losses)


def test_pairs_of_one_picture_are_all_positives_also_in_the_queue() -> None:
    batch = with_ids(toy.batch(4), image_id=[5, 5, 6, 7])
    task = task_of().eval()
    step(task, batch)
    targets = task.prepare(batch, STAGE)
    aligned = task_alignment(task, batch)
    # Row 0: columns 0 and 1 of the batch, and the same two in the queue behind it.
    assert aligned.same[0].nonzero().flatten().tolist() == [0, 1, 4, 5]
    assert targets.keys.image_id.tolist() == [5, 5, 6, 7]


def test_negatives_never_show_the_same_picture_or_say_the_same() -> None:
    batch = with_ids(toy.batch(6), image_id=[1, 1, 2, 3, 4, 5], caption_id=[1, 2, 3, 3, 4, 5])
    task = task_of(queue_size=0)
    aligned = task_alignment(task, batch)
    for _ in range(30):
        negatives, usable = draw_negatives(aligned, 0, 1.0)
        assert usable.all()
        for drawn in negatives:
            rows = torch.arange(6)
            assert (batch.image_id[rows] != batch.image_id[drawn]).all()
            assert (batch.caption_id[rows] != batch.caption_id[drawn]).all()


def test_the_same_caption_is_no_negative_of_the_contrastive_loss() -> None:
    alike = with_ids(toy.batch(4), caption_id=[1, 1, 2, 3])
    task = task_of(queue_size=0).eval()
    aligned = task_alignment(task, alike)
    lowest = torch.finfo(aligned.i2t_logits.dtype).min
    assert (aligned.i2t_logits == lowest).nonzero().tolist() == [[0, 1], [1, 0]]
    published = task_alignment(task_of(queue_size=0, mask_same_pairs=False).eval(), alike)
    assert (published.i2t_logits > lowest).all()


def task_alignment(task: Pretrain, batch: Batch):
    from albef.tasks.contrast import align

    targets = task.prepare(batch, STAGE)
    masked = task.config.mask_same_pairs
    return align(task.student, task.queue, batch, targets, STAGE, masked, masked)


def test_places_never_written_are_no_negatives_but_random_ones_are() -> None:
    lowest = torch.finfo(torch.float32).min
    fresh = task_alignment(task_of().eval(), toy.batch(4))
    assert (fresh.i2t_logits[:, 4:] == lowest).all()
    random = task_alignment(task_of(random_queue=True).eval(), toy.batch(4))
    assert (random.i2t_logits[:, 4:] > lowest).all()


@pytest.mark.parametrize("encoders", [(), ("image",), ("text", "fusion")])
def test_the_encoders_that_the_recipe_names_are_checkpointed(encoders: tuple[str, ...]) -> None:
    config = toy.config()
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, checkpointing=encoders))
    student = build_task(config).student
    parts = {"image": student.image_encoder, "text": student.text_encoder, "fusion": student.fusion_encoder}
    assert [name for name, part in parts.items() if part is not None and part.checkpointing] == list(encoders)


@pytest.mark.parametrize(
    ("image_id", "caption_id", "same_image", "same_caption", "count"),
    [
        ([1, 2], [5, 6], True, True, 6),
        ([1, 2], [5, 5], False, True, 2),
        ([1, 2], [5, 5], True, False, 6),
        ([1, 1], [5, 6], True, False, 2),
        ([1, 1], [5, 6], False, True, 6),
    ],
)
def test_pairs_without_a_negative_count_once_for_matching(
    image_id: list[int], caption_id: list[int], same_image: bool, same_caption: bool, count: int
) -> None:
    batch = with_ids(toy.batch(2), image_id, caption_id)
    counts = counts_of(same_pairs(batch, same_image, same_caption))
    assert (counts["itc"].item(), counts["itm"].item()) == (2, count)
