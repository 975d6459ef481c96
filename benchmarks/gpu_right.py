"""Whether a GPU computes what it should: golden files, one wait a step, and a run that is killed and goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from gpu_setting import Figures, Setting
from gpu_steps import Trained, step_seconds
from replay import replay
from safetensors.torch import load_file

from albef.config import SIZES, Config, DataConfig, TaskConfig
from albef.model import kernels
from albef.progress import say
from albef.run import prepare
from albef.train.checkpoint import OPTIMIZER_FILE, TASK_FILE, checkpoints_in, step_of
from albef.train.loop import train

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
SHOWN = 5  # comparisons that failed
SMALL = 1e-2  # what is smaller may be off as if it were as large: some gradients are 0 but for rounding
CLOSE = 1e-3  # of the largest value of a tensor, in fp32
# What makes the host wait for the device, as CUDA names it.
WAITS = "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy"


def golden_part(setting: Setting) -> Iterator[Figures]:
    """Every golden file in fp32, and how far bf16 is off."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    kernels.use(kernels.Kernels("fused", "torch"))
    files = sorted(GOLDEN.glob("*.safetensors"))
    # Several steps in bf16 are another training: there is nothing to compare them with.
    single = [path for path in files if not path.stem.endswith("_steps")]
    wrong = list[str]()
    for precision, chosen in (("fp32", files), ("bf16", single)):
        compared, worst = list[float](), (0.0, "")
        for path in chosen[::5] if setting.quick else chosen:
            try:
                for name, off in deviations(path, setting.device, half=precision == "bf16"):
                    compared.append(off)
                    worst = max(worst, (off, f"{path.stem}, {name}"))
                    if precision == "fp32" and not off <= CLOSE:
                        wrong.append(f"{path.stem}, {name} is off by {off:.1e}")
            except Exception as error:  # the other files may be right
                wrong.append(f"{path.stem} in {precision}: {type(error).__name__}: {error}".splitlines()[0])
        median = statistics.median(compared or [math.nan])
        yield {
            precision: f"{len(compared)} tensors, half of them off by at most {median:.1e}, "
            f"the farthest by {worst[0]:.1e} ({worst[1]})"
        }
    for number, one in enumerate(wrong[:SHOWN], 1):
        yield {f"wrong, {number} of {len(wrong)}": one}
    if wrong:
        raise RuntimeError(f"{len(wrong)} comparisons failed, such as {wrong[0]}")


def deviations(path: Path, device: torch.device, half: bool) -> Iterator[tuple[str, float]]:
    """How far each tensor of a golden file is off, as a share of its largest value."""
    with device, torch.autocast(device.type, torch.bfloat16, enabled=half):
        for name, got, expected, _ in replay(path):
            # A recall is a count: where rounding swaps two ranks, it jumps.
            if half and name.startswith("metrics"):
                continue
            wanted = expected.double().cpu()
            difference = (got.double().cpu() - wanted).abs()
            yield name, float(difference.max() / wanted.abs().max().clamp(min=SMALL))


def waits_part(setting: Setting) -> Iterator[Figures]:
    """How often the host waits for the device in a step, counted by torch's profiler."""
    config = setting.config(4 if setting.quick else 64)
    trained, batch = Trained.of(config, setting.device), setting.batch(config.train.batch_size)
    activity = torch.profiler.ProfilerActivity
    counted = {}
    for steps in (1, 3):  # the difference is of steps alone
        # Calls of CUDA's are among what is noted of the GPU.
        with torch.profiler.profile(
            activities=[activity.CUDA if setting.on_gpu else activity.CPU]
        ) as profile:
            step_seconds(setting, config, trained, batch, steps)
        names = [event.name for event in profile.events() or ()]
        counted[steps] = {name: names.count(name) for name in WAITS}
    each = {name: (counted[3][name] - counted[1][name]) / 2 for name in WAITS}
    total = sum(each.values())
    yield {
        "waits in a step": ", ".join(f"{name} {count:g}" for name, count in each.items() if count) or "none"
    }
    if setting.on_gpu and total != 1:
        raise RuntimeError(f"the host waits {total:g} times in a step, not once")


def resume_part(setting: Setting) -> Iterator[Figures]:
    """A run of 50 steps, and the same one killed and resumed: whether both end bit for bit alike."""
    steps, every = (12, 3) if setting.quick else (50, 10)
    config = setting.config(8 if setting.quick else 64, deterministic=True)
    train_config = dataclasses.replace(
        config.train,
        steps=steps,
        checkpoint_every_steps=every,
        keep_checkpoints=steps,
        log_every_steps=every,
        threads=1,
    )
    # A small model: checkpoints of a large one would take longer than the steps.
    config = dataclasses.replace(
        config,
        model=SIZES["tiny"],
        data=DataConfig(count=256),
        train=train_config,
        task=TaskConfig(queue_size=256),
    )
    ends = []
    for name in ("whole", "killed"):
        folder = setting.folder / name
        process = begun(config, folder)
        if name == "killed":
            after = wait_for_step(folder, steps // 3, process)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            yield {"killed": f"after the checkpoint of step {after}"}
            process = begun(config, folder)
        process.join()
        if process.exitcode:
            raise RuntimeError(f"the training ended with exit code {process.exitcode}")
        ends.append(checkpoints_in(folder / "checkpoints")[-1])
    different = []
    for file in (TASK_FILE, OPTIMIZER_FILE):
        one, other = (load_file(end / file) for end in ends)
        different += [name for name in one if not torch.equal(one[name], other[name])]
    yield {f"after {steps} steps": f"{len(different)} tensors differ" if different else "bit for bit alike"}
    if different:
        raise RuntimeError(f"{len(different)} tensors differ, such as {different[0]}")


def begun(config: Config, folder: Path) -> multiprocessing.process.BaseProcess:
    """A process that trains in the folder, going on where another one stopped."""
    process = multiprocessing.get_context("fork").Process(target=trained_in, args=(config, folder))
    process.start()
    return process


def trained_in(config: Config, folder: Path) -> None:
    """Trains as `albef train` does, without what follows; what it says goes to a file."""
    with open(f"{folder}.log", "a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        say("training")
        train(prepare(config, folder), folder)


def wait_for_step(folder: Path, step: int, process: multiprocessing.process.BaseProcess) -> int:
    """Waits for the checkpoint of that step or a later one; its step."""
    while process.is_alive():
        found = checkpoints_in(folder / "checkpoints")
        if found and step_of(found[-1]) >= step:
            return step_of(found[-1])
        time.sleep(0.02)
    raise RuntimeError("the training ended before it could be killed")
