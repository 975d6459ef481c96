"""Decoding and augmenting a photograph-sized JPEG, against Pillow and the published augmentation."""

from __future__ import annotations

import io
import math

import cv2
import numpy as np
import torch
from PIL import Image
from section import Section
from timing import interleaved

from albef.config import DataConfig, ModelConfig
from albef.data import transforms
from albef.data.images import open_image

HEIGHT, WIDTH, SIDE = 375, 500, 256


def photographs(count: int) -> list[bytes]:
    """JPEG files with the detail of photographs: smooth shapes and some grain."""
    rng, files = np.random.default_rng(0), []
    for _ in range(count):
        coarse = rng.random((24, 32, 3)).astype(np.float32) * 255
        smooth = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        picture = (smooth + rng.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=85)
        files.append(buffer.getvalue())
    return files


def published(data: bytes, rng: np.random.Generator, config: ModelConfig) -> np.ndarray:
    """Pillow: decode, crop, bicubic resize; mirror; RandAugment on uint8; to float, to channels first, normalise."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(0.2, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            break
    else:
        left, top, w, h = 0, 0, width, height
    image = image.crop((left, top, left + w, top + h)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = transforms._randaugment(np.array(image), rng).astype(np.float32) / 255
    scaled = (pixels.transpose(2, 0, 1) - np.array(config.mean, np.float32)[:, None, None]) / np.array(
        config.std, np.float32
    )[:, None, None]
    return np.ascontiguousarray(scaled)


def decoding_section(images: int, rounds: int) -> list[Section]:
    """Images a second and core."""
    cv2.setNumThreads(1)
    files, data, model = photographs(images), DataConfig(), ModelConfig()

    def theirs() -> None:
        rng = np.random.default_rng(0)
        for file in files:
            published(file, rng, model)

    def ours() -> None:
        rng = np.random.default_rng(0)
        for file in files:
            pixels = transforms.train_transform(open_image(file, obey_exif=False), data, SIDE, rng)
            transforms.normalised(torch.from_numpy(pixels), model.mean, model.std)

    timings = interleaved({"Pillow, published": theirs, "ours": ours}, rounds)
    base = timings["Pillow, published"].seconds
    rows = [
        [name, f"{images / timing.seconds:.0f}", timing.spread, f"{base / timing.seconds:.2f}×"]
        for name, timing in timings.items()
    ]
    text = (
        f"A JPEG of {WIDTH}×{HEIGHT} in memory becomes a normalised crop of {SIDE} pixels; one thread, CPU time. "
        f"The spread is of all {images} images."
    )
    header = ["path", "images/s/core", "spread", "ratio"]
    return [Section("How fast are images decoded and augmented?", text, header, rows)]
