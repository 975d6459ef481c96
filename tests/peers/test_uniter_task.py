"""UNITER's training: objectives are drawn as published, parts add up, and every loss falls."""

import dataclasses
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import toy_uniter
from albef.config import Config, TaskConfig, TrainConfig
from albef.peers.region_draws import Matching, sample_matching, sample_other
from albef.peers.uniter import PAIRS
from albef.peers.uniter_task import (
    MIX,
    Rivals,
    UniterEntailment,
    UniterNLVR,
    UniterPretrain,
    UniterRetrieval,
    UniterTask,
    UniterVQA,
    hardest_rivals,
    sample_objective,
)
from albef.tasks.base import Stage, joined
from toy_batches import in_double

CONFIG = Config(model=toy_uniter.CONFIG, train=TrainConfig(batch_size=4))
TASKS = (UniterRetrieval, UniterVQA, UniterEntailment, UniterNLVR)
# Drawn for rows 0, 1 and 2, 3 alike, so that parts of two rows can have it too.
MATCHING = Matching(torch.tensor([0, 0, 2, 2]), torch.tensor([1, 0, 1, 0]))
RIVALS = Rivals(
    *torch.tensor([1, 0, 3, 2]).view(1, 4, 1).expand(2, -1, -1), torch.ones(4, 2, dtype=torch.bool)
)


def stage_of(objective: str) -> Stage:
    """A step that trains this objective."""
    step = next(step for step in range(1000) if sample_objective(42, step, True) == objective)
    return Stage(alpha=0.0, step=step)


def stepped(task: UniterTask, stage: Stage, rows: int, drawn: tuple[Tensor, ...] | None) -> list[Tensor]:
    """The gradients of a batch in parts of so many rows, and its loss."""
    torch.manual_seed(0)
    parts = in_double(toy_uniter.batch()).split(rows)
    targets = joined([task.prepare(part, stage) for part in parts], True)
    total = torch.zeros(())
    for number, (part, one) in enumerate(zip(parts, targets, strict=True)):
        own = None
        if drawn is not None:
            some, first = slice(rows * number, rows * number + rows), rows * number
            *indices, flags = (tensor[some] for tensor in drawn)
            own = type(drawn)(*(index - first for index in indices), flags)
        total = total + sum(task(part, one, stage, own).losses.values())
    total.backward()
    found = [p.grad.clone() for p in task.student.parameters() if p.grad is not None]
    task.zero_grad()
    return [*found, total.detach()]


@pytest.mark.parametrize("objective", MIX)
def test_parts_of_pre_training_add_up(objective: str) -> None:
    task = UniterPretrain(CONFIG)
    task.student.load_state_dict(toy_uniter.model().state_dict())
    drawn = MATCHING if objective == "itm" else None
    whole, parts = (stepped(task.double(), stage_of(objective), rows, drawn) for rows in (4, 2))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", TASKS)
def test_parts_of_fine_tuning_add_up(kind: type[UniterTask]) -> None:
    task = kind(CONFIG)
    task.student.load_state_dict(toy_uniter.model(kind.heads).state_dict())
    drawn = RIVALS if kind is UniterRetrieval else None
    whole, parts = (stepped(task.double(), Stage(alpha=0.0), rows, drawn) for rows in (4, 2))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("way", PAIRS)
def test_a_text_about_two_images_is_read_in_any_of_three_ways(way: str) -> None:
    config = dataclasses.replace(CONFIG, task=TaskConfig(name="nlvr", two_images=way))
    task = UniterNLVR(config)
    assert task.student.heads == (way,)
    task.student.load_state_dict(toy_uniter.model((way,)).state_dict())
    whole, parts = (stepped(task.double(), Stage(alpha=0.0), rows, None) for rows in (4, 2))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    found = losses_over(task.float(), Stage(alpha=0.0))
    assert found[-1] < found[0]


def losses_over(task: UniterTask, stage: Stage, steps: int = 15) -> list[float]:
    """The losses of so many steps on one batch."""
    optimizer, found, given = torch.optim.Adam(task.parameters(), 3e-3), [], toy_uniter.batch()
    for _ in range(steps):
        drawn = {UniterPretrain: MATCHING, UniterRetrieval: RIVALS}.get(type(task))
        loss = sum(task(given, task.prepare(given, stage), stage, drawn).losses.values())
        assert isinstance(loss, Tensor)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("objective", MIX)
def test_pre_training_learns(objective: str) -> None:
    torch.manual_seed(0)
    task = UniterPretrain(CONFIG)
    task.student.load_state_dict(toy_uniter.model().state_dict())
    found = losses_over(task, stage_of(objective))
    assert found[-1] < found[0]


@pytest.mark.parametrize("kind", TASKS)
def test_fine_tuning_learns(kind: type[UniterTask]) -> None:
    torch.manual_seed(0)
    task = kind(CONFIG)
    task.student.load_state_dict(toy_uniter.model(kind.heads).state_dict())
    found = losses_over(task, Stage(alpha=0.0))
    assert found[-1] < found[0]


def test_a_step_trains_the_heads_of_its_objective_alone() -> None:
    task, given = UniterPretrain(CONFIG), toy_uniter.batch()
    for objective, head in (("mlm", "mlm_head"), ("features", "feature_head"), ("objects", "object_head")):
        stage = stage_of(objective)
        output = task(given, task.prepare(given, stage), stage)
        assert list(output.losses) == [objective]
        sum(output.losses.values()).backward()
        trained = {n.split(".")[0] for n, p in task.student.named_parameters() if p.grad is not None}
        assert trained & {"itm_head", "mlm_head", "feature_head", "object_head"} == {head}
        task.zero_grad()


def test_objectives_are_drawn_as_often_as_published() -> None:
    steps = 4400
    drawn = Counter(sample_objective(1, step, with_classes=True) for step in range(steps))
    for name, share in MIX.items():
        assert drawn[name] / steps == pytest.approx(share / 11, abs=0.03)
    assert [sample_objective(1, step, True) for step in range(9)] == [
        sample_objective(1, step, True) for step in range(9)
    ]
    without = Counter(sample_objective(1, step, with_classes=False) for step in range(steps))
    assert set(without) == {"itm", "mlm", "features"}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(0, 99))
def test_another_row_has_another_image(images: list[int], seed: int) -> None:
    image_id, generator = torch.tensor(images), torch.Generator().manual_seed(seed)
    other = sample_other(image_id, generator)
    for row, found in enumerate(other.tolist()):
        if len(set(images)) == 1:
            assert found == row
        else:
            assert images[found] != images[row]
    image, matched = sample_matching(image_id, generator)
    assert matched.tolist() == [int(images[found] == images[row]) for row, found in enumerate(image.tolist())]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(1, 9), st.integers(0, 99))
def test_the_hardest_are_those_with_the_highest_scores(images: list[int], chosen: int, seed: int) -> None:
    image_id = torch.tensor(images)
    scores = torch.randn(len(images), len(images), generator=torch.Generator().manual_seed(seed))
    found = hardest_rivals(scores, image_id, chosen)
    width = found.image.shape[1]
    assert width == max(min(chosen, len(images) - 1), 1)
    for row, image in enumerate(images):
        for side, by_score in enumerate((scores[row], scores[:, row])):
            others = [other for other in by_score.argsort(descending=True).tolist() if images[other] != image]
            index, usable = found[side][row], found.usable[row, side * width : side * width + width]
            assert sorted(index[usable].tolist()) == sorted(others[:chosen])


def test_hard_negatives_are_what_the_model_scores_highest() -> None:
    given = toy_uniter.batch()
    config = dataclasses.replace(
        CONFIG,
        model=dataclasses.replace(toy_uniter.CONFIG, dropout=0.4),
        task=TaskConfig(name="retrieval", hard_negatives=2),
    )
    task = UniterRetrieval(config)
    task.student.load_state_dict(toy_uniter.model(UniterRetrieval.heads).state_dict())
    task.train()
    found = task.prepare(given, Stage(alpha=0.0))
    assert task.student.training
    assert all(module.training for module in task.student.modules())
    task.eval()
    text, memory = task.encoded(given)
    scores = torch.stack(
        [task.student.match(text[[row] * 4], given.mask[[row] * 4], memory)[:, 1] for row in range(4)]
    )
    expected = hardest_rivals(scores, given.image_id, 2)
    for got, wanted in zip(found.drawn, expected, strict=True):
        assert got.tolist() == wanted.tolist()
    # As published: over the batch, the mean of the mean loss of its texts plus that of its images.
    own, losses = scores.diag().sigmoid()[:, None], []
    for index, rows in zip(expected[:2], (scores, scores.T), strict=True):
        losses.append((0.2 + rows.gather(1, index).sigmoid() - own).relu().mean(1))
    (loss,) = task(given, found, Stage(alpha=0.0)).losses.values()
    torch.testing.assert_close(loss, (losses[0] + losses[1]).mean())


@pytest.mark.parametrize("hard_negatives", [0, 3])
def test_a_batch_of_one_image_has_no_negatives(hard_negatives: int) -> None:
    given = dataclasses.replace(toy_uniter.batch(), image_id=torch.zeros(4, dtype=torch.long))
    config = dataclasses.replace(CONFIG, task=TaskConfig(name="retrieval", hard_negatives=hard_negatives))
    task = UniterRetrieval(config)
    output = task(given, task.prepare(given, Stage(alpha=0.0)), Stage(alpha=0.0))
    assert output.losses["ranking"].item() == 0
    assert output.measures["ranking_accuracy"].item() == 0


def test_half_of_the_texts_keep_their_image() -> None:
    matched = sample_matching(torch.arange(2000), torch.Generator().manual_seed(0)).matched
    assert matched.float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_the_score_starts_as_the_logit_of_a_match() -> None:
    before = toy_uniter.model(("itm",)).state_dict()
    after = UniterRetrieval.adapt(before)
    assert torch.equal(after["rank_head.weight"], before["itm_head.weight"][1:])
    assert torch.equal(after["rank_head.bias"], before["itm_head.bias"][1:])
    trained = toy_uniter.model(("itm", "rank")).state_dict()
    assert torch.equal(UniterRetrieval.adapt(trained)["rank_head.weight"], trained["rank_head.weight"])


def test_the_second_image_starts_with_the_type_of_the_first() -> None:
    name, before = "text_encoder.types.weight", toy_uniter.model(("itm",)).state_dict()
    after = UniterNLVR.adapt(before)
    assert after[name].tolist() == before[name][[0, 1, 1]].tolist()
    trained = toy_uniter.model(("paired_attention",)).state_dict()
    assert torch.equal(UniterNLVR.adapt(trained)[name], trained[name])


def test_all_parts_train_one_objective_though_one_has_no_classes() -> None:
    task, stage = UniterPretrain(CONFIG), stage_of("objects")
    first, second = toy_uniter.batch().split(2)
    parts = [first, dataclasses.replace(second, region_classes=None)]
    targets = joined([task.prepare(part, stage) for part in parts], True)
    trained = {
        name for part, one in zip(parts, targets, strict=True) for name in task(part, one, stage).losses
    }
    assert "objects" not in trained
    assert trained in ({"itm", "alignment"}, {"mlm"}, {"features"})
