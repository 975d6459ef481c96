"""Where a step's time goes, part by part of the model, in the published formulation and in ours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from decoding import photographs, published
from published import PublishedStep, fused, image_tokens, text_tokens, word_logits
from section import Section
from step import STAGE, OurStep, batch_of, build
from timing import interleaved
from torch import Tensor

from albef.config import SIZES, DataConfig
from albef.data import transforms
from albef.data.images import open_image
from albef.model.albef import ALBEF
from albef.model.verbs import Encoding
from albef.tasks.pretrain import Pretrain

Cases = dict[str, Callable[[], object]]


def backward(*outputs: Tensor) -> None:
    """Gradients of everything behind the outputs."""
    torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])


def parts_section(size: str, batch_size: int, rounds: int) -> list[Section]:
    """Each part alone, forward and (the student's) backward; what is left of the step are contrast and losses."""
    torch.manual_seed(0)
    config = SIZES[size]
    task, batch = build(config), batch_of(config, batch_size)
    teacher = task.teacher.module
    assert isinstance(teacher, ALBEF)
    with torch.no_grad():
        image, text = task.student.encode_image(batch.pixels), task.student.encode_text(batch.ids, batch.mask)
    given = image.tokens.requires_grad_(), text.tokens.requires_grad_()
    thrice = torch.arange(batch_size).repeat(3)
    mask = batch.mask
    steps = PublishedStep(task), OurStep(task)

    def theirs() -> Cases:
        student, (shown, said) = task.student, given

        def fusion(model: ALBEF) -> list[Tensor]:
            first = fused(model, said, mask, shown, 0.0)
            second = fused(
                model, said[thrice[batch_size:]], mask[thrice[batch_size:]], shown[thrice[batch_size:]], 0.0
            )
            return [first, second, fused(model, said, mask, shown, 0.0)]

        return {
            "image encoder, student": lambda: backward(image_tokens(student, batch.pixels)),
            "image encoder, teacher": without_gradient(lambda: image_tokens(teacher, batch.pixels)),
            "text encoder, student": lambda: backward(
                text_tokens(student, batch.ids, mask, 0.0), text_tokens(student, batch.masked_ids, mask, 0.0)
            ),
            "text encoder, teacher": without_gradient(
                lambda: (
                    text_tokens(teacher, batch.ids, mask, 0.0),
                    text_tokens(teacher, batch.masked_ids, mask, 0.0),
                )
            ),
            "fusion encoder, student": lambda: backward(*fusion(student)),
            "fusion encoder, teacher": without_gradient(lambda: fused(teacher, said, mask, shown, 0.0)),
            "MLM head, student": lambda: backward(word_logits(student, said)),
            "MLM head, teacher": without_gradient(lambda: word_logits(teacher, said)),
            "optimizer": steps[0].optimizer.step,
            "teacher update": lambda: loop_update(task),
            "the whole step": lambda: steps[0].step(batch, STAGE.alpha),
        }

    def ours() -> Cases:
        student, (shown, said) = task.student, given
        positions = batch.mlm_positions

        def fusion(model: ALBEF) -> list[Tensor]:
            memory = model.image_memory(Encoding(shown, None, shown[:, 0]))
            matched = model.match(said[thrice], mask[thrice], memory, thrice)
            return [matched, model.fuse(said, mask, memory).tokens]

        def words(model: ALBEF) -> Tensor:
            assert model.mlm_head is not None
            return model.mlm_head(said.flatten(0, 1)[positions], model.text_encoder.words.weight)

        return {
            "image encoder, student": lambda: backward(student.image_encoder(batch.pixels)),
            "image encoder, teacher": without_gradient(lambda: teacher.image_encoder(batch.pixels)),
            "text encoder, student": lambda: backward(
                student.text_encoder(batch.ids, mask), student.text_encoder(batch.masked_ids, mask)
            ),
            "text encoder, teacher": without_gradient(
                lambda: (teacher.text_encoder(batch.ids, mask), teacher.text_encoder(batch.masked_ids, mask))
            ),
            "fusion encoder, student": lambda: backward(*fusion(student)),
            "fusion encoder, teacher": without_gradient(
                lambda: teacher.fuse(said, mask, teacher.image_memory(Encoding(shown, None, shown[:, 0])))
            ),
            "MLM head, student": lambda: backward(words(student)),
            "MLM head, teacher": without_gradient(lambda: words(teacher)),
            "optimizer": steps[1].optimizer.step,
            "teacher update": lambda: task.teacher.update(task.student),
            "the whole step": lambda: steps[1].step(batch),
        }

    def in_bf16(case: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                case()

        return run

    plain, restructured = theirs(), ours()
    half = {name: in_bf16(case) for name, case in restructured.items()}
    half["the whole step"] = lambda: steps[1].step(batch, bf16=True)
    steps[1].step(batch)  # so that the optimizers have gradients and moments
    backward(*(parameter.sum() for parameter in task.student.parameters()))
    files, rng = photographs(batch_size), np.random.default_rng(0)
    data: Cases = {
        "published": lambda: [published(file, rng, config) for file in files],
        "ours": lambda: [
            transforms.normalised(
                torch.from_numpy(
                    transforms.train_transform(
                        open_image(file, obey_exif=False), DataConfig(), config.image_size, rng
                    )
                ),
                config.mean,
                config.std,
            )
            for file in files
        ],
    }
    groups = {"published, fp32": plain, "ours, fp32": restructured, "ours, bf16": half}
    seconds = {"data": {}}  # type: dict[str, dict[str, float]]
    for part in plain:
        timings = interleaved({name: cases[part] for name, cases in groups.items()}, rounds)
        seconds[part] = {name: timing.seconds for name, timing in timings.items()}
    read = interleaved(data, rounds)
    seconds["data"] = {name: read[name.split(",")[0]].seconds for name in groups}
    total = seconds.pop("the whole step")
    known = {name: sum(seconds[part][name] for part in seconds if part != "data") for name in groups}
    seconds["everything else: ITC, losses"] = {name: total[name] - known[name] for name in groups}
    rows = [
        [part, *(cell for name in groups for cell in (f"{by[name]:.3f}", f"{by[name] / total[name]:.0%}"))]
        for part, by in seconds.items()
    ]
    rows.append(
        [
            "the whole step, without data",
            *(cell for name in groups for cell in (f"{total[name]:.3f}", "100%")),
        ]
    )
    text = (
        f"Size {size}, batch {batch_size}, one thread: CPU seconds, and share of the step. "
        "Each part is measured alone: forward, and also backward if it is the student's. "
        "Optimizer and teacher update take the same time for any batch, so they weigh less in larger ones. "
        '"Everything else" is the whole step minus its parts. '
        "It may be negative, because a part alone can take longer than within the step. "
        "Data means decoding and augmenting JPEG files of 500×375, which loading processes do beside the step."
    )
    header = ["part", *(title for name in groups for title in (name, "share"))]
    return [Section("Which part of the model takes the time?", text, header, rows)]


def without_gradient(case: Callable[[], object]) -> Callable[[], object]:
    """The case as the teacher computes it."""
    return torch.no_grad()(case)


@torch.no_grad()
def loop_update(task: Pretrain) -> None:
    """The teacher's update in a loop, as published."""
    for slow, parameter in zip(task.teacher.module.parameters(), task.student.parameters(), strict=True):
        slow.data = slow.data * 0.995 + parameter.data * 0.005
