"""How a run's device computes: settings that are noted, refused or passed on to torch; one graph a step."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import toy
from albef.config import Config, TrainConfig, UserError
from albef.recipe import load_recipe
from albef.run import prepare
from albef.train.checkpoint import CheckpointWriter
from albef.train.device import check_device, set_up
from albef.train.resume import identity

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def as_before() -> Iterator[None]:
    """What a run tells torch is taken back."""
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = convolution
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("typed", "value"), [("on", True), ("off", False), ("true", True), ("no", False)])
def test_compile_is_on_or_off_as_people_type_it(tmp_path: Path, typed: str, value: bool) -> None:
    (tmp_path / "recipe.yaml").write_text(f"train:\n  compile: {typed}\n")
    assert load_recipe(tmp_path / "recipe.yaml").train.compile is value
    assert load_recipe(tmp_path / "recipe.yaml", ["--train.compile=off"]).train.compile is False


@pytest.mark.parametrize("setting", ["compile", "tf32", "deterministic"])
def test_another_value_on_resume_is_asked_about(tmp_path: Path, setting: str) -> None:
    config = prepare(toy.config(), tmp_path)
    with CheckpointWriter(tmp_path / "checkpoints", identity(config), keep=1) as writer:
        writer.save(3, {"weight": torch.zeros(1)}, {}, {})
    (manifest,) = tmp_path.glob("checkpoints/*/manifest.json")
    assert json.loads(manifest.read_text())["facts"]["config"][f"train.{setting}"] is False
    changed = with_train(config, **{setting: True})
    if setting == "compile":
        changed = with_train(changed, device="cpu")
        with pytest.raises(UserError, match=r"train\.compile is on, but this run uses a CPU"):
            prepare(changed, tmp_path)
        return
    with pytest.raises(UserError, match=rf"train\.{setting}: False → True.*--allow-changes"):
        prepare(changed, tmp_path)
    prepare(changed, tmp_path, allow_changes=True)


def with_train(config: Config, **settings: object) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **settings))


def test_a_cpu_has_no_graphs() -> None:
    check_device(TrainConfig(), CPU)
    check_device(TrainConfig(compile=True), GPU)
    with pytest.raises(UserError, match=r"set train\.compile to off"):
        check_device(TrainConfig(compile=True), CPU)
    with pytest.raises(UserError, match="turn one of them off"):
        Config(train=TrainConfig(compile=True, shard=True))


@pytest.mark.usefixtures("as_before")
def test_tf32_is_used_if_it_is_set_and_on_gpus_only() -> None:
    set_up(TrainConfig(tf32=True), GPU)
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.backends.cudnn.allow_tf32
    set_up(TrainConfig(), GPU)
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32
    set_up(TrainConfig(tf32=True), CPU)
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.usefixtures("as_before")
def test_deterministic_algorithms_are_used_if_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    set_up(TrainConfig(), GPU)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not os.environ["CUBLAS_WORKSPACE_CONFIG"]
    set_up(TrainConfig(deterministic=True), GPU)
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    set_up(TrainConfig(), GPU)
    assert not torch.are_deterministic_algorithms_enabled()


# In a process of its own: the checks of shapes that tests add to every function are no part of the step.
STEPS = """import dataclasses, json, sys
from pathlib import Path
import torch
from torch._dynamo.backends.registry import lookup_backend
sys.path.insert(0, sys.argv[1])
import toy
from albef.config import TaskConfig, TrainConfig
from albef.model import layers
from albef.tasks.base import Stage
from albef.systems import build_task
from albef.train import device
from albef.train.checkpoint import CheckpointWriter
from albef.train.steps import Loop

layers.packs = lambda place: False  # as on a GPU
graphs = []
def counting(graph, inputs):
    graphs.append(graph)
    # The first of each side goes all the way but for kernels, which takes longest.
    return lookup_backend("aot_eager")(graph, inputs) if len(graphs) <= 2 else graph.forward
compiled = torch.compile
torch.compile = lambda *given, **named: compiled(*given, **named, backend=counting)
train = TrainConfig(batch_size=4, compile=True, precision="fp32")
config = toy.config(task=TaskConfig(name=sys.argv[2], queue_size=20), train=train)
task = build_task(config).train()
device.compile_step(task, config.train)
writer = CheckpointWriter(Path(sys.argv[3]), {}, keep=1)
loop = Loop(config, Path(), task, None, torch.device("cpu"), "fp32", 10, {"seconds": 0.0}, None, writer)
found = []
for step, (length, masked, alpha) in enumerate([(6, 2, 0.1), (9, 3, 0.2), (5, 2, 0.3), (7, 4, 0.4), (11, 3, 0.4)]):
    batch = dataclasses.replace(toy.batch(4, step, length, masked), label=torch.arange(4) % 2)
    loop.backward(task, batch, step, Stage(alpha=alpha))
    found.append(len(graphs))
from torch._dynamo.utils import counters
print(json.dumps({"graphs": found, "breaks": sum(counters["graph_break"].values())}))
"""


@pytest.mark.parametrize("task", ["pretrain", "entailment"])
def test_a_step_is_one_graph_for_each_side(task: str, tmp_path: Path) -> None:
    tests = Path(__file__).parent.parent
    command = [sys.executable, "-c", STEPS, str(tests), task, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["breaks"] == 0
    first, *_, last = found["graphs"]
    assert first == 2  # of the teacher and of the student
    assert last <= 2 * 2  # and once more, when alpha is no longer what it was
    assert found["graphs"][1] == last  # other lengths and other weights of the teacher need none
