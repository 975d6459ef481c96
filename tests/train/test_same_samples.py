"""One, two and four real processes form every step of the same samples, and fill the queue in the same order."""

import dataclasses
from pathlib import Path

import torch
import torch.multiprocessing as multiprocessing
from safetensors.torch import load_file
from torch import Tensor

import toy
from albef.config import Config
from albef.run import prepare
from albef.train.loop import train_process
from groups import one_of

STEPS, PAIRS = 5, 8  # more pairs than there are in an epoch of 24


def one_of_four(rank: int, config: Config, folder: Path) -> None:
    """Trains with all four processes, and then with two."""
    for size in (4, 2):
        if rank < size:
            with one_of(size, rank, folder / f"group-{size}"):
                train_process(config, folder / str(size))


def queue(run: Path) -> tuple[list[int], list[int], Tensor]:
    """Pictures and captions of the queue in its order, and the features of those of the first step."""
    tensors = load_file(run / "checkpoints" / f"step-{STEPS:08d}" / "task.safetensors")
    pictures, captions = tensors["queue.image_id"].tolist(), tensors["queue.caption_id"].tolist()
    return pictures, captions, tensors["queue.image"][:PAIRS]


def test_the_samples_and_the_queue_are_the_same(tmp_path: Path) -> None:
    config = toy.config()
    config = dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, steps=STEPS, batch_size=PAIRS, threads=1),
        task=dataclasses.replace(config.task, queue_size=STEPS * PAIRS),
    )
    for size in (1, 2, 4):
        config = prepare(config, tmp_path / str(size))
        (tmp_path / f"group-{size}").mkdir()
    multiprocessing.start_processes(one_of_four, (config, tmp_path), nprocs=4, start_method="spawn")
    threads = torch.get_num_threads()
    train_process(config, tmp_path / "1")
    torch.set_num_threads(threads)
    pictures, captions, features = queue(tmp_path / "1")
    assert len(set(pictures)) == STEPS * PAIRS  # every epoch draws new scenes
    for size in (2, 4):
        others = queue(tmp_path / str(size))
        assert others[:2] == (pictures, captions)
        torch.testing.assert_close(others[2], features, rtol=0, atol=1e-5)
