"""Trainings that are killed or asked to stop at random moments end where they would have ended."""

import contextlib
import dataclasses
import os
import random
import signal
import time
from pathlib import Path

import faulty
import pytest
from faulty import (
    INTERVAL,
    STEPS,
    assert_same_run,
    finish,
    last_step,
    losses,
    number_of,
    start,
    tell,
    wait_for,
)

import toy_clip
import toy_regions
from albef.config import DataConfig
from albef.model_config import SystemName


def slow_disk() -> None:
    """Bringing a checkpoint to the disk takes about as long as the steps to the next one."""
    fsync = os.fsync

    def slowly(number: int) -> None:
        time.sleep(0.1)
        fsync(number)

    os.fsync = slowly


def pause(folder: Path, random_: random.Random, saving: bool = False) -> None:
    """Until the training has done a random share of its steps, or until it is amidst saving."""
    wait_for(lambda: (folder / "log.jsonl").exists())
    stop = random_.randrange(1, STEPS - 3)
    wait_for(lambda: (folder / "log.jsonl").read_bytes().count(b"\n") >= stop)
    if saving:
        wait_for(lambda: any((folder / "checkpoints").glob(".*.writing")), 5)
    time.sleep(random_.random() * (0.3 if saving else 0.02))


def test_a_clip_that_is_killed_goes_on_as_it_would_have(tmp_path: Path) -> None:
    finish(tmp_path / "undisturbed", toy_clip.TRAINED)
    for number in range(number_of(2, 20)):
        folder = tmp_path / str(number)
        process = start(folder, model=toy_clip.TRAINED)
        pause(folder, random.Random(number))
        process.kill()
        process.join()
        finish(folder, toy_clip.TRAINED)
        assert_same_run(folder, tmp_path / "undisturbed")


@pytest.mark.parametrize("system", toy_regions.SYSTEM_NAMES)
def test_a_system_on_regions_that_is_killed_goes_on_as_it_would_have(
    system: SystemName, tmp_path: Path
) -> None:
    model = dataclasses.replace(toy_regions.model_config(system), dropout=0.1)
    data = DataConfig(source=str(toy_regions.write_data(tmp_path / "data", "pretrain")))
    finish(tmp_path / "undisturbed", model, data)
    for number in range(number_of(1, 20)):
        folder = tmp_path / str(number)
        process = start(folder, model=model, data=data)
        pause(folder, random.Random(number))
        process.kill()
        process.join()
        finish(folder, model, data)
        assert_same_run(folder, tmp_path / "undisturbed")


def test_killed_at_random_moments(tmp_path: Path, undisturbed: Path) -> None:
    kills, saving, done_again, late = number_of(10, 100), 0, [], 0
    for number in range(kills):
        folder, random_ = tmp_path / str(number), random.Random(number)
        process = start(folder, slow_disk if number % 2 else None)
        if number % 10 == 8:
            time.sleep(random_.random() * 0.3)  # while it prepares
        else:
            pause(folder, random_, saving=bool(number % 2))
        process.kill()
        process.join()
        late += process.exitcode == 0
        saving += any((folder / "checkpoints").glob(".*.writing"))
        logged = losses(folder) if (folder / "log.jsonl").exists() else []
        done_again.append(len(logged) - last_step(folder))
        finish(folder)
        assert_same_run(folder, undisturbed)
    tell(
        f"SIGKILL: {kills} of {kills} runs ended bit-identical; {saving} were killed while saving, {late} had ended "
        f"before; at most {max(done_again)} steps done again (a checkpoint every {INTERVAL})"
    )
    # While a slow disk takes one checkpoint, training goes on until the next one is due.
    assert max(done_again) <= 2 * INTERVAL


def test_asked_to_stop_at_random_moments(tmp_path: Path, undisturbed: Path) -> None:
    times, codes, slowest = number_of(8, 50), [], 0.0
    for number in range(times):
        folder, random_ = tmp_path / str(number), random.Random(number)
        asked = (signal.SIGTERM, signal.SIGINT)[number % 2]
        process = start(folder)
        assert process.pid is not None
        pause(folder, random_)
        begun = time.monotonic()
        os.kill(process.pid, asked)
        process.join()
        slowest = max(slowest, time.monotonic() - begun)
        codes.append(process.exitcode)
        assert process.exitcode in (128 + asked, 0)  # 0: it had ended before
        assert last_step(folder) == len(losses(folder))  # nothing is done again
        finish(folder)
        assert_same_run(folder, undisturbed)
    tell(
        f"SIGTERM, SIGINT: {times} of {times} saved, exit codes {sorted(set(codes))}, and ended bit-identical; "
        f"the slowest exit took {slowest:.1f} s"
    )


def test_a_second_signal_stops_at_once(tmp_path: Path, undisturbed: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder)
    assert process.pid is not None
    wait_for(lambda: (folder / "log.jsonl").exists())
    while process.is_alive():
        with contextlib.suppress(ProcessLookupError):  # it ended a moment ago
            os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode != 0
    faulty.finish(folder)
    assert_same_run(folder, undisturbed)
