"""Answers: later words never change earlier ones, padding changes nothing, weights and teacher count."""

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import toy
from albef import objectives
from albef.config import TaskConfig
from albef.data.records import Batch
from albef.data.text import Tokenizer
from albef.model.albef import ALBEF
from albef.model.answer_decoder import predicted
from albef.model.answering import rank_answers, write_answers
from albef.model_directory import save_model
from albef.tasks.base import Stage
from albef.tasks.vqa import VQA
from albef.train.initial import start_from

STAGE = Stage(alpha=0.4)
CLS, SEP = 2, 3


def asked(size: int = 3, answers: tuple[int, ...] = (1, 2, 1)) -> Batch:
    """Questions with so many answers each, of two to four tokens between [CLS] and [SEP]."""
    generator = torch.Generator().manual_seed(3)
    total, length = sum(answers), 5
    ids = torch.randint(5, toy.VOCABULARY, (total, length), generator=generator)
    ends = torch.arange(total) % 3 + 2
    ids[:, 0] = CLS
    ids[torch.arange(total), ends] = SEP
    mask = torch.arange(length) <= ends[:, None]
    return dataclasses.replace(
        toy.batch(size),
        answer_ids=torch.where(mask, ids, 0),
        answer_mask=mask,
        answer_weights=torch.rand(total, generator=generator),
        answer_row=torch.arange(size).repeat_interleave(torch.tensor(answers)),
    )


@pytest.fixture
def model() -> ALBEF:
    torch.manual_seed(0)
    return ALBEF(toy.MODEL, ("answer",)).eval().requires_grad_(False)


def memory_of(model: ALBEF, batch: Batch):
    return model.question_memory(model.encode_text(batch.ids, batch.mask), model.encode_image(batch.pixels))


def test_a_later_token_never_changes_an_earlier_one(model: ALBEF) -> None:
    batch = asked()
    memory, rows = memory_of(model, batch), batch.answer_row
    places = torch.arange(batch.answer_ids.numel())
    mask = torch.ones_like(batch.answer_mask)
    before = model.predict_answers(batch.answer_ids, mask, memory, rows, places).unflatten(0, mask.shape)
    changed = batch.answer_ids.clone()
    changed[:, 3] = 7
    after = model.predict_answers(changed, mask, memory, rows, places).unflatten(0, mask.shape)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_padding_and_company_change_nothing(model: ALBEF) -> None:
    batch = asked()
    memory = memory_of(model, batch)
    places = predicted(batch.answer_mask)
    together = model.predict_answers(batch.answer_ids, batch.answer_mask, memory, batch.answer_row, places)
    start = 0
    for row in range(len(batch.answer_ids)):
        length = int(batch.answer_mask[row].sum())
        question = int(batch.answer_row[row])
        words = int(batch.mask[question].sum())
        single = dataclasses.replace(
            batch.slice(question, question + 1),
            ids=batch.ids[question : question + 1, :words],
            mask=batch.mask[question : question + 1, :words],
        )
        ids = batch.answer_ids[row : row + 1, :length]
        mask = torch.ones_like(ids, dtype=torch.bool)
        alone = model.predict_answers(ids, mask, memory_of(model, single), torch.tensor([0]), predicted(mask))
        torch.testing.assert_close(alone, together[start : start + length - 1])
        start += length - 1


@settings(max_examples=20)
@given(st.integers(1, 12), st.integers(0, 100))
def test_the_likeliest_candidates_are_scored_whole(k: int, seed: int) -> None:
    torch.manual_seed(seed)
    model, batch = ALBEF(toy.MODEL, ("answer",)).eval().requires_grad_(False), asked()
    memory, candidates = memory_of(model, batch), asked(4, (2, 2, 2, 2))
    ids, mask = candidates.answer_ids, candidates.answer_mask
    best, chances = rank_answers(model, memory, ids, mask, k)
    assert best.shape == chances.shape == (3, min(k, 8))
    torch.testing.assert_close(chances.sum(1), torch.ones(3))
    assert (chances.diff(dim=1) <= 0).all()
    if k >= 8:  # all are scored: by a slow loop, one by one
        for question in range(3):
            scores = []
            for row in range(8):
                one, real = ids[row : row + 1], mask[row : row + 1]
                places = predicted(real)
                logits = model.predict_answers(one, real, memory, torch.tensor([question]), places)
                chosen = logits.log_softmax(1).gather(1, one.flatten()[places + 1][:, None])
                scores.append(chosen.sum())
            expected = torch.stack(scores).softmax(0)[best[question]]
            torch.testing.assert_close(chances[question], expected, rtol=1e-4, atol=1e-6)


def test_a_search_with_every_beam_finds_the_best_answer(model: ALBEF) -> None:
    batch = asked(2, (1, 1))
    memory = memory_of(model, batch)
    greedy, _ = write_answers(model, memory, CLS, SEP, beams=1, max_tokens=2)
    _, scores = write_answers(model, memory, CLS, SEP, beams=toy.VOCABULARY, max_tokens=2)
    assert (scores.diff(dim=1) <= 0).all()
    pieces = torch.arange(toy.VOCABULARY)
    for question in range(2):
        row = torch.tensor([question])
        first = model.predict_answers(
            torch.tensor([[CLS]]), torch.tensor([[True]]), memory, row, torch.tensor([0])
        ).log_softmax(1)[0]
        assert int(greedy[question, 0, 1]) == int(first.argmax())
        ids = torch.stack([torch.full_like(pieces, CLS), pieces], 1)
        second = model.predict_answers(
            ids, torch.ones_like(ids, dtype=torch.bool), memory, row.expand(len(ids)), 2 * pieces + 1
        ).log_softmax(1)
        closed = torch.where((pieces[None] == SEP), 0.0, -torch.inf)
        second = torch.where(pieces[:, None] == SEP, closed, second)
        best = (first[:, None] + second).max()
        torch.testing.assert_close(scores[question, 0], best)


def test_every_trained_weight_gets_a_gradient_and_the_teacher_moves() -> None:
    torch.manual_seed(0)
    task = VQA(toy.config(task=TaskConfig(name="vqa", momentum=0.9))).train()
    batch = asked()
    output = task(batch, task.prepare(batch, STAGE), STAGE)
    output.losses["answer"].backward()
    for name, parameter in task.student.named_parameters():
        assert parameter.grad is not None, name
    before = task.teacher.module.answer_decoder.head.bias.clone()
    with torch.no_grad():
        task.student.answer_decoder.head.bias.add_(1.0)
    task.update(output)
    torch.testing.assert_close(task.teacher.module.answer_decoder.head.bias, before + 0.1)
    assert task.prepare(batch, Stage(alpha=0.0)).states is None


def test_answer_loss_by_hand() -> None:
    logits = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.2, 0.8]]).log()
    weights, questions = torch.tensor([2.0, 2.0, 1.0]), torch.tensor(2.0)
    labels = torch.tensor([0, 1, 1])
    loss = objectives.answer_loss(logits, None, labels, weights, 0.0, questions)
    own = -torch.tensor([0.75, 0.5, 0.8]).log()
    torch.testing.assert_close(loss, (own * weights).sum() / 2)
    teacher = torch.zeros(3, 2)
    soft = -logits.mean(1)
    loss = objectives.answer_loss(logits, teacher, labels, weights, 0.25, questions)
    torch.testing.assert_close(loss, ((0.75 * own + 0.25 * soft) * weights).sum() / 2)


def test_the_decoder_starts_as_the_fusion_layers(tmp_path: Path) -> None:
    model = ALBEF(toy.MODEL, ("contrast", "itm", "mlm"))
    save_model(tmp_path / "model", model, Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY), "")
    task = VQA(toy.config(task=TaskConfig(name="vqa")))
    started = start_from(task, str(tmp_path / "model"))
    assert started.random == []
    decoder = task.student.answer_decoder
    for name, tensor in model.fusion_encoder.state_dict().items():
        assert torch.equal(decoder.state_dict()[name], tensor), name
    assert torch.equal(decoder.words.weight, model.text_encoder.words.weight)
    assert torch.equal(decoder.head.bias, model.mlm_head.bias)
