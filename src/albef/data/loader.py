"""Records → an endless stream of batches. The batch of step n depends on n alone."""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from albef.children import check_start, held_back
from albef.config import DataConfig, ModelConfig, UserError
from albef.data.answers import ListedAnswers, sample_answer
from albef.data.collate import collate
from albef.data.images import BadImage, open_image
from albef.data.records import Batch, Example, LeftOut, Record, SeenRegions, stable_id
from albef.data.regions import MOST_REGIONS, RegionStore, sample_hidden
from albef.data.sources import Source
from albef.data.transforms import train_transform
from albef.data.words import Words
from albef.disk import free_bytes, size
from albef.manifest import plain
from albef.writing import append_whole

# First words of the random keys: each purpose has a stream of its own.
_ORDER, _EXAMPLE = 1, 2

# Signals that the training handles (closed terminal, "save now") and that must not end its workers.
_UNTOLD = {signal.SIGHUP, signal.SIGUSR1}
SHARED_MEMORY = Path("/dev/shm")  # where workers leave their batches, on Linux
PATIENCE_SECONDS = 20  # wait for a batch; doubled after each timeout
MAX_FAILURES = 5  # of the workers, at the same step
_WORKER_FAILURES = ("DataLoader worker (pid", "DataLoader timed out")  # torch's words


@dataclass(frozen=True)
class BadSample:
    """A record that cannot be trained on, and why."""

    index: int
    origin: str
    reason: str


class TooManyBadSamples(UserError):
    """More records are unusable than `data.max_bad_fraction` allows."""


class ExampleSet:
    """Training examples by (index, epoch). Random choices depend on (seed, epoch, index, attempt) alone.

    A record that cannot be used (unreadable image, no caption left after cleaning) is noted in `bad`. Another record
    of the source takes its place.
    """

    def __init__(
        self,
        source: Source,
        words: Words,
        data: DataConfig,
        model: ModelConfig,
        seed: int,
        regions: RegionStore | None = None,
        listed: ListedAnswers | None = None,
    ) -> None:
        self.source, self.words, self.data, self.model, self.seed = source, words, data, model, seed
        self.regions = regions  # None: the system sees pixels
        self.listed = listed  # answers whose scores batches hold; None: they hold none
        self.bad: dict[int, BadSample] = {}  # by index; found by this process

    def __len__(self) -> int:
        return len(self.source)

    @property
    def max_bad(self) -> int:
        """How many different bad records are allowed.

        `max_bad_fraction` of the source, rounded down. At least one unless the fraction is 0, so that a single broken
        file does not end a small run. Never all records.
        """
        fraction = self.data.max_bad_fraction
        return min(max(int(fraction * len(self)), 1 if fraction > 0 else 0), len(self) - 1)

    def example(self, index: int, epoch: int) -> Example:
        """The example of record `index`, or of another one if it is bad. Raises `TooManyBadSamples`."""
        for attempt in count():
            rng = np.random.default_rng([_EXAMPLE, self.seed, epoch, index, attempt])
            chosen = index if attempt == 0 else int(rng.integers(len(self)))
            if chosen not in self.bad:
                record = self.source.record(chosen, epoch)
                try:
                    return self._draw(record, chosen, rng)
                except (BadImage, _NoCaption) as error:
                    self.bad[chosen] = BadSample(chosen, record.origin, str(error))
            if len(self.bad) > self.max_bad:
                raise TooManyBadSamples(f"{len(self.bad)} of {len(self)} records cannot be used.")
        raise AssertionError("the attempts are endless")

    def _draw(self, record: Record, index: int, rng: np.random.Generator) -> Example:
        number, caption, ids = self._caption(record, rng)
        seen = [self._seen(image, rng) for image in (record.image, record.second_image) if image is not None]
        answers, answer_weights = self._answers(record)
        scores = self.listed.scores(record.answers, record.official) if self.listed else None
        masked_ids, mlm_mask = self.words.mask(ids, self.data, rng)
        return Example(
            seen=seen[0],
            second=seen[1] if len(seen) > 1 else None,
            ids=ids,
            masked_ids=masked_ids,
            mlm_mask=mlm_mask,
            image_id=-(index + 1) if record.image_id is None else record.image_id,
            caption_id=stable_id(caption) if record.caption_ids is None else record.caption_ids[number],
            index=index,
            label=record.label,
            answers=answers,
            answer_weights=answer_weights,
            answer_scores=scores,
            listed_answer=None if scores is None else sample_answer(scores, rng),
        )

    def _seen(self, image: Path | np.ndarray, rng: np.random.Generator) -> np.ndarray | SeenRegions:
        """What the system sees of an image."""
        if self.regions is None:
            image = open_image(image, obey_exif=self.data.obey_exif, transparent=self.model.transparent)
            return train_transform(image, self.data, self.model.image_size, rng, self.model.fit)
        found = self.regions.of(image)
        tags = self.words.encode_tags(found.tags)
        return SeenRegions(
            found, sample_hidden(len(found), rng), tags, *self.words.mask(tags, self.data, rng)
        )

    def _answers(self, record: Record) -> tuple[tuple[np.ndarray, ...], tuple[float, ...]]:
        """Token ids of the different answers to a question, each with [SEP] at its end, and the answers' weights."""
        weights: dict[str, float] = {}
        for answer, weight in zip(record.answers, record.answer_weights, strict=True):
            weights[answer] = weights.get(answer, 0.0) + weight
        return tuple(map(self.words.encode_answer, weights)), tuple(weights.values())

    def _caption(self, record: Record, rng: np.random.Generator) -> tuple[int, str, np.ndarray]:
        """Number, cleaned text and ids of a random caption that is not empty after cleaning."""
        clean = self.words.clean_question if record.answers else self.words.clean
        for number in rng.permutation(len(record.captions)):
            caption = clean(record.captions[number])
            ids = self.words.encode(caption)
            if not self.words.are_empty(ids):
                return int(number), caption, ids
        raise _NoCaption("the caption is empty" if record.captions else "there is no caption")


class _NoCaption(Exception):
    pass


def order(num_records: int, seed: int, epoch: int, couple: int) -> np.ndarray:
    """A random order of the records, int64 [num_records]. With `couple` 2, records 2k and 2k+1 stay together.

    An odd last record comes last.
    """
    rng = np.random.default_rng([_ORDER, seed, epoch])
    couples = rng.permutation(num_records // couple) * couple
    rest = np.arange(num_records - num_records % couple, num_records)
    return np.concatenate([(couples[:, None] + np.arange(couple)).ravel(), rest])


def step_records(
    num_records: int, batch_size: int, step: int, seed: int, couple: int
) -> list[tuple[int, int]]:
    """The (index, epoch) of each row of step `step`'s batch.

    The rest of an epoch that does not fill a batch is left out. If the data set is smaller than a batch, a batch
    takes records of several epochs.
    """
    epoch_length = num_records // batch_size * batch_size or num_records
    places = (divmod(place, epoch_length) for place in range(step * batch_size, (step + 1) * batch_size))
    return [(int(_order(num_records, seed, epoch, couple)[place]), epoch) for epoch, place in places]


_order = functools.lru_cache(maxsize=2)(order)


def batches(
    examples: ExampleSet,
    batch_size: int,
    first_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    bad_samples: Path | None = None,
    say: Callable[[str], None] = print,
    pinned: bool = False,
) -> Iterator[Batch]:
    """This process's part of each step's batch, from `first_step` on, without end.

    `batch_size` counts all `world_size` processes. Each gets an equal, contiguous part. `workers` (loading processes;
    0 = load in this process) and `world_size` do not change what a step contains. `pinned` batches lie where a GPU
    copies from while other work goes on; only a machine with a GPU has such memory. Bad records are appended to the
    JSONL file `bad_samples`, each once. Raises `TooManyBadSamples` if this run has met too many. Workers that die or
    hang are replaced and reported through `say`; the batches stay the same.
    """
    if batch_size % world_size:
        raise UserError(
            f"train.batch_size {batch_size} is not divisible by the {world_size} processes. "
            f"Choose {batch_size // world_size * world_size or world_size}."
        )
    log = _BadSampleLog(examples, bad_samples, say)
    log.add(list(examples.bad.values()))  # found by an earlier stream of the same examples
    steps = _Steps(examples, batch_size, rank, world_size)
    for batch, bad, mistake in _loaded(steps, first_step, workers, say, pinned):
        log.add(bad)
        if mistake is not None:
            raise mistake
        assert batch is not None
        yield batch


def _loaded(
    steps: _Steps, first_step: int, workers: int, say: Callable[[str], None], pinned: bool
) -> Iterator[_Loaded]:
    """The steps one after the other. Workers that die or do not answer in time are replaced.

    Workers that die before the first step would die again, so they are not replaced.
    """
    step, patience, failures = first_step, PATIENCE_SECONDS, 0
    if workers:
        _check_shared_memory(steps, workers)
        with held_back(_UNTOLD):
            check_start(_context())
    while True:
        others = multiprocessing.active_children()
        loader = DataLoader(
            steps,
            batch_size=None,
            sampler=count(step),
            num_workers=workers,
            multiprocessing_context=_context() if workers else None,
            worker_init_fn=_start_worker if workers else None,
            timeout=patience if workers else 0,
            pin_memory=pinned,
            generator=torch.Generator(),  # the default draws from this process's generator
        )
        try:
            with held_back(_UNTOLD):
                loading = iter(loader)
            for loaded in loading:
                yield loaded
                step, failures = step + 1, 0
        except (RuntimeError, OSError, EOFError) as error:
            reason = plain(error)
            # torch reports an exception in a worker's code with "Caught". Without it, the connection broke.
            lost = not isinstance(error, RuntimeError) and not reason.startswith("Caught")
            if workers == 0 or (not lost and not reason.startswith(_WORKER_FAILURES)):
                raise
            for worker in multiprocessing.active_children():
                if worker not in others:
                    worker.kill()  # a stopped process reacts to no gentler signal
        failures += 1
        slow = "timed out" in reason
        if failures == MAX_FAILURES or (step == first_step and not slow):
            times = "before their first batch" if failures == 1 else f"{failures} times in a row"
            raise UserError(
                f"Step {step}: the data workers failed {times} ({reason}). Check that memory is not full and that the "
                f"disk answers, or load without workers: --data.workers=0."
            )
        say(f"Step {step}: {reason}. Restarting the data workers.")
        if slow:  # they may be slow instead of stuck
            patience *= 2


def _check_shared_memory(steps: _Steps, workers: int) -> None:
    """Raises `UserError` if shared memory has no room for the workers' batches, two for each worker."""
    rows, model = steps.rows.stop - steps.rows.start, steps.examples.model
    image = (
        3 * model.image_size**2 if steps.examples.regions is None else 4 * MOST_REGIONS * model.region_width
    )
    needed = 2 * workers * rows * image
    free = free_bytes(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None
    if free is not None and free < needed:
        raise UserError(
            f"data.workers is {workers}: their batches need {size(needed)} of shared memory, but {SHARED_MEMORY} has "
            f"only {size(free)} free. Set fewer workers (or 0), or give it more (in Docker: --shm-size)."
        )


class _Loaded(NamedTuple):
    """A step's batch, or the error that prevents it, and the bad records found on the way."""

    batch: Batch | None
    bad: list[BadSample]
    mistake: UserError | None  # not raised in the worker: it would arrive wrapped in a traceback


class _Steps(Dataset[_Loaded]):
    """Step number to this rank's share of it."""

    def __init__(self, examples: ExampleSet, batch_size: int, rank: int, world_size: int) -> None:
        self.examples, self.batch_size = examples, batch_size
        self.rows = slice(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)

    def __getitem__(self, step: int) -> _Loaded:
        examples = self.examples
        records = step_records(len(examples), self.batch_size, step, examples.seed, examples.source.couple)
        known = len(examples.bad)
        batch, mistake = None, None
        try:
            drawn = [examples.example(index, epoch) for index, epoch in records[self.rows]]
            batch = collate(drawn, examples.words.tokenizer.pad_id)
        except (
            UserError
        ) as error:  # of too many bad samples the training process, which sees all, says it better
            mistake = error
        return _Loaded(batch, list(examples.bad.values())[known:], mistake)


def list_left_out(source: Source, file: Path, say: Callable[[str], None]) -> None:
    """Lists the rows that the source leaves out, once in a run. They do not count as bad samples."""
    if source.left_out and not file.exists():
        _list(source.left_out, file, say)


def _list(samples: Sequence[BadSample | LeftOut], file: Path, say: Callable[[str], None]) -> None:
    """Appends a line for each. If the file cannot be written, `say` gets the lines."""
    lines = "".join(json.dumps(asdict(sample), ensure_ascii=False) + "\n" for sample in samples)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        append_whole(file, lines)
    except OSError as error:
        say(f"{file} cannot be written ({plain(error)}). It would have said: {lines.rstrip()}")


class _BadSampleLog:
    """Counts the bad records of this run over all workers and processes, and lists them in a file."""

    def __init__(self, examples: ExampleSet, file: Path | None, say: Callable[[str], None]) -> None:
        self.examples, self.file, self.say = examples, file, say
        self.found: set[int] = set()  # in this run
        self.listed: set[int] = set()  # in the file, by this or an earlier run or by another process
        self.read_bytes = 0
        self._read()
        self.listed_before = frozenset(self.listed)

    def add(self, bad: list[BadSample]) -> None:
        """Lists the new ones. Raises `TooManyBadSamples` if there are too many."""
        if not bad:
            return
        self._read()
        self.found.update(sample.index for sample in bad)
        new = [sample for sample in bad if sample.index not in self.listed]
        if self.file and new:
            _list(new, self.file, self.say)
        self.listed.update(sample.index for sample in new)
        total = len(self.found | (self.listed - self.listed_before))
        if total > self.examples.max_bad:
            where = f"See {self.file}: repair or remove them." if self.file else "Repair or remove them."
            raise TooManyBadSamples(
                f"{total} of {len(self.examples)} records cannot be used, more than data.max_bad_fraction = "
                f"{self.examples.data.max_bad_fraction} allows. {where} One of them: "
                f"{bad[-1].origin}: {bad[-1].reason}"
            )

    def _read(self) -> None:
        """Reads the lines that any process has added since the last time."""
        if self.file is None or not self.file.exists():
            return
        with self.file.open("rb") as file:
            file.seek(self.read_bytes)
            for line in file:
                if not line.endswith(b"\n"):  # another process is writing it
                    break
                self.read_bytes += len(line)
                # Half a line of a killed process, or a row that the source leaves out.
                with contextlib.suppress(ValueError, KeyError):
                    self.listed.add(json.loads(line)["index"])


def _context() -> multiprocessing.context.BaseContext:
    """How workers start: not forked from this process, since its threads would not survive a fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once for all workers
    return context


def _start_worker(worker: int) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches workers too, but the current step still needs them
    # Shared by file name. By file descriptor, a stopped worker would have to answer.
    torch.multiprocessing.set_sharing_strategy("file_system")
    cv2.setNumThreads(0)  # the workers are the parallelism
