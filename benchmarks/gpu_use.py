"""How fast a GPU encodes, re-ranks and is fed, and what a training learns in the time that is left."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from decoding import photographs
from gpu_setting import Figures, Setting

from albef import distributed
from albef.config import Config, DataConfig
from albef.data.images import ImageInput
from albef.data.loader import ExampleSet, batches
from albef.data.records import Batch
from albef.data.sources import open_source
from albef.data.text import Tokenizer
from albef.data.words import BertWords
from albef.engine import Engine
from albef.evaluation.ranking import match_scores
from albef.model.albef import ALBEF
from albef.recipe import load_recipe
from albef.run import prepare, run
from albef.train.loop import train

RECIPE = Path(__file__).parent.parent / "recipes" / "pictograms.yaml"
WORDS = (
    "a",
    "fox",
    "two",
    "red",
    "cars",
    "in",
    "the",
    "snow",
    "left",
    "of",
    "an",
    "old",
    "house",
    "and",
    "trees",
)
LOADING_SECONDS = 6.0
TRAINED_PAIRS = 512  # in a step
EVALUATING_SECONDS = 60  # of the time that a training has: export, figures and report of it
SHOWN = (
    "itc/t2i_r1",
    "sum/t2i_r1",
    *(f"itm/foil_{kind}" for kind in ("noun", "count", "location", "relation")),
)


def captions_of(count: int) -> list[str]:
    """Captions of 7 to 18 words."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, int(rng.integers(7, 19)))) for _ in range(count)]


def inference_part(setting: Setting) -> Iterator[Figures]:
    """Images, texts and pairs a second, from what a user gives to NumPy arrays; random weights."""
    tokenizer = Tokenizer.bert()
    config = dataclasses.replace(setting.model, vocab_size=tokenizer.vocab_size)
    with setting.device:
        model = ALBEF(config, ("contrast", "itm")).requires_grad_(False)
    engine = Engine(model, tokenizer, quiet=True, bf16=setting.on_gpu)
    count, candidates = (8, 4) if setting.quick else (2048, 128)
    side = config.image_size
    rng = np.random.default_rng(0)
    images: list[ImageInput] = list(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8))
    texts, files = captions_of(2 * count), photographs(min(count, 64))
    encoded: list[ImageInput] = [files[n % len(files)] for n in range(count)]
    ranked = images[: max(2, count // 4)]
    pairs = np.stack(
        [
            np.arange(len(ranked)).repeat(candidates),
            rng.integers(0, len(texts), len(ranked) * candidates),
        ],
        axis=1,
    )
    for name, work, number in (
        ("images/s, decoded before", lambda: engine.encode_images(images), count),
        ("images/s, of JPEG files", lambda: engine.encode_images(encoded), count),
        ("texts/s", lambda: engine.encode_texts(texts), len(texts)),
        ("re-ranking pairs/s", lambda: match_scores(engine, ranked, texts, pairs), len(pairs)),
    ):
        work()  # the first time takes longer
        yield {name: round(number / setting.seconds_of(work))}


def loader_part(setting: Setting) -> Iterator[Figures]:
    """Images a second of the training loader: JPEG files decoded, cut out and augmented by workers."""
    folder, size = setting.folder / "images", 8 if setting.quick else 128
    folder.mkdir()
    photos = photographs(4 if setting.quick else 64)
    for number in range(size if setting.quick else 1024):
        (folder / f"{number}.jpg").write_bytes(photos[number % len(photos)])
        (folder / f"{number}.txt").write_text(captions_of(1)[0])
    config = setting.config(size)
    data = DataConfig(source=str(folder))
    examples = ExampleSet(
        open_source(data, "train", 0), BertWords(Tokenizer.bert(), config.model), data, config.model, 0
    )
    for workers in dict.fromkeys((0, setting.workers)):  # one core, then all of them
        speed = images_per_second(batches(examples, size, workers=workers, pinned=setting.on_gpu), setting)
        yield {f"images/s, {workers or 'no'} workers, {distributed.cores()} cores": round(speed)}


def images_per_second(stream: Iterator[Batch], setting: Setting) -> float:
    """Images that come and reach the device in a second. The first half of the time is not counted.

    Workers have batches ready when the counting begins, but then they are as many when it ends.
    """
    seconds, marks, counts = (0.2 if setting.quick else LOADING_SECONDS), list[float](), list[int]()
    begin = time.perf_counter()
    while len(marks) < 3 or marks[-1] - begin < seconds:
        batch = next(stream).to(setting.device, non_blocking=True)
        counts.append(len(batch))
        marks.append(time.perf_counter())
    first = next(
        number for number, mark in enumerate(marks) if mark - begin > seconds / 2 or number == len(marks) - 2
    )
    return sum(counts[first + 1 :]) / (marks[-1] - marks[first])


def training_part(setting: Setting) -> Iterator[Figures]:
    """`recipes/pictograms.yaml` with a larger model, batch and image for the time that is left, and what it learned."""
    steps = 3
    if not setting.quick:
        begin, short = time.perf_counter(), setting.folder / "short"
        train(prepare(training_config(setting, 60), short), short)
        lines = (short / "log.jsonl").read_text().splitlines()
        rate = json.loads(lines[-1])["pairs_per_second"]
        left = setting.seconds - (time.perf_counter() - begin) - EVALUATING_SECONDS
        steps = int(left * rate / TRAINED_PAIRS)
        if steps < 100:
            raise RuntimeError(f"{left:.0f} seconds are left, which is too little to learn anything")
    config, folder = training_config(setting, steps), setting.folder / "training"
    with contextlib.redirect_stdout(io.StringIO()):
        run(config, folder)
    found = json.loads((folder / "metrics.json").read_text())
    yield {
        "steps": f"{steps:,} of {config.train.batch_size} pairs, size {config.model.size}, "
        f"{config.model.image_size} pixels, {found['train/seconds']:.0f} s, "
        f"{found['train/pairs_per_second']:.0f} pairs/s"
    }
    for split in config.evaluate.splits:
        shown = [
            f"{name} {100 * found[f'{split}/{name}']:.1f} %" for name in SHOWN if f"{split}/{name}" in found
        ]
        yield {split: ", ".join(shown)}


def training_config(setting: Setting, steps: int) -> Config:
    """The recipe, with its schedules in so many steps."""
    size = ["--model.size=small", "--model.image_size=96"]
    config = load_recipe(RECIPE, [] if setting.quick else size)
    data = dataclasses.replace(config.data, workers=setting.workers)
    evaluate = config.evaluate
    if setting.quick:
        data = dataclasses.replace(data, count=64)
        evaluate = dataclasses.replace(evaluate, count=6, splits=("test",), top_k=2)
    train = dataclasses.replace(
        config.train,
        steps=steps,
        batch_size=8 if setting.quick else TRAINED_PAIRS,
        warmup_steps=min(config.train.warmup_steps, steps // 10),
        device=str(setting.device),
        precision="bf16" if setting.on_gpu else "fp32",
        attention="fused",
        linear="torch",
        processes=1,
        log_every_steps=max(1, steps // 20),
        checkpoint_every_steps=steps,
    )
    ramp = config.task.alpha_ramp_steps * steps // config.train.steps
    task = dataclasses.replace(config.task, alpha_ramp_steps=ramp)
    return dataclasses.replace(config, data=data, train=train, task=task, evaluate=evaluate)
