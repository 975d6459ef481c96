import dataclasses

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from albef.data.collate import collate
from albef.data.records import Batch, Example, stable_id


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
    for field in dataclasses.fields(Batch):
        if field.name != "mlm_positions":
            joined = torch.cat([getattr(part, field.name) for part in parts])
            assert torch.equal(joined, getattr(batch, field.name))
    for part in parts:
        assert torch.equal(part.ids.flatten()[part.mlm_positions], part.mlm_labels)


def test_to_moves_every_tensor():
    moved = make_batch([3, 2], seed=0).to("meta")
    assert all(getattr(moved, field.name).is_meta for field in dataclasses.fields(Batch))


def test_stable_ids_are_known_numbers_of_63_bits():
    assert stable_id("") == 0x2D06800538D394C2 >> 1  # XXH3's published value for empty input
    ids = {stable_id(str(number)) for number in range(1000)}
    assert len(ids) == 1000
    assert all(0 <= number < 2**63 for number in ids)
