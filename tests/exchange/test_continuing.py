"""Imported models go on: evaluated, fine-tuned, pre-trained on with their teacher and queue; by the commands."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import toy
from albef.cli import main
from albef.config import TaskConfig, UserError
from albef.data.text import Tokenizer
from albef.exchange.importing import Choices, import_checkpoint
from albef.systems import build_task
from albef.train.initial import start_from
from toy_published import toy_state

ON_THE_WAY = {  # what is trained from which published model
    "pretrain": ["pretrain", "retrieval", "grounding", "vqa", "entailment", "text_assignment", "nlvr"],
    "retrieval/grounding": ["retrieval", "grounding", "vqa", "entailment", "nlvr"],
    "vqa": ["vqa"],
    "ve": ["entailment", "nlvr"],
    "pretrain_nlvr": ["nlvr", "text_assignment"],
    "nlvr": ["nlvr"],
}
WAYS = [(name, task) for name, tasks in ON_THE_WAY.items() for task in tasks]


def imported(name: str, folder: Path) -> Path:
    folder.mkdir()
    Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY).save(folder / "tokenizer.json", toy.MODEL)
    torch.save(toy_state(name), folder / "a.pth")
    choices = Choices(heads=(2,), tokenizer=folder / "tokenizer.json")
    import_checkpoint(folder / "a.pth", folder / "model", choices)
    return folder / "model"


def a_task(task_name: str, image_size: int = 24, queue_size: int = 10):
    model = dataclasses.replace(
        toy.MODEL, image_depth=2, text_depth=2, max_positions=64, image_size=image_size
    )
    config = toy.config(task=TaskConfig(name=task_name, queue_size=queue_size))
    return build_task(dataclasses.replace(config, model=model))


@pytest.mark.parametrize(("name", "task_name"), WAYS)
def test_every_published_way_is_open(tmp_path: Path, name: str, task_name: str) -> None:
    model = imported(name, tmp_path / "in")
    task = a_task(task_name)
    started = start_from(task, str(model))
    assert {part.split(".")[0] for part in started.random} <= {"itm_head", "classifier", "answer_decoder"}
    stored = load_file(model / "model.safetensors")
    assert torch.equal(task.student.text_encoder.words.weight, stored["text_encoder.words.weight"])


@pytest.mark.parametrize(
    ("name", "task_name", "match"),
    [
        (
            "vqa",
            "retrieval",
            r"this model \(for answer\) lacks image_projection\.weight and 3 more tensors that Retri",
        ),
        (
            "nlvr",
            "entailment",
            r"this model \(for nlvr\) lacks fusion_encoder\.layers\.0\..* that Entailment",
        ),
        ("nlvr", "vqa", r"this model \(for nlvr\) lacks"),
        ("ve", "pretrain", r"this model \(for entailment\)"),
        ("pretrain_nlvr", "pretrain", r"this model \(for contrast, text_assignment\)"),
    ],
)
def test_a_model_of_another_task_is_refused_by_name(
    tmp_path: Path, name: str, task_name: str, match: str
) -> None:
    with pytest.raises(UserError, match=match):
        start_from(a_task(task_name), str(imported(name, tmp_path / "in")))


@pytest.mark.parametrize("queue_size", [4, 10, 13])
def test_pre_training_goes_on_with_teacher_and_queue(tmp_path: Path, queue_size: int) -> None:
    model = imported("pretrain", tmp_path / "in")
    task = a_task("pretrain", image_size=16, queue_size=queue_size)
    start_from(task, str(model))
    student, teacher = task.student.state_dict(), load_file(model / "teacher.safetensors")
    for name, tensor in task.teacher.module.state_dict().items():
        # Moved once towards the student, as the published step does before anything else.
        expected = teacher[name].lerp(student[name], 1 - 0.995) if name in teacher else student[name]
        torch.testing.assert_close(tensor, expected, msg=name)
    stored = load_file(model / "queue.safetensors")
    in_order = stored["image"].roll(-3, 0)  # the pointer of the toys is 3: that place is the oldest
    count = min(queue_size, 10)
    assert task.queue.count.item() == count
    newest = (task.queue.pointer.item() - 1 - torch.arange(count)) % queue_size
    assert torch.equal(task.queue.image[newest], in_order.flip(0)[:count])
    assert len(task.queue.image_id.unique()) == 1, "whose the features are is not known here"


def test_without_a_stored_teacher_the_student_is_copied(tmp_path: Path) -> None:
    model = imported("retrieval/grounding", tmp_path / "in")
    (model / "teacher.safetensors").unlink()
    task = a_task("retrieval")
    start_from(task, str(model))
    for name, tensor in task.student.state_dict().items():
        assert torch.equal(task.teacher.module.state_dict()[name], tensor)


def test_a_file_where_a_model_belongs_names_the_command(tmp_path: Path) -> None:
    (tmp_path / "ALBEF.pth").touch()
    with pytest.raises(UserError, match=r"albef import .*ALBEF\.pth --out DIR"):
        start_from(a_task("pretrain"), str(tmp_path / "ALBEF.pth"))


RECIPE = """
model: {size: tiny, image_size: 24, max_tokens: 20}
data: {source: "SOURCE", count: 8, num_nouns: 8, randaugment: false}
task: {name: TASK, queue_size: 8}
train: {steps: 1, batch_size: 4, warmup_steps: 0, precision: fp32, threads: 1, log_every_steps: 1}
evaluate: {splits: [test], count: 6, top_k: 2}
"""
SOURCES = {
    "pretrain": "pictograms",
    "retrieval": "pictograms:retrieval",
    "vqa": "pictograms:vqa",
    "entailment": "pictograms:entailment",
    "nlvr": "pictograms:nlvr",
    "text_assignment": "pictograms",
}


@pytest.mark.parametrize(
    ("name", "task_name"),
    [
        ("pretrain", "pretrain"),
        ("retrieval/grounding", "retrieval"),
        ("vqa", "vqa"),
        ("ve", "entailment"),
        ("pretrain_nlvr", "nlvr"),
        ("nlvr", "nlvr"),
    ],
)
def test_the_commands_evaluate_train_and_export_it(
    tmp_path: Path, name: str, task_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY).save(tmp_path / "tokenizer.json", toy.MODEL)
    torch.save({"model": toy_state(name), "epoch": 1}, tmp_path / "in.pth")
    (tmp_path / "answers.json").write_text(json.dumps(["yes", "no", "two"]))
    model, recipe, run = (str(tmp_path / part) for part in ("model", "recipe.yaml", "run"))
    tokenizer = ["--tokenizer", str(tmp_path / "tokenizer.json"), "--heads", "2"]
    answers = ["--answers", str(tmp_path / "answers.json")] if name == "vqa" else []
    main(["import", str(tmp_path / "in.pth"), "--out", model, *tokenizer, *answers])
    shown = capsys.readouterr().out
    assert all(word in shown for word in (name, "loaded", "ignored", "assumed", "position_ids", "epoch"))
    source = SOURCES[task_name]
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("SOURCE", source).replace("TASK", task_name))
    if name != "pretrain_nlvr":  # it prepares for another task
        few = ["--split", "test", "--count", "6", "--num-nouns", "8", "--top-k", "2"]
        main(["evaluate", model, "--data", source, *few, "--json", str(tmp_path / "m.json")])
        assert json.loads((tmp_path / "m.json").read_text())
    main(["train", recipe, "--init", model, "--out", run])
    main(["export", run, "--official", str(tmp_path / "out.pth")])
    state = torch.load(tmp_path / "out.pth", weights_only=True)["model"]
    if name != "pretrain_nlvr":
        names = {n for n in toy_state(name) if "queue" not in n and not n.endswith("pos_embed")}
        assert all(state[n].shape == toy_state(name)[n].shape for n in names)
        assert {n for n in state if "queue" not in n and not n.endswith("pos_embed")} == names


def test_mistakes_end_with_2_and_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.pth").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(SystemExit) as stop:
        main(["import", str(tmp_path / "a.pth"), "--out", str(tmp_path / "model")])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"albef: {tmp_path / 'a.pth'}: not a checkpoint, or cut off")
