import dataclasses

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from albef.data.collate import collate
from albef.data.records import Batch, Example, stable_id
from albef.data.regions import ImageRegions

# What examples do not know yet: listed answers, masked tags, the regions of a second image.
NOT_COLLATED = {
    *("answer_scores", "listed_answer", "masked_tag_ids", "tag_labels"),
    *("second_region_features", "second_region_boxes", "second_region_mask"),
}


def regions(count: int) -> ImageRegions:
    ones, numbers = np.ones(count, np.float32), np.arange(count)
    table = np.ones((count, 4), np.float32)
    return ImageRegions(table, table, numbers, ones, numbers, ones, table)


def make_batch(lengths: list[int], seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    examples = []
    for index, length in enumerate(lengths):
        ids = rng.integers(5, 100, length)
        examples.append(
            Example(
                pixels=rng.random((3, 2, 2), dtype=np.float32),
                ids=ids,
                masked_ids=ids + 1,
                mlm_mask=rng.random(length) < 0.4,
                image_id=-index - 1,
                caption_id=index,
                index=index,
                second_pixels=np.full((3, 2, 2), index, np.float32),
                label=index % 3,
                answers=tuple(np.arange(2 + index % 2) for _ in range(1 + index % 3)),
                answer_weights=(1.0, 0.5, 0.25)[: 1 + index % 3],
                regions=regions(1 + index % 3),
                hidden_regions=rng.random(1 + index % 3) < 0.5,
                tags=ids[: index % 2],
            )
        )
    return collate(examples, pad_id=0)


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 99), st.data())
def test_slices_of_a_batch_hold_its_rows_and_its_hidden_tokens(lengths, seed, data):
    batch = make_batch(lengths, seed)
    cut = data.draw(st.integers(0, len(batch)))
    parts = [batch.slice(0, cut), batch.slice(cut, len(batch))]
    assert [len(part) for part in parts] == [cut, len(batch) - cut]
    assert len(batch.tensors()) == len(dataclasses.fields(Batch)) - len(NOT_COLLATED)
    for name, whole in batch.tensors().items():
        if name not in ("mlm_positions", "answer_row"):
            assert torch.equal(torch.cat([part.tensors()[name] for part in parts]), whole)
    for part, first in zip(parts, (0, cut), strict=True):
        assert torch.equal(part.ids.flatten()[part.mlm_positions], part.mlm_labels)
        given = [1 + index % 3 for index in range(first, first + len(part))]
        assert part.answer_row.bincount(minlength=len(part)).tolist() == given


def test_to_moves_every_tensor():
    moved = make_batch([3, 2], seed=0).to("meta")
    assert len(moved.tensors()) == len(dataclasses.fields(Batch)) - len(NOT_COLLATED)
    assert all(tensor.is_meta for tensor in moved.tensors().values())


def test_stable_ids_are_known_numbers_of_63_bits():
    assert stable_id("") == 0x2D06800538D394C2 >> 1  # XXH3's published value for empty input
    ids = {stable_id(str(number)) for number in range(1000)}
    assert len(ids) == 1000
    assert all(0 <= number < 2**63 for number in ids)
