"""A detector for generated images: the boxes it proposes, and a small classifier that sees what is in them.

The oracle's boxes are those of the scene. The poor detector's are off, some are missing and some show nothing.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional

from albef.data.pictograms.chance import between, jitter
from albef.data.pictograms.painting import Painter
from albef.data.pictograms.scenes import BACKGROUNDS, Scene, Scenes

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of the image

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
REACH = 0.2  # how far each side of a poor box is off, at most, as a share of its width: IoU 0.7 on average
MISSED = 0.1  # share of the things that the poor detector does not find
FALSE_BOXES = 2
FALSE_SIDES = (0.25, 0.65)  # as things have
FALSE_IOU = 0.3  # a false box covers no thing better than this
TRIES = 50
CROP = 32  # pixels
WIDTH = 64  # of features


def oracle_boxes(scene: Scene, rng: np.random.Generator) -> list[Box]:
    """The boxes of the scene's things."""
    return [thing.box for thing in scene.things]


def poor_boxes(scene: Scene, rng: np.random.Generator) -> list[Box]:
    """Boxes near nine in ten of the things, two beside them, and the whole image."""
    near = [moved(thing.box, rng, REACH) for thing in scene.things if rng.random() >= MISSED]
    return [*near, *(false_box(scene, rng) for _ in range(FALSE_BOXES)), WHOLE]


DETECTORS: dict[str, Callable[[Scene, np.random.Generator], list[Box]]] = {
    "oracle": oracle_boxes,
    "poor": poor_boxes,
}


def moved(box: Box, rng: np.random.Generator, reach: float) -> Box:
    """The box with each side moved at random, within the image."""
    left, top, right, bottom = box
    across, down = right - left, bottom - top
    sides = (left, across), (top, down), (right, across), (bottom, down)
    x0, y0, x1, y1 = (min(max(side + jitter(rng, reach) * length, 0.0), 1.0) for side, length in sides)
    return x0, y0, x1, y1


def false_box(scene: Scene, rng: np.random.Generator) -> Box:
    """A box that covers no thing well. In a full scene it may cover one better."""
    for _ in range(TRIES):
        across, down = between(rng, *FALSE_SIDES), between(rng, *FALSE_SIDES)
        left, top = rng.random() * (1 - across), rng.random() * (1 - down)
        box = (left, top, left + across, top + down)
        if all(iou(box, thing.box) < FALSE_IOU for thing in scene.things):
            break
    return box


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    across, down = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in range(2))
    both = max(across, 0.0) * max(down, 0.0)
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return both / (sum(areas) - both)


def crop(image: np.ndarray, box: Box) -> UInt8[np.ndarray, "32 32 3"]:
    """What is in a box, at the size that the classifier takes."""
    side = len(image)
    left, top = (min(int(start * side), side - 1) for start in box[:2])
    right, bottom = (
        max(round(end * side), start + 1) for end, start in zip(box[2:], (left, top), strict=True)
    )
    return cv2.resize(image[top:bottom, left:right], (CROP, CROP), interpolation=cv2.INTER_LINEAR)


class Seen(NamedTuple):
    """What the classifier sees in boxes."""

    features: Float[Tensor, "boxes 64"]
    classes: Float[Tensor, "boxes classes"]  # logits; class 0 is the background
    grounds: Float[Tensor, "boxes backgrounds"]  # logits of what is around the thing


class Classifier(nn.Module):
    """A small CNN on crops. Its features come before the last layer, after a ReLU, and have a mean square of 1.

    Otherwise the losses that predict features would outweigh those of words and matching.
    """

    scale: Tensor

    def __init__(self, num_nouns: int) -> None:
        super().__init__()
        widths = (3, 24, 48, 96)
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(itertools.pairwise(widths)):
            kernel = 5 if number == 0 else 3
            layers += [
                nn.Conv2d(before, after, kernel, 2, kernel // 2, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.body = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(widths[-1] * (CROP // 8) ** 2, WIDTH), nn.ReLU()
        )
        self.nouns = nn.Linear(WIDTH, 1 + num_nouns)
        self.grounds = nn.Linear(WIDTH, len(BACKGROUNDS))
        self.register_buffer("scale", torch.ones(()))  # of the features; set after the training
        self.to(memory_format=torch.channels_last)  # twice as fast on a CPU

    def forward(self, crops: UInt8[np.ndarray, "boxes 32 32 3"]) -> Seen:
        """What is in crops, RGB."""
        pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        features = self.body(pixels)
        return Seen(features / self.scale, self.nouns(features), self.grounds(features))


class Crops(NamedTuple):
    """Crops with what they show."""

    pixels: UInt8[np.ndarray, "crops 32 32 3"]
    nouns: Int64[Tensor, " crops"]  # 0 is the background
    grounds: Int64[Tensor, " crops"]


def crops_of(
    scenes: Sequence[Scene], nouns: Sequence[str], painter: Painter, rng: np.random.Generator
) -> Crops:
    """The things of scenes in boxes that are more or less off, and of each scene a false box and the whole image."""
    pixels, labels, grounds = [], [], []
    for scene in scenes:
        image, ground = painter.paint(scene), BACKGROUNDS.index(scene.background)
        boxes = [(moved(thing.box, rng, REACH), 1 + nouns.index(thing.noun)) for thing in scene.things]
        for box, label in [*boxes, (false_box(scene, rng), 0), (WHOLE, 0)]:
            pixels.append(crop(image, box))
            labels.append(label)
            grounds.append(ground)
    return Crops(np.stack(pixels), torch.tensor(labels), torch.tensor(grounds))


class Trained(NamedTuple):
    """A classifier, and how it was trained."""

    classifier: Classifier
    seconds: float
    accuracy: dict[str, float]  # on images that it was not trained on


IMAGES_PER_STEP = 64
PEAK_RATE = 4e-3


def trained(num_nouns: int, image_size: int, steps: int, say: Callable[[str], None]) -> Trained:
    """A classifier trained on scenes of the split train. Prints how it goes."""
    began = time.perf_counter()
    source, painter = Scenes("train", DETECTOR_SEED, num_nouns), Painter(image_size)
    rng = np.random.default_rng(DETECTOR_SEED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(DETECTOR_SEED)
        classifier = Classifier(num_nouns)
    optimizer = torch.optim.AdamW(classifier.parameters(), PEAK_RATE, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=max(steps, 2))
    for step in range(steps):
        scenes = [source.scene(step * IMAGES_PER_STEP + number) for number in range(IMAGES_PER_STEP)]
        crops = crops_of(scenes, source.nouns, painter, rng)
        seen = classifier(crops.pixels)
        loss = functional.cross_entropy(seen.classes, crops.nouns)
        loss = loss + functional.cross_entropy(seen.grounds, crops.grounds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        if (step + 1) % max(1, steps // 5) == 0:
            seconds = time.perf_counter() - began
            say(f"classifier: step {step + 1} of {steps}, loss {loss.item():.3f}, {seconds:.0f} s")
    classifier.eval()
    crops = crops_of([source.scene(number) for number in range(IMAGES_PER_STEP)], source.nouns, painter, rng)
    with torch.inference_mode():
        scale = classifier(crops.pixels).features.square().mean().sqrt()
    classifier.scale.copy_(scale)
    return Trained(classifier, time.perf_counter() - began, accuracy(classifier, num_nouns, painter))


DETECTOR_SEED = 2**20  # its scenes are not those of a run
TEST_SCENES = 400


def accuracy(classifier: Classifier, num_nouns: int, painter: Painter) -> dict[str, float]:
    """How often the classifier names a thing, the background and what is around, in scenes of the split test."""
    source, rng = Scenes("test", DETECTOR_SEED, num_nouns, twin_share=0.0), np.random.default_rng(0)
    crops = crops_of([source.scene(index) for index in range(TEST_SCENES)], source.nouns, painter, rng)
    with torch.inference_mode():
        seen = classifier(crops.pixels)
    right, thing = seen.classes.argmax(1) == crops.nouns, crops.nouns > 0
    return {
        "things": right[thing].float().mean().item(),
        "background": right[~thing].float().mean().item(),
        "surroundings": (seen.grounds.argmax(1) == crops.grounds).float().mean().item(),
    }
