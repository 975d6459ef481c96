"""Feeds golden files through the public classes and prints how far every expected tensor is off.

    python tests/parity/replay.py FILE...

Exit status 1 if a deviation is beyond the tolerances of `golden/README.md`, or if nothing was compared.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors import safe_open
from torch import Tensor

from albef.config import Config, ModelConfig, TaskConfig, TrainConfig
from albef.data.records import Batch
from albef.model import checkpoints
from albef.model.image_encoder import resize_positions
from albef.tasks.base import Negatives, Stage
from albef.tasks.pretrain import Pretrain
from albef.train.optim import build_optimizer, lr_at

TIGHT = (1e-4, 1e-5)  # rtol, atol
AFTER_ADAM = (1e-3, 2e-4)

Comparison = tuple[str, Tensor, Tensor, tuple[float, float]]


class Golden:
    """One golden file: its case and its tensors by group."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, "pt") as file:
            self.case: dict[str, Any] = json.loads(file.metadata()["case"])
            self.tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Tensors of a group without its prefix."""
        return {
            name[len(prefix) :]: tensor for name, tensor in self.tensors.items() if name.startswith(prefix)
        }


def model_config(dims: Mapping[str, int], weights: Mapping[str, Tensor]) -> ModelConfig:
    """The sizes of a golden case, without dropout."""
    return ModelConfig(
        image_size=dims["image_res"],
        patch_size=dims["patch"],
        image_width=dims["vision_width"],
        image_depth=dims["vision_depth"],
        image_heads=dims["vision_heads"],
        image_mlp_width=len(weights["visual_encoder.blocks.0.mlp.fc1.bias"]),
        text_width=dims["text_width"],
        text_depth=dims["fusion_layer"],
        fusion_depth=dims["layers"] - dims["fusion_layer"],
        text_heads=dims["text_heads"],
        text_mlp_width=dims["ffn"],
        feature_width=dims["embed_dim"],
        vocab_size=dims["vocab"],
        max_positions=len(weights["text_encoder.bert.embeddings.position_embeddings.weight"]),
        dropout=0.0,
    )


def load_task(golden: Golden) -> Pretrain:
    """The pre-training task with the file's weights, teacher and queue, and the published settings."""
    weights, dims = golden.group("weights."), golden.case["dims"]
    model = model_config(dims, weights)
    task_config = TaskConfig(
        queue_size=dims["queue"], momentum=golden.case.get("momentum", 0.995), mask_same_pairs=False
    )
    task = Pretrain(Config(model=model, task=task_config))
    student_state = task.student.state_dict()
    task.student.load_state_dict(checkpoints.from_published(weights, student_state, model))
    teacher = {
        name: weights.get(checkpoints.teacher_name(name), weights[name])
        for name in checkpoints.to_published(task.student, model)
        if name in weights
    }
    task.teacher.module.load_state_dict(checkpoints.from_published(teacher, student_state, model))
    checkpoints.load_published_queue(task.queue, weights)
    return task


def batch_of(inputs: Mapping[str, Tensor], drawn: Mapping[str, Tensor]) -> tuple[Batch, Negatives]:
    """The batch and the negatives that a file gives."""
    labels = drawn["mlm_labels"].flatten()
    positions = (labels != -100).nonzero().squeeze(1)
    unknown = -torch.arange(1, len(inputs["image"]) + 1)
    batch = Batch(
        pixels=inputs["image"],
        ids=inputs["input_ids"],
        mask=inputs["attention_mask"].bool(),
        masked_ids=drawn["mlm_input_ids"],
        mlm_positions=positions,
        mlm_labels=labels[positions],
        image_id=inputs.get("image_id", unknown),
        caption_id=unknown,
    )
    return batch, Negatives(image=drawn["negative_image"], text=drawn["negative_text"])


def replay_pretrain(golden: Golden) -> Iterator[Comparison]:
    """One forward and backward: losses, encodings, gradients, teacher, queue."""
    task, expected = load_task(golden), golden.group("expect.")
    config = task.student.config
    stage = Stage(alpha=golden.case["alpha"])
    batch, negatives = batch_of(golden.group("input."), golden.group("random."))
    task.teacher.update(task.student)
    output = task(batch, task.prepare(batch, stage), stage, negatives)
    torch.stack(list(output.losses.values())).sum().backward()
    task.queue.push(output.keys)

    image, text = task.student.encode_image(batch.pixels), task.student.encode_text(batch.ids, batch.mask)
    got = {f"loss_{name}": loss for name, loss in output.losses.items()}
    got |= {"image_embeds": image.tokens, "image_feat": image.feature}
    # At padding the published encoder computes states that nothing reads; ours holds zeros there.
    real = batch.mask[:, :, None]
    expected["text_embeds"] = expected["text_embeds"] * real
    got |= {"text_embeds": text.tokens, "text_feat": text.feature}
    got |= checkpoints.published_queue(task.queue)
    gradients = {name: parameter.grad for name, parameter in task.student.named_parameters()}
    gradients = {name: gradient for name, gradient in gradients.items() if gradient is not None}
    got |= {f"grad.{name}": value for name, value in checkpoints.split_published(gradients, config).items()}
    teacher = checkpoints.published_teacher(checkpoints.to_published(task.teacher.module, config))
    got |= {f"teacher.{name}": value for name, value in teacher.items()}
    yield from compare(got, expected, TIGHT)


def replay_trajectory(golden: Golden) -> Iterator[Comparison]:
    """Five optimizer steps: the losses of each, and everything at the end."""
    task, expected = load_task(golden), golden.group("expect.")
    train = TrainConfig(lr=1e-3, weight_decay=0.02, decay_embeddings=True)
    optimizer = build_optimizer(task.student, train)
    for step in range(golden.case["steps"]):
        inputs = golden.group(f"input.{step}.")
        stage = Stage(alpha=float(inputs["alpha"]))
        batch, negatives = batch_of(inputs, golden.group(f"random.{step}."))
        task.teacher.update(task.student)
        output = task(batch, task.prepare(batch, stage), stage, negatives)
        torch.stack(list(output.losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        task.queue.push(output.keys)
        got = {f"{step}.loss_{name}": loss for name, loss in output.losses.items()}
        yield from compare(
            got, {name: expected[name] for name in expected if name.startswith(f"{step}.")}, TIGHT
        )
    config = task.student.config
    final = checkpoints.to_published(task.student, config)
    final |= checkpoints.published_teacher(checkpoints.to_published(task.teacher.module, config))
    final |= checkpoints.published_queue(task.queue)
    yield from compare(final, golden.group("expect.final."), AFTER_ADAM, prefix="final.")


def replay_position_resize(golden: Golden) -> Iterator[Comparison]:
    """Position embeddings resized to another grid."""
    got = {"pos_embed": resize_positions(golden.tensors["input.pos_embed"], golden.case["grid_to"])}
    yield from compare(got, golden.group("expect."), TIGHT)


def replay_learning_rates(path: Path) -> Iterator[Comparison]:
    """The published schedule, in its first epoch and at the start of each epoch."""
    for name, case in json.loads(path.read_text()).items():
        schedule, per_epoch = case["schedule"], case["steps_per_epoch"]
        config = TrainConfig(
            lr=schedule["lr"],
            min_lr=schedule["min_lr"],
            warmup_lr=schedule["warmup_lr"],
            warmup_steps=100 * schedule["warmup_epochs"],
            steps=schedule["epochs"] * per_epoch,
            schedule="published",
        )
        first = torch.tensor([lr_at(step, config, per_epoch) for step in range(0, per_epoch, 50)])
        later = torch.tensor(
            [lr_at((e + 1) * per_epoch - 1, config, per_epoch) for e in range(schedule["epochs"])]
        )
        tolerance = (1e-6, 0.0)
        yield f"{name} first epoch", first, torch.tensor(case["first_epoch_every_50"]), tolerance
        yield f"{name} epochs", later, torch.tensor(case["epoch_values"]), tolerance


REPLAYS = {
    "pretrain": replay_pretrain,
    "pretrain_trajectory": replay_trajectory,
    "position_resize": replay_position_resize,
}


def compare(
    got: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    tolerance: tuple[float, float],
    prefix: str = "",
) -> Iterator[Comparison]:
    """A comparison per expected tensor; one that we don't have is compared with NaN."""
    for name, value in expected.items():
        missing = torch.full_like(value, torch.nan, dtype=torch.float32)
        yield prefix + name, got.get(name, missing).detach(), value, tolerance


def replay(path: Path) -> Iterator[Comparison]:
    """Every comparison that a golden file asks for."""
    if path.suffix == ".json":
        yield from replay_learning_rates(path)
        return
    golden = Golden(path)
    if golden.case["task"] not in REPLAYS:
        raise SystemExit(f"{path}: nothing here replays the task {golden.case['task']!r}.")
    yield from REPLAYS[golden.case["task"]](golden)


def deviation(got: Tensor, expected: Tensor, tolerance: tuple[float, float]) -> tuple[float, float, bool]:
    """Largest absolute and relative deviation, and whether all of it is within rtol and atol."""
    if got.shape != expected.shape:
        return float("inf"), float("inf"), False
    rtol, atol = tolerance
    difference = (got.double() - expected.double()).abs()
    size = expected.double().abs()
    relative = (difference / size.clamp(min=atol or 1e-30)).max().item()
    return difference.max().item(), relative, bool((difference <= atol + rtol * size).all())


def main(paths: list[str]) -> int:
    """Prints a table per file; the exit status."""
    console, compared, failed = Console(width=130), 0, 0
    for path in map(Path, paths):
        table = Table("tensor", "largest abs", "largest rel", "", title=path.name)
        rows = []
        for name, got, expected, tolerance in replay(path):
            absolute, relative, good = deviation(got, expected, tolerance)
            compared, failed = compared + 1, failed + (not good)
            rows.append((absolute, (name, f"{absolute:.2e}", f"{relative:.2e}", "ok" if good else "BEYOND")))
        for _, row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(f"{compared} tensors compared, {failed} beyond tolerance")
    return int(failed > 0 or compared == 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
