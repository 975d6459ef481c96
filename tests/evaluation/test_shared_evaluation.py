"""Two processes that share an evaluation come to the figures of one, bit for bit, and do no work twice."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from PIL import Image

import toy
from albef import distributed
from albef.config import DataConfig, UserError
from albef.engine import Engine
from albef.evaluation.by_task import Asked, evaluate_on
from albef.evaluation.vqa import Asking
from groups import one_of

GALLERY, RECORDS = 140, 70  # three batches and two: two processes can't have as many pictures each
CLASSES = ("fox", "car", "house")
TASKS = {"vqa": "answer", "entailment": "entailment", "nlvr": "nlvr", "grounding": "itm"}


def counting(engine: Engine) -> list[int]:
    """Gets the number of pictures in every pass through the image encoder."""
    encode, passes = engine.model.encode_image, []

    def encode_image(pixels: torch.Tensor) -> object:
        passes.append(len(pixels))
        return encode(pixels)

    engine.model.encode_image = encode_image
    return passes


def measured(folder: Path) -> dict[str, dict[str, float]]:
    """The figures of every task, and under "pictures" how many this process has encoded for it."""
    results = folder / f"answers-{distributed.world_size()}-{distributed.rank()}.json"
    asking = Asking(["2", "yes", "fox"], k=2)
    found = {}
    engine = toy.engine()
    passes = counting(engine)
    asked = Asked("retrieval", asking)
    found["drawn"] = evaluate_on(engine, DataConfig(count=GALLERY), ["test"], 1, asked)
    found["drawn"]["pictures"] = sum(passes)
    found["own"] = evaluate_on(engine, DataConfig(source=str(folder / "pairs.json")), [], 1, asked)
    engine = toy.engine()
    passes = counting(engine)
    found["classes"] = evaluate_on(
        engine, DataConfig(source=str(folder / "classes")), [], 1, Asked("classes", asking)
    )
    found["classes"]["pictures"] = sum(passes)
    for task, head in TASKS.items():
        engine = toy.engine("contrast", head) if task == "grounding" else toy.engine(head)
        passes = counting(engine)
        data = DataConfig(source=f"pictograms:{task}", count=RECORDS)
        found[task] = evaluate_on(engine, data, ["test"], 1, Asked(task, asking, results=results))
        found[task]["pictures"] = sum(passes)
    return found


def wrong_in_the_last() -> int:
    if distributed.rank() == distributed.world_size() - 1:
        raise UserError("A sentence.")
    return 3


def one_of_two(rank: int, folder: Path) -> None:
    with one_of(2, rank, folder):
        with pytest.raises(UserError, match="A sentence"):
            distributed.from_each(wrong_in_the_last)
        (folder / f"{rank}.json").write_text(json.dumps(measured(folder)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What one process measured ("alone.json") and each of two."""
    folder, rng = tmp_path_factory.mktemp("shared"), np.random.default_rng(0)
    for number in range(70):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{number}.png")
    for broken in (3, 66):  # in the first process's share, and in the second's
        (folder / f"{broken}.png").write_bytes(b"<html>")
    for number in range(70):
        (folder / "classes" / CLASSES[number % 3]).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / f"{number}.png", folder / "classes" / CLASSES[number % 3])
    rows = [{"image": f"{n}.png", "caption": f"{toy.CAPTIONS[n % 4]} {n}"} for n in range(70)]
    (folder / "pairs.json").write_text(json.dumps(rows))
    multiprocessing.start_processes(one_of_two, (folder,), nprocs=2, start_method="spawn")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (folder / "alone.json").write_text(json.dumps(measured(folder)))
    torch.set_num_threads(threads)
    return folder


def test_the_figures_of_two_processes_are_those_of_one(folder: Path) -> None:
    alone, *both = (json.loads((folder / f"{name}.json").read_text()) for name in ("alone", 0, 1))
    assert alone["own"]["data/skipped"] == alone["classes"]["data/skipped"] == 2
    assert alone["vqa"]["test/count"] == RECORDS
    for of_all in alone.values():
        of_all.pop("pictures", None)
    for found in both:
        for of_all in found.values():
            of_all.pop("pictures", None)
        assert found == alone


def test_every_picture_is_encoded_by_one_of_them(folder: Path) -> None:
    alone, *both = (json.loads((folder / f"{name}.json").read_text()) for name in ("alone", 0, 1))
    for task in ("drawn", "classes", *TASKS):
        shares = [found[task]["pictures"] for found in both]
        assert sum(shares) == alone[task]["pictures"]
        assert min(shares) > 0
    assert (folder / "answers-2-0.json").read_text() == (folder / "answers-1-0.json").read_text()
    assert not (folder / "answers-2-1.json").exists()
