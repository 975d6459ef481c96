import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from albef.data.collate import collate
from albef.data.records import Batch, Example, SeenRegions, stable_id
from albef.data.regions import ImageRegions

PIXELS = {"pixels", "second_pixels"}
NAMES = {field.name for field in dataclasses.fields(Batch)}
OF_REGIONS = {
    name for name in NAMES if "region" in name or "tag" in name or name.startswith(("object", "attribute"))
}
FIELDS = {True: NAMES - PIXELS, False: NAMES - OF_REGIONS}


def seen_regions(count: int, rng: np.random.Generator) -> SeenRegions:
    ones, numbers = np.ones(count, np.float32), np.arange(count)
    table, tags = rng.random((count, 4), np.float32), rng.integers(5, 100, count % 3)
    found = ImageRegions(table, table, numbers, ones, numbers, ones, table)
    return SeenRegions(found, rng.random(count) < 0.5, tags, tags + 1, rng.random(len(tags)) < 0.5)


def make_batch(lengths: list[int], seed: int, on_regions: bool) -> Batch:
    rng = np.random.default_rng(seed)
    examples = []
    for index, length in enumerate(lengths):
        ids = rng.integers(5, 100, length)
        seen = [
            seen_regions(1 + (index + second) % 3, rng) if on_regions else rng.random((3, 2, 2), np.float32)
            for second in range(2)
        ]
        examples.append(
            Example(
                seen=seen[0],
                second=seen[1],
                ids=ids,
                masked_ids=ids + 1,
                mlm_mask=rng.random(length) < 0.4,
                image_id=-index - 1,
                caption_id=index,
                index=index,
                label=index % 3,
                answers=tuple(np.arange(2 + index % 2) for _ in range(1 + index % 3)),
                answer_weights=(1.0, 0.5, 0.25)[: 1 + index % 3],
                answer_scores=rng.random(5, np.float32),
                listed_answer=index % 5,
            )
        )
    return collate(examples, pad_id=0)


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 99), st.booleans(), st.data())
def test_slices_of_a_batch_hold_its_rows_and_its_hidden_tokens(lengths, seed, on_regions, data):
    batch = make_batch(lengths, seed, on_regions)
    cut = data.draw(st.integers(0, len(batch)))
    parts = [batch.slice(0, cut), batch.slice(cut, len(batch))]
    assert [len(part) for part in parts] == [cut, len(batch) - cut]
    assert batch.tensors().keys() == FIELDS[on_regions]
    for name, whole in batch.tensors().items():
        if name not in ("mlm_positions", "answer_row"):
            assert torch.equal(torch.cat([part.tensors()[name] for part in parts]), whole)
    for part, first in zip(parts, (0, cut), strict=True):
        assert torch.equal(part.ids.flatten()[part.mlm_positions], part.mlm_labels)
        given = [1 + index % 3 for index in range(first, first + len(part))]
        assert part.answer_row.bincount(minlength=len(part)).tolist() == given


@pytest.mark.parametrize("on_regions", [False, True])
def test_to_moves_every_tensor(on_regions):
    moved = make_batch([3, 2], seed=0, on_regions=on_regions).to("meta")
    assert moved.tensors().keys() == FIELDS[on_regions]
    assert all(tensor.is_meta for tensor in moved.tensors().values())


def test_stable_ids_are_known_numbers_of_63_bits():
    assert stable_id("") == 0x2D06800538D394C2 >> 1  # XXH3's published value for empty input
    ids = {stable_id(str(number)) for number in range(1000)}
    assert len(ids) == 1000
    assert all(0 <= number < 2**63 for number in ids)
