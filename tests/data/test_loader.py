import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from albef.config import DataConfig, ModelConfig, UserError
from albef.data import loader
from albef.data.loader import BadSample, ExampleSet, TooManyBadSamples, batches, order, step_records
from albef.data.records import Batch, Record, stable_id
from albef.data.text import Tokenizer
from albef.data.words import BertWords
from albef.recipe import load_recipe

TOKENIZER = Tokenizer.bert()
MODEL = ModelConfig(image_size=16, patch_size=8)


class Drawn:
    """Small pictures whose first pixel is their number; some of the records may be spoilt."""

    def __init__(self, count: int, couple: int = 1, spoilt: dict[int, Path | str] | None = None) -> None:
        self.count, self.couple, self.spoilt = count, couple, spoilt or {}

    def __len__(self) -> int:
        return self.count

    def record(self, index: int, epoch: int) -> Record:
        spoilt = self.spoilt.get(index)
        image = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        return Record(
            image=spoilt if isinstance(spoilt, Path) else image,
            captions=(spoilt,) if isinstance(spoilt, str) else (f"picture {index}", f"number {index}"),
            image_id=None,
            caption_ids=None,
            origin=f"row {index}",
        )


def example_set(source, **settings) -> ExampleSet:
    return ExampleSet(source, BertWords(TOKENIZER, MODEL), DataConfig(**settings), MODEL, seed=5)


def take(stream, number: int) -> list[Batch]:
    taken = list(itertools.islice(stream, number))
    stream.close()
    return taken


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.tensors().keys() == other.tensors().keys()
        for name, tensor in one.tensors().items():
            assert torch.equal(tensor, other.tensors()[name]), name


def indices(batch: Batch) -> list[int]:
    return (-batch.image_id - 1).tolist()


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 9), st.integers(0, 9), st.sampled_from([1, 2]))
def test_order_is_a_permutation_that_keeps_couples(num_records, seed, epoch, couple):
    permutation = order(num_records, seed, epoch, couple)
    assert sorted(permutation) == list(range(num_records))
    assert np.array_equal(permutation, order(num_records, seed, epoch, couple))
    if couple == 2:
        firsts, seconds = permutation[: num_records // 2 * 2].reshape(-1, 2).T
        assert (firsts % 2 == 0).all()
        assert np.array_equal(seconds, firsts + 1)


def test_order_changes_with_seed_and_epoch():
    orders = {tuple(order(50, seed, epoch, 1)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 8), st.integers(0, 30), st.sampled_from([1, 2]))
def test_epochs_visit_each_record_at_most_once_and_nearly_all(num_records, batch_size, steps, couple):
    visited: dict[int, list[int]] = {}
    for step in range(steps):
        records = step_records(num_records, batch_size, step, 0, couple)
        assert len(records) == batch_size
        for index, epoch in records:
            visited.setdefault(epoch, []).append(index)
    assert list(visited) == list(range(len(visited)))
    for epoch, seen in visited.items():
        assert len(set(seen)) == len(seen)
        if epoch < len(visited) - 1:
            assert len(seen) > num_records - min(batch_size, num_records + 1)


def test_examples_are_functions_of_index_and_epoch():
    first, second = example_set(Drawn(9)), example_set(Drawn(9))
    second.example(3, 0)  # what was drawn before does not matter
    one, same, later = first.example(4, 1), second.example(4, 1), first.example(4, 2)
    assert np.array_equal(one.seen, same.seen)
    assert np.array_equal(one.masked_ids, same.masked_ids)
    assert not np.array_equal(one.seen, later.seen)
    assert one.image_id == later.image_id == -5
    assert one.index == 4
    captions = {TOKENIZER.decode(first.example(4, epoch).ids) for epoch in range(20)}
    assert captions == {"picture 4", "number 4"}
    assert {first.example(4, epoch).caption_id for epoch in range(20)} == {
        stable_id("picture 4"),
        stable_id("number 4"),
    }


def test_known_ids_are_kept():
    class Known(Drawn):
        def record(self, index, epoch):
            return dataclasses.replace(super().record(index, epoch), image_id=77, caption_ids=(8, 9))

    examples = example_set(Known(3))
    drawn = [examples.example(0, epoch) for epoch in range(20)]
    assert {example.image_id for example in drawn} == {77}
    ids = {"picture 0": 8, "number 0": 9}
    assert all(ids[TOKENIZER.decode(example.ids)] == example.caption_id for example in drawn)


def test_batches_do_not_depend_on_where_the_stream_begins():
    stream = take(batches(example_set(Drawn(10)), 4), 7)
    for first_step in (1, 4):
        assert_same(
            take(batches(example_set(Drawn(10)), 4, first_step), 3), stream[first_step : first_step + 3]
        )


def test_processes_share_each_batch_in_order():
    whole = take(batches(example_set(Drawn(12, couple=2)), 8), 3)
    parts = [
        take(batches(example_set(Drawn(12, couple=2)), 8, rank=rank, world_size=2), 3) for rank in (0, 1)
    ]
    for step, batch in enumerate(whole):
        assert indices(batch) == indices(parts[0][step]) + indices(parts[1][step])
        assert torch.equal(batch.pixels, torch.cat([part[step].pixels for part in parts]))
        for part in parts:
            couples = np.array(indices(part[step])).reshape(-1, 2)
            assert (couples[:, 0] % 2 == 0).all()
            assert (couples[:, 1] == couples[:, 0] + 1).all()


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(UserError, match=r"train.batch_size 9 is not divisible by the 2 processes\. Choose 8"):
        next(batches(example_set(Drawn(12)), 9, world_size=2))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines with few cores
def test_workers_change_nothing(tmp_path):
    (tmp_path / "empty.jpg").touch()
    source = Drawn(20, spoilt={3: tmp_path / "empty.jpg"})
    settings = {"max_bad_fraction": 0.1}
    here = take(batches(example_set(source, **settings), 8, first_step=2), 5)
    random_state = torch.get_rng_state()
    for workers in (1, 3):
        stream = batches(
            example_set(source, **settings), 8, 2, workers=workers, bad_samples=tmp_path / f"{workers}.jsonl"
        )
        assert_same(take(stream, 5), here)
        listed = [json.loads(line) for line in (tmp_path / f"{workers}.jsonl").read_text().splitlines()]
        assert [sample["origin"] for sample in listed] == ["row 3"]
    assert torch.equal(random_state, torch.get_rng_state())


def test_without_workers_nothing_is_started_again():
    class Lost(Drawn):
        def record(self, index: int, epoch: int) -> Record:
            raise OSError("Stale file handle")

    said: list[str] = []
    with pytest.raises(OSError, match="Stale"):
        next(batches(example_set(Lost(8)), 4, say=said.append))
    assert not said


def test_three_pairs_fill_a_batch():
    stream = take(batches(example_set(Drawn(3)), 8), 3)
    drawn = [index for batch in stream for index in indices(batch)]
    assert all(sorted(drawn[start : start + 3]) == [0, 1, 2] for start in range(0, 24, 3))


@pytest.mark.parametrize(("count", "batch_size"), [(1, 1), (1, 4), (5, 1)])
def test_smallest_sizes(count, batch_size):
    assert [len(batch) for batch in take(batches(example_set(Drawn(count)), batch_size), 6)] == [
        batch_size
    ] * 6


def spoil(folder: Path) -> dict[int, Path | str]:
    """One record of every kind of failure."""
    Image.new("RGB", (64, 64)).save(folder / "good.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "good.jpg").read_bytes()[:-20])
    (folder / "empty.jpg").touch()
    (folder / "page.jpg").write_text("<html>not found</html>")
    return {
        1: folder / "truncated.jpg",
        4: folder / "empty.jpg",
        5: folder / "page.jpg",
        8: folder / "missing.jpg",
        9: " ?! ",
        12: "\u200b",
    }


def test_bad_records_are_replaced_and_listed_once(tmp_path):
    spoilt = spoil(tmp_path)
    file = tmp_path / "run" / "bad_samples.jsonl"
    stream = batches(example_set(Drawn(40, spoilt=spoilt), max_bad_fraction=0.2), 8, bad_samples=file)
    taken = take(stream, 15)
    assert all(len(batch) == 8 and not set(indices(batch)) & set(spoilt) for batch in taken)
    listed = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert sorted(sample["index"] for sample in listed) == sorted(spoilt)
    reasons = {sample["index"]: sample["reason"] for sample in listed}
    words = {
        1: "truncated",
        4: "empty",
        5: "HTML",
        8: "no such file",
        9: "caption is empty",
        12: "caption is empty",
    }
    assert all(word in reasons[index] for index, word in words.items())
    assert all(sample["origin"] == f"row {sample['index']}" for sample in listed)

    again = take(
        batches(example_set(Drawn(40, spoilt=spoilt), max_bad_fraction=0.2), 8, bad_samples=file), 15
    )
    assert_same(again, taken)
    assert len(file.read_text("utf-8").splitlines()) == len(spoilt)


def test_too_many_bad_records_stop_the_run_with_the_place_of_the_list(tmp_path):
    spoilt = spoil(tmp_path)
    file = tmp_path / "bad_samples.jsonl"
    stream = batches(example_set(Drawn(40, spoilt=spoilt), max_bad_fraction=0.1), 8, bad_samples=file)
    with pytest.raises(TooManyBadSamples, match="5 of 40 records cannot be used") as caught:
        take(stream, 15)
    assert str(file) in str(caught.value)
    assert "data.max_bad_fraction = 0.1" in str(caught.value)
    assert len(file.read_text("utf-8").splitlines()) == 5


def test_processes_count_their_bad_records_together(tmp_path):
    spoilt = spoil(tmp_path)
    file = tmp_path / "bad_samples.jsonl"
    streams = [
        batches(example_set(Drawn(40, spoilt=spoilt), max_bad_fraction=0.1), 8, 0, rank, 2, bad_samples=file)
        for rank in (0, 1)
    ]
    with pytest.raises(TooManyBadSamples):
        list(itertools.islice(zip(*streams, strict=True), 5))
    listed = [json.loads(line)["index"] for line in file.read_text("utf-8").splitlines()]
    assert len(listed) == len(set(listed)) == 5


def test_what_an_earlier_run_listed_does_not_count(tmp_path):
    file = tmp_path / "bad_samples.jsonl"
    old = [dataclasses.asdict(BadSample(index, f"row {index}", "mended since")) for index in range(30)]
    file.write_text("".join(json.dumps(sample) + "\n" for sample in old))
    spoilt = {3: "", 35: ""}
    stream = batches(example_set(Drawn(40, spoilt=spoilt), max_bad_fraction=0.05), 8, bad_samples=file)
    take(stream, 10)
    assert len(file.read_text().splitlines()) == 31


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.01), (3, 1.0), (50, 0.01)])
@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_bad_records_ends_in_an_error(count, fraction, workers):
    spoilt = dict.fromkeys(range(count), "")
    with pytest.raises(TooManyBadSamples) as caught:
        next(batches(example_set(Drawn(count, spoilt=spoilt), max_bad_fraction=fraction), 4, workers=workers))
    assert "\n" not in str(caught.value)


def test_a_second_stream_of_the_same_examples_knows_what_is_bad():
    examples = example_set(Drawn(3, spoilt=dict.fromkeys(range(3), "")))
    for _ in range(2):
        with pytest.raises(TooManyBadSamples):
            next(batches(examples, 4))


@pytest.mark.parametrize(
    ("count", "fraction", "tolerated"),
    [(1000, 0.01, 10), (50, 0.01, 1), (50, 0.0, 0), (1, 0.01, 0), (2, 1.0, 1), (10, 1.0, 9)],
)
def test_how_many_bad_records_are_tolerated(count, fraction, tolerated):
    assert example_set(Drawn(count), max_bad_fraction=fraction).max_bad == tolerated


def test_all_captions_of_a_record_are_tried_before_it_is_bad():
    class Sparse(Drawn):
        def record(self, index, epoch):
            return dataclasses.replace(super().record(index, epoch), captions=("", "...", "a fox", " "))

    examples = example_set(Sparse(3))
    assert {TOKENIZER.decode(examples.example(0, epoch).ids) for epoch in range(10)} == {"a fox"}
    assert not examples.bad


@pytest.mark.parametrize(("free", "fits"), [(2 * 3 * 4 * 3 * 16 * 16, True), (10_000, False), (None, True)])
def test_workers_whose_batches_have_no_room_are_refused(monkeypatch, free, fits):
    monkeypatch.setattr(loader, "free_bytes", lambda place: free)
    steps = loader._Steps(example_set(Drawn(8)), 4, 0, 1)
    if fits:
        loader._check_shared_memory(steps, workers=3)
        return
    with pytest.raises(
        UserError, match=r"data\.workers is 3: their batches need 18\.4 kB .* has only 10\.0 kB free"
    ):
        loader._check_shared_memory(steps, workers=3)


def test_memory_is_pinned_only_where_it_is_asked_for(monkeypatch):
    """A card that is there and not used must get nothing: pinning would begin to work on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    given: list[bool] = []
    loading = loader.DataLoader
    monkeypatch.setattr(
        loader,
        "DataLoader",
        lambda steps, pin_memory, **rest: given.append(pin_memory) or loading(steps, **rest),
    )
    for pinned in (False, True):
        take(batches(example_set(Drawn(4)), 4, pinned=pinned), 1)
    take(batches(example_set(Drawn(4)), 4), 1)
    assert given == [False, True, False]


RECIPES = Path(__file__).parent.parent.parent / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_for_gpus_decode_in_workers(path):
    config = load_recipe(path)
    for_gpus = path.read_text().startswith("# torchrun")
    assert (config.data.workers > 0) == for_gpus
