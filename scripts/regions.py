"""Writes the regions of the images that a run on pictograms trains and is evaluated on, as Parquet files.

    python scripts/regions.py recipes/quickstart.yaml regions --detector poor

Name the folder that it prints with --data.regions. The oracle knows the boxes of all things: no detector can be better.
The poor detector is the one to compare with. The classifier that sees what is in the boxes is trained first.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from detector import DETECTORS, IMAGES_PER_STEP, WIDTH, Box, Classifier, Trained, crop, trained
from safetensors import safe_open
from safetensors.torch import save_file

from albef.config import Config, UserError, is_drawn
from albef.data.loader import step_records
from albef.data.pictograms.chance import generator
from albef.data.pictograms.gallery import gallery
from albef.data.pictograms.painting import watching
from albef.data.pictograms.scenes import BACKGROUNDS, Scene, Scenes
from albef.data.region_table import check_same, opened, parquet_files, pixels_id, written_table
from albef.data.sources import check_pictograms, open_source
from albef.disk import size
from albef.evaluation.by_task import MEASURED
from albef.recipe import load_recipe
from albef.writing import whole_file

STEPS = 400  # of the classifier: a minute on a CPU core
ROWS = 128  # images that are classified and written at once, at least
SAY_EVERY = 20_000  # images

Drawn = tuple[Scene, np.ndarray]


class Part(NamedTuple):
    """The images of one file."""

    name: str
    facts: dict[str, Any]
    images: int  # at most
    drawn: Iterator[list[Drawn]]


def training_part(config: Config) -> Part:
    """The images that the run trains on, in the order in which it does."""
    train = config.train
    source = open_source(config.data, "train", train.seed, config.model.image_size, config.task.name)
    couple, steps = source.couple, range(train.steps)
    records = (
        record
        for step in steps
        for record in step_records(len(source), train.batch_size, step, train.seed, couple)
    )
    images = train.steps * train.batch_size
    epochs = -(-images // len(source))
    drawn = watched(source.record(index, epoch) for index, epoch in records)
    facts = {"split": "train", "seed": train.seed, "epochs": epochs, "steps": train.steps}
    return Part(f"{called(config)}-train-seed-{train.seed}-epochs-{epochs}", facts, images, drawn)


def evaluation_part(config: Config, split: str) -> Part:
    """The images of a split that the run is evaluated on."""
    wanted, image_size = config.evaluate, config.model.image_size
    check_pictograms(config.data.source, split, config.task.name)
    facts = {"split": split, "seed": wanted.seed, "epochs": 1, "images": wanted.count}
    if config.data.source == "pictograms" and MEASURED[config.task.name].by_recall:
        asked = (split, wanted.seed, wanted.count, config.data.num_nouns, image_size)
        drawn = watched(gallery(*one) for one in [asked])
    else:
        data = dataclasses.replace(config.data, count=wanted.count)
        source = open_source(data, split, wanted.seed, image_size, config.task.name)
        drawn = watched(source.record(index, 0) for index in range(len(source)))
    return Part(
        f"{called(config)}-{split}-seed-{wanted.seed}-images-{wanted.count}", facts, wanted.count, drawn
    )


def called(config: Config) -> str:
    """The source in a file's name."""
    return config.data.source.replace(":", "-")


def watched(records: Iterator[object]) -> Iterator[list[Drawn]]:
    """The scenes and images that each record draws."""
    seen: list[Drawn] = []
    with watching(lambda scene, image: seen.append((scene, image))):
        for _ in records:
            yield seen
            seen.clear()


class Regions(NamedTuple):
    """The regions of several images, those of an image from the surest to the least sure."""

    counts: list[int]
    arrays: dict[str, np.ndarray]  # of all regions
    tags: list[list[str]]  # the names of the things that each image shows


class Detector:
    """Where a detector looks and what it sees. The same image always gives the same regions."""

    def __init__(self, name: str, seed: int, classifier: Classifier, nouns: Sequence[str]) -> None:
        self.name, self.seed, self.classifier, self.nouns = name, seed, classifier, np.array(nouns)

    def boxes(self, scene: Scene, key: str) -> list[Box]:
        """Where it looks in an image."""
        return DETECTORS[self.name](scene, generator("regions", self.name, self.seed, key))

    def regions(self, images: Mapping[str, Drawn]) -> Regions:
        """What it sees in images by their keys."""
        boxes = [self.boxes(scene, key) for key, (scene, _) in images.items()]
        counts = [len(own) for own in boxes]
        pixels = (image for _, image in images.values())
        crops = [crop(image, box) for image, own in zip(pixels, boxes, strict=True) for box in own]
        with torch.inference_mode():
            features, classes, grounds = self.classifier(np.stack(crops))
            of_classes, of_grounds = classes.softmax(1).numpy(), grounds.softmax(1).numpy()
        found = {
            "features": features.numpy(),
            "boxes": np.concatenate(boxes).astype(np.float32),
            "object_ids": of_classes[:, 1:].argmax(1),  # without the background
            "object_confidences": of_classes[:, 1:].max(1),
            "attribute_ids": of_grounds.argmax(1),
            "attribute_confidences": of_grounds.max(1),
            "classes": of_classes,
        }
        image_of = np.repeat(np.arange(len(boxes)), counts)
        surest = np.lexsort((-found["object_confidences"], image_of))
        found = {name: array[surest] for name, array in found.items()}
        shows, ends = found["classes"].argmax(1) > 0, np.cumsum(counts)[:-1]
        names = np.split(self.nouns[found["object_ids"]], ends)
        tags = [list(own[real]) for own, real in zip(names, np.split(shows, ends), strict=True)]
        return Regions(counts, found, tags)


def write_part(part: Part, folder: Path, detector: Detector, facts: dict[str, Any]) -> None:
    """Writes a file, and says how long it took."""
    began, written, said = time.perf_counter(), set[str](), SAY_EVERY
    path = folder / f"{part.name}.parquet"
    waiting: dict[str, Drawn] = {}
    with written_table(path, facts | part.facts) as add:

        def write() -> None:
            add(list(waiting), *detector.regions(waiting))
            written.update(waiting)
            waiting.clear()

        for drawn in part.drawn:
            for scene, image in drawn:
                key = pixels_id(image)
                if key not in written:
                    waiting.setdefault(key, (scene, image))
                if len(waiting) >= ROWS:
                    write()
            if len(written) >= said:
                say(f"{part.name}: {len(written):,} images, {time.perf_counter() - began:.0f} s")
                said += SAY_EVERY
        if waiting:
            write()
    seconds = time.perf_counter() - began
    say(
        f"{path}: {len(written):,} images, {size(path.stat().st_size)}, {seconds:.0f} s "
        f"({1e4 * seconds / len(written):.1f} s for 10,000 images)"
    )


def say(line: str) -> None:
    """Prints a line at once, into a log too."""
    print(line, flush=True)


def classifier_in(
    folder: Path, num_nouns: int, image_size: int, steps: int
) -> tuple[Classifier, dict[str, Any]]:
    """The classifier for these settings, from the folder or trained now, and what the files say of it."""
    settings = f"nouns {num_nouns}, image {image_size}, steps {steps}, images {IMAGES_PER_STEP}, width {WIDTH}, scaled"
    name = f"classifier-{xxhash.xxh3_64_hexdigest(settings.encode())[:8]}"
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        save(path, trained(num_nouns, image_size, steps, say), settings)
    classifier = Classifier(num_nouns)
    try:
        with safe_open(path, "pt") as file:
            classifier.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
            noted = dict(sorted(file.metadata().items()))
    except Exception as error:
        raise UserError(
            f"{path}: cannot be read as a classifier; remove it, and it is trained again."
        ) from error
    parameters = sum(parameter.numel() for parameter in classifier.parameters())
    say(f"{path}: {parameters:,} parameters, {noted['seconds']} s of training; right: {noted['accuracy']}")
    return classifier.eval(), {"classifier": name, "parameters": parameters, **noted}


def save(path: Path, found: Trained, settings: str) -> None:
    """Writes a classifier with how it was trained."""
    accuracy = ", ".join(f"{name} {100 * share:.1f} %" for name, share in found.accuracy.items())
    noted = {"settings": settings, "seconds": f"{found.seconds:.0f}", "accuracy": accuracy}
    state = {name: tensor.contiguous() for name, tensor in found.classifier.state_dict().items()}
    with whole_file(path) as temporary:
        save_file(state, temporary, noted)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains the classifier if it is not there, and writes the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "recipe", type=Path, help="the run's recipe; its settings follow, such as --train.steps=100"
    )
    parser.add_argument(
        "out", type=Path, help="folder to write into: OUT/poor or OUT/oracle, and the classifier"
    )
    parser.add_argument("--detector", choices=DETECTORS, default="poor", help="whose boxes (default: poor)")
    parser.add_argument(
        "--splits", nargs="*", metavar="SPLIT", help="splits to evaluate on (default: the recipe's)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the poor detector's faults (default: 0)"
    )
    parser.add_argument(
        "--steps", type=int, default=STEPS, help=f"of training the classifier (default: {STEPS})"
    )
    given, overrides = parser.parse_known_args(arguments)
    try:
        config = load_recipe(given.recipe, overrides)
        if not is_drawn(config.data.source):
            raise UserError(f"data.source is {config.data.source}, but only pictograms have known boxes.")
        splits = config.evaluate.splits if given.splits is None else given.splits
        parts = [training_part(config), *(evaluation_part(config, split) for split in splits)]
        num_nouns, folder = config.data.num_nouns, given.out / given.detector
        folder.mkdir(parents=True, exist_ok=True)
        classifier, facts = classifier_in(given.out, num_nouns, config.model.image_size, given.steps)
        nouns = Scenes("train", 0, num_nouns).nouns
        facts |= {"detector": given.detector, "detector_seed": given.seed, "source": config.data.source}
        facts |= {"nouns": nouns, "attributes": BACKGROUNDS}
        names = [part.name for part in parts]
        check_same([opened(file) for file in parquet_files(folder) if file.stem not in names], facts)
        detector = Detector(given.detector, given.seed, classifier, nouns)
        for part in parts:
            write_part(part, folder, detector, facts)
        say(
            f"Train with: --data.regions={folder} --model.region_width={WIDTH} --model.num_objects={len(nouns)} "
            f"(uniter: {len(nouns) + 1}) --model.num_attributes={len(BACKGROUNDS)}"
        )
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
