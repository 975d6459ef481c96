"""What training logs beside the losses is what its name says."""

import dataclasses

import pytest
import torch

import toy
from albef import objectives
from albef.config import TaskConfig
from albef.data.records import Batch
from albef.objectives import LOSSES
from albef.systems import build_task
from albef.tasks import classes, vqa
from albef.tasks.base import Negatives, Stage
from albef.tasks.classes import Classes
from albef.tasks.contrast import align
from albef.tasks.pretrain import Pretrain
from albef.tasks.text_assignment import Assignment, TextAssignment

STAGE = Stage(alpha=0.4)
OF_CONTRAST = {"mi_i2t", "mi_t2i", "disagreement", "temperature"}


def task_of(name: str, **settings: object):
    torch.manual_seed(0)
    return build_task(toy.config(task=TaskConfig(name=name, queue_size=6, **settings))).eval()


def alike() -> Batch:
    return dataclasses.replace(
        toy.batch(4), image_id=torch.tensor([1, 1, 2, 3]), caption_id=torch.tensor([1, 2, 3, 4])
    )


def answers_of(monkeypatch: pytest.MonkeyPatch, place: object, name: str, logits: torch.Tensor) -> None:
    monkeypatch.setattr(place, name, lambda *_, **__: logits.clone().requires_grad_())


@pytest.mark.parametrize(
    ("losses", "more"),
    [
        (("itc", "itm", "mlm"), {"itm_accuracy", "mi_mlm"}),
        (("itc",), set()),
        (("itc", "itm"), {"itm_accuracy"}),
    ],
)
def test_names_of_measures(losses: tuple[str, ...], more: set[str]) -> None:
    task, batch = task_of("pretrain", losses=losses), toy.batch(4)
    output = task(batch, task.prepare(batch, STAGE), STAGE)
    assert set(output.losses) == set(losses)
    assert set(output.measures) == OF_CONTRAST | more
    aligning = task(batch, task.prepare(batch, STAGE), Stage(alpha=0.4, fuse=False))
    assert set(aligning.measures) == OF_CONTRAST


@pytest.mark.parametrize("name", ["retrieval", "grounding"])
def test_names_of_the_measures_of_fine_tuning(name: str) -> None:
    task, batch = task_of(name), toy.batch(4)
    output = task(batch, task.prepare(batch, STAGE), STAGE)
    assert (set(output.losses), set(output.measures)) == ({"itc", "itm"}, OF_CONTRAST | {"itm_accuracy"})


def test_measures_of_the_contrast() -> None:
    task, batch = task_of("pretrain"), alike()
    assert isinstance(task, Pretrain)
    with torch.no_grad():  # a teacher of its own mind
        task.teacher.module.image_projection.weight.add_(
            torch.randn_like(task.teacher.module.image_projection.weight)
        )
    targets = task.prepare(batch, STAGE)
    found = align(task.student, task.queue, batch, targets, STAGE, True, True)
    hard = objectives.hard_targets(batch.image_id[:, None] == torch.tensor([1, 1, 2, 3, *[-1] * 6]))
    for way, logits in (("mi_i2t", found.i2t_logits), ("mi_t2i", found.t2i_logits)):
        torch.testing.assert_close(found.measures[way], objectives.infonce_bound(logits, hard))
    teacher = targets.keys.image @ targets.keys.text.T
    best = teacher.argmax(1)
    wrong = (batch.image_id != batch.image_id[best]).float().mean()
    torch.testing.assert_close(found.measures["disagreement"], wrong)
    torch.testing.assert_close(found.measures["temperature"], task.student.temperature.detach()[0])


def test_matching_counts_the_pairs_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs: the own ones, each text with another image, each image with another text; without what is no negative."""
    task, batch = task_of("pretrain"), dataclasses.replace(toy.batch(3), image_id=torch.tensor([1, 1, 1]))
    said = torch.tensor([[0.0, 1], [0, 1], [1, 0], *[[1.0, 0]] * 3, *[[0.0, 1]] * 3])
    seen: list[tuple[list[int], list[int]]] = []

    def match(
        tokens: torch.Tensor, mask: torch.Tensor, memory: object, image_index: torch.Tensor
    ) -> torch.Tensor:
        texts = [int((task_tokens == row).flatten(1).all(1).nonzero()[0]) for row in tokens]
        seen.append((texts, image_index.tolist()))
        return said.clone().requires_grad_()

    task_tokens = task.student.encode_text(batch.ids, batch.mask).tokens
    monkeypatch.setattr(task.student, "match", match)
    given = Negatives(image=torch.tensor([1, 2, 0]), text=torch.tensor([2, 0, 1]))
    none = task(batch, task.prepare(batch, STAGE), STAGE, given)
    assert none.measures["itm_accuracy"].item() == pytest.approx(2 / 3)  # nothing is a negative here
    assert seen == [([0, 1, 2, 0, 1, 2, 2, 0, 1], [0, 1, 2, 1, 2, 0, 0, 1, 2])]
    three = dataclasses.replace(batch, image_id=torch.tensor([1, 2, 3]))
    every = task(three, task.prepare(three, STAGE), STAGE, given)
    assert every.measures["itm_accuracy"].item() == pytest.approx(5 / 9)
    truth = torch.tensor([1] * 3 + [0] * 6)
    torch.testing.assert_close(every.losses["itm"], torch.nn.functional.cross_entropy(said, truth))


@pytest.mark.parametrize("name", ["entailment", "nlvr"])
def test_accuracy_of_classes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(name)
    assert isinstance(task, Classes)
    batch = dataclasses.replace(toy.batch(4), label=torch.tensor([0, 1, 1, 0]))
    answers_of(monkeypatch, classes, "classify", torch.tensor([[2.0, 1], [2, 1], [1, 2], [1, 0]]))
    output = task(batch, task.prepare(batch, STAGE), STAGE)
    assert (set(output.losses), set(output.measures)) == ({"classification"}, {"accuracy"})
    assert output.measures["accuracy"].item() == 0.75


def test_accuracy_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = dataclasses.replace(
        toy.batch(2), answer_ids=torch.tensor([[2, 7, 3], [2, 3, 0]]), answer_row=torch.tensor([0, 1]),
        answer_mask=torch.tensor([[True, True, True], [True, True, False]]),
        answer_weights=torch.tensor([1.0, 0.5]),
    )  # fmt: skip
    said = torch.nn.functional.one_hot(torch.tensor([7, 4, 3]), toy.VOCABULARY).float() * 3
    answers_of(monkeypatch, vqa, "predict_words", said)
    task = task_of("vqa")
    output = task(batch, task.prepare(batch, Stage(alpha=0.0)), Stage(alpha=0.0))
    assert (set(output.losses), set(output.measures)) == ({"answer"}, {"token_accuracy"})
    assert output.measures["token_accuracy"].item() == pytest.approx(2 / 3)
    own = torch.nn.functional.cross_entropy(said, torch.tensor([7, 3, 3]), reduction="none")
    torch.testing.assert_close(output.losses["answer"], (own * torch.tensor([1.0, 1.0, 0.5])).sum() / 2)


def test_accuracy_of_assignments(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of("text_assignment")
    assert isinstance(task, TextAssignment)
    said = torch.tensor([[2.0, 1, 0], [2, 1, 0], [0, 1, 2]])
    answers_of(monkeypatch, task.student, "classify", said)
    given = Assignment(torch.tensor([[0, 1], [2, 1], [0, 1]]), torch.tensor([0, 1, 2]))
    for image_id, share in (([1, 2, 3], 2 / 3), ([1, 1, 1], 0.0)):  # of texts that have a negative
        batch = dataclasses.replace(toy.batch(3), image_id=torch.tensor(image_id))
        output = task(batch, task.prepare(batch, STAGE), STAGE, drawn=given)
        assert (set(output.losses), set(output.measures)) == ({"assignment"}, {"accuracy"})
        assert output.measures["accuracy"].item() == pytest.approx(share)


def test_readers_are_told_the_name_of_every_loss() -> None:
    """The names are those that the tests above find in the outputs of the tasks, and those of systems on regions."""
    on_regions = {"objects", "attributes", "features", "alignment", "ranking", "pollution"}
    assert set(LOSSES) == {"itc", "itm", "mlm", "answer", "classification", "assignment"} | on_regions
