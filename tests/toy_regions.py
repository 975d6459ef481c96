"""Toy models that see regions, and toy images with their regions, for tests of all three systems."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import toy_lxmert
import toy_oscar
import toy_uniter
from albef.config import Config, DataConfig, EvaluateConfig, ModelConfig, TaskConfig, TaskName, TrainConfig
from albef.data.rows import ENTAILMENT_LABELS
from albef.engine import Engine
from albef.model_config import SystemName
from albef.systems import SYSTEMS
from toy_region_files import (
    indexed,
    labels_row,
    lxmert_row,
    oscar_numbers,
    oscar_row,
    uniter_arrays,
    uniter_database,
    uniter_record,
    vinvl_object,
)

WIDTH = 6
NOUNS = ("fox", "car", "tree", "house", "dog", "bird", "boat", "moon")
CAPTIONS = [f"a {noun} beside a {other}" for noun in NOUNS for other in NOUNS[:2]]
SYSTEM_NAMES: tuple[SystemName, ...] = ("lxmert", "uniter", "oscar")
CONFIGS: dict[SystemName, ModelConfig] = {
    "lxmert": toy_lxmert.CONFIG,
    "uniter": toy_uniter.CONFIG,
    "oscar": toy_oscar.CONFIG,
}


def model_config(system: SystemName) -> ModelConfig:
    """The toy model of a system, for these captions and regions."""
    return dataclasses.replace(
        CONFIGS[system],
        vocabulary="trained",
        vocab_size=90,
        max_positions=24,
        max_tokens=16,
        region_width=WIDTH,
        num_objects=len(NOUNS) + 1,
        num_attributes=3,
        num_answers=len(NOUNS),
    )


def regions(number: int, count: int) -> dict[str, np.ndarray]:
    """The arrays of an .npz with random regions of image `number`."""
    rng = np.random.default_rng(number)
    corners = np.sort(rng.random((2, count, 2), np.float32), axis=0)
    classes = rng.random((count, len(NOUNS) + 1), np.float32)
    return {
        "features": rng.random((count, WIDTH), np.float32),
        "boxes": np.concatenate(list(corners), 1),
        "object_ids": rng.integers(0, len(NOUNS), count),
        "object_confidences": rng.random(count, np.float32),
        "attribute_ids": rng.integers(0, 3, count),
        "attribute_confidences": rng.random(count, np.float32),
        "classes": classes / classes.sum(1, keepdims=True),
        "tags": np.array([NOUNS[number % len(NOUNS)], "grass"][:count]),
    }


def write_images(folder: Path, count: int = 8) -> list[Path]:
    """Images 0.png, 1.png, … with their regions beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number}.png" for number in range(count)]
    for number, file in enumerate(files):
        Image.new("RGB", (8, 8), (number * 30, 99, 9)).save(file)
        np.savez(file.with_suffix(".npz"), **regions(number, 1 + number % 4))
    return files


def write_data(folder: Path, task: TaskName, count: int = 8) -> Path:
    """An annotation file of a task, and its images with their regions."""
    names = [file.name for file in write_images(folder, count)]
    rows: list[dict[str, object]] = []
    for number, name in enumerate(names):
        noun = NOUNS[number % len(NOUNS)]
        if task == "vqa":
            answers = [noun] * 6 + ["grass"] * 4
            rows.append({"image": name, "question": f"what is beside the {noun}?", "answer": answers})
        elif task == "nlvr":
            images = [name, names[number - 1]]
            rows.append(
                {"images": images, "sentence": f"one is a {noun}", "label": ["False", "True"][number % 2]}
            )
        elif task == "entailment":
            label = ENTAILMENT_LABELS[number % 3]
            rows.append({"image": name, "sentence": f"this is a {noun}", "label": label})
        else:
            rows.append({"image": name, "caption": CAPTIONS[number]})
    file = folder / f"{task}.json"
    file.write_text(json.dumps(rows))
    return file


def lxmert_tsv(folder: Path) -> Path:
    """LXMERT's file of these images."""
    rows = [
        lxmert_row(1 + n % 4, WIDTH, n, objects=len(NOUNS) + 1, attributes=3, img_id=str(n)) for n in range(8)
    ]
    file = folder / "val_obj36.tsv"
    file.write_bytes(b"".join(rows))
    return file


def uniter_lmdb(folder: Path) -> Path:
    """UNITER's database of these images."""
    arrays = {n: uniter_arrays(1 + n % 4, WIDTH, n, classes=len(NOUNS) + 1) for n in range(8)}
    records = {f"{n}.npz": uniter_record(arrays[n], "lz4" if n % 2 else "") for n in range(8)}
    return uniter_database(folder / "feat_th0.2_max100_min10", records)


def oscar_tsv(folder: Path) -> Path:
    """OSCAR's files of these images."""
    numbers = {str(n): oscar_numbers(1 + n % 4, WIDTH, n) for n in range(8)}
    indexed(folder / "features.tsv", [oscar_row(name, found) for name, found in numbers.items()], ids=True)
    labels = [labels_row(name, [{"class": NOUNS[int(name)], "conf": 0.9}]) for name in reversed(numbers)]
    indexed(folder / "predictions.tsv", labels)
    return folder / "features.tsv"


def vinvl_tsv(folder: Path) -> Path:
    """VinVL's predictions for these images."""
    rows = [labels_row(str(n), [vinvl_object(NOUNS[n], WIDTH, n)] * (1 + n % 3)) for n in range(8)]
    return indexed(folder / "predictions.tsv", rows)


def config(system: SystemName, task: TaskName, data: Path, steps: int = 2) -> Config:
    """A short training of a system on such a file, measured on the same file."""
    return Config(
        model=model_config(system),
        data=DataConfig(source=str(data), validation=str(data)),
        task=TaskConfig(name=task),
        train=TrainConfig(
            steps=steps,
            batch_size=4,
            warmup_steps=1,
            lr=1e-3,
            precision="fp32",
            attention="fused",
            linear="torch",
            log_every_steps=1,
        ),
        evaluate=EvaluateConfig(top_k=4),
    )


def engine(system: SystemName, *heads: str) -> Engine:
    """A model of a system with random weights, that finds regions beside images."""
    torch.manual_seed(0)
    config = model_config(system)
    model = SYSTEMS[system].model(config, heads or SYSTEMS[system].heads)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    tokenizer = SYSTEMS[system].tokenizer.train([*CAPTIONS, "what is the grass one this?"], config.vocab_size)
    found = Engine(model, tokenizer, quiet=True)
    found.answers = list(NOUNS)
    return found
