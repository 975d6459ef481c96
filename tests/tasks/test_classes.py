"""Entailment, NLVR2 and text assignment: what is trained, what moves, where their weights come from."""

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import toy
from albef import objectives
from albef.config import TaskConfig
from albef.data.records import Batch
from albef.data.text import Tokenizer
from albef.engine import Engine
from albef.model.albef import ALBEF
from albef.model_directory import save_model
from albef.systems import build_task
from albef.tasks.base import Output, Stage, Task
from albef.tasks.classes import paired
from albef.tasks.text_assignment import TextAssignment
from albef.train.initial import start_from

STAGE = Stage(alpha=0.4)
TASKS = ("entailment", "nlvr", "text_assignment")


def task_of(name: str, **settings: object) -> Task:
    torch.manual_seed(0)
    return build_task(toy.config(task=TaskConfig(name=name, momentum=0.9, **settings))).train()


def labelled(size: int, name: str) -> Batch:
    second = torch.randn(size, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    return dataclasses.replace(
        toy.batch(size), label=torch.arange(size) % 2, second_pixels=second if name == "nlvr" else None
    )


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("name", TASKS)
def test_every_trained_weight_gets_a_finite_gradient(name: str, size: int) -> None:
    task = task_of(name)
    output = task(labelled(size, name), task.prepare(labelled(size, name), STAGE), STAGE)
    (loss,) = output.losses.values()
    loss.backward()
    for parameter_name, parameter in task.student.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", ["entailment", "nlvr"])
def test_the_teacher_counts_by_alpha_and_moves(name: str) -> None:
    task, batch = task_of(name), labelled(4, name)
    with torch.no_grad():
        task.teacher.module.classifier.out.bias.add_(torch.arange(3.0)[: 3 if name == "entailment" else 2])
    task.eval()
    soft = task(batch, task.prepare(batch, STAGE), STAGE).losses["classification"]
    none = Stage(alpha=0.0)
    targets = task.prepare(batch, none)
    assert targets.logits is None
    hard = task(batch, targets, none).losses["classification"]
    assert not torch.allclose(soft, hard)
    before = task.teacher.module.classifier.out.bias.clone()
    task.update(Output({}, None, {}))
    moved = before.lerp(task.student.classifier.out.bias, 0.1)
    torch.testing.assert_close(task.teacher.module.classifier.out.bias, moved)


def test_classification_loss_by_hand() -> None:
    logits, teacher = torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[1.0, 3.0]]).log()
    got = objectives.classification_loss(logits, teacher, torch.tensor([0]), 0.5, torch.tensor(1.0))
    log = torch.tensor([0.75, 0.25]).log()
    assert got.item() == pytest.approx((0.5 * -log[0] - 0.5 * (0.25 * log[0] + 0.75 * log[1])).item())
    halved = objectives.classification_loss(logits, None, torch.tensor([0]), 0.5, torch.tensor(2.0))
    assert halved.item() == pytest.approx(-log[0].item() / 2)


@given(st.integers(1, 7), st.integers(0, 2**16))
def test_drawn_pairs_are_what_their_label_says(size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    allowed = torch.rand(size, size, generator=generator) < 0.6
    allowed.fill_diagonal_(False)
    logits = 200 * torch.randn(size, size, generator=generator)  # probabilities that underflow
    pair, label = objectives.sample_assignments(logits, allowed, generator)
    for text in range(size):
        if not allowed[text].any():
            continue
        drawn, kind = pair[text].tolist(), int(label[text])
        if kind == 2:
            assert drawn[0] != drawn[1]
            assert allowed[text, drawn].all()
        else:
            assert drawn[kind] == text
            assert allowed[text, drawn[1 - kind]]


def test_a_third_of_the_texts_belongs_to_neither_and_like_pictures_are_drawn_more_often() -> None:
    size = 3000
    logits = torch.tensor([0.0, 0.0, 2.0, 0.0]).expand(size, 4).clone()
    allowed = torch.tensor([False, True, True, False]).expand(size, 4).clone()
    pair, label = objectives.sample_assignments(logits, allowed, torch.Generator().manual_seed(0))
    shares = torch.bincount(label, minlength=3) / size
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.03, rtol=0)
    drawn = torch.where(label == 0, pair[:, 1], pair[:, 0])[label < 2]
    expected = torch.tensor([0.0, 2.0]).softmax(0)[1]
    assert (drawn == 2).float().mean().item() == pytest.approx(expected.item(), abs=0.03)
    first = pair[label == 2, 0]
    assert (first == 2).float().mean().item() == pytest.approx(expected.item(), abs=0.05)


def test_the_same_picture_or_caption_is_no_negative_and_a_text_without_one_has_no_weight() -> None:
    task = task_of("text_assignment")
    assert isinstance(task, TextAssignment)
    alike = dataclasses.replace(
        toy.batch(4), image_id=torch.tensor([1, 1, 2, 3]), caption_id=torch.tensor([1, 2, 2, 4])
    )
    assert task.allowed(alike).int().tolist() == [[0, 0, 1, 1], [0, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0]]
    one = task(toy.batch(1), task.prepare(toy.batch(1), STAGE), STAGE)
    assert one.losses["assignment"].item() == 0


def saved(folder: Path, heads: tuple[str, ...]) -> tuple[str, ALBEF]:
    torch.manual_seed(1)
    model = ALBEF(toy.MODEL, heads)
    save_model(folder, model, Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY), "")
    return str(folder), model


def test_pre_trained_layers_are_replicated_into_pairs(tmp_path: Path) -> None:
    source, model = saved(tmp_path / "model", ("contrast", "itm", "mlm"))
    task = task_of("nlvr")
    started = start_from(task, source)
    assert {name.split(".")[0] for name in started.random} == {"classifier"}
    ours, theirs = task.student.fusion_encoder.state_dict(), model.fusion_encoder.state_dict()
    for name, tensor in ours.items():
        single = name.replace(".first.", ".").replace(".second.", ".")
        assert torch.equal(tensor, theirs[single]), name
    for name, tensor in task.student.state_dict().items():
        assert torch.equal(task.teacher.module.state_dict()[name], tensor), name


def test_pairs_of_text_assignment_are_kept(tmp_path: Path) -> None:
    source, model = saved(tmp_path / "model", ("contrast", "text_assignment"))
    task = task_of("nlvr")
    start_from(task, source)
    for name, tensor in model.fusion_encoder.state_dict().items():
        assert torch.equal(task.student.fusion_encoder.state_dict()[name], tensor), name
    assert paired(model.state_dict()).keys() == model.state_dict().keys()


def test_a_classifier_of_other_classes_is_left_behind(tmp_path: Path) -> None:
    source, model = saved(tmp_path / "model", ("entailment",))
    task = task_of("nlvr")
    before = task.student.classifier.out.bias.clone()
    start_from(task, source)
    assert torch.equal(task.student.classifier.out.bias, before)
    again = task_of("entailment")
    start_from(again, source)
    assert torch.equal(again.student.classifier.out.weight, model.classifier.out.weight)


def test_a_paired_model_is_saved_and_loaded(tmp_path: Path) -> None:
    source, model = saved(tmp_path / "model", ("nlvr",))
    loaded = Engine.load(source).model.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


def test_the_order_of_the_pictures_matters_and_padding_does_not() -> None:
    model, batch = ALBEF(toy.MODEL, ("nlvr",)).eval(), toy.batch(4)
    memory = model.image_memory(model.encode_image(batch.pixels))
    text = model.encode_text(batch.ids, batch.mask)
    first, second = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 0, 3, 3])

    def logits(rows: slice, length: int, swapped: bool = False) -> torch.Tensor:
        pictures = (second[rows], first[rows]) if swapped else (first[rows], second[rows])
        chosen = memory.select(torch.cat(pictures))
        return model.classify(text.tokens[rows, :length], batch.mask[rows, :length], chosen)

    longest = batch.mask.shape[1]
    together = logits(slice(0, 4), longest)
    assert not torch.allclose(together, logits(slice(0, 4), longest, swapped=True))
    for row in range(4):
        alone = logits(slice(row, row + 1), int(batch.mask[row].sum()))
        torch.testing.assert_close(alone[0], together[row])
