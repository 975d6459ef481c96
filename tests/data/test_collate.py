import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from albef.data.collate import collate
from albef.data.records import Example

PAD = 7


def example(ids: list[int], hidden: list[bool], index: int) -> Example:
    return Example(
        seen=np.full((3, 2, 2), index, dtype=np.uint8),
        ids=np.array(ids),
        masked_ids=np.where(hidden, 99, ids),
        mlm_mask=np.array(hidden),
        image_id=-(index + 1),
        caption_id=2**62 + index,
        index=index,
    )


tokens = st.lists(st.tuples(st.integers(10, 98), st.booleans()), min_size=1, max_size=12)


@settings(deadline=None)
@given(st.lists(tokens, min_size=1, max_size=6))
def test_a_batch_gives_back_every_example_in_order(captions):
    examples = [
        example([token for token, _ in caption], [hidden for _, hidden in caption], index)
        for index, caption in enumerate(captions)
    ]
    batch = collate(examples, PAD)
    assert batch.ids.shape == (len(captions), max(map(len, captions)))
    for row, one in enumerate(examples):
        real = batch.mask[row]
        assert real.tolist() == [True] * len(one.ids) + [False] * (batch.ids.shape[1] - len(one.ids))
        assert batch.ids[row][real].tolist() == one.ids.tolist()
        assert batch.masked_ids[row][real].tolist() == one.masked_ids.tolist()
        assert (batch.ids[row][~real] == PAD).all()
        assert (batch.masked_ids[row][~real] == PAD).all()
        assert (batch.pixels[row] == row).all()
        assert batch.image_id[row] == one.image_id
        assert batch.caption_id[row] == one.caption_id
    hidden = torch.zeros(batch.ids.numel(), dtype=torch.bool)
    hidden[batch.mlm_positions] = True
    assert torch.equal(hidden.view_as(batch.ids), batch.masked_ids == 99)
    assert torch.equal(batch.ids.flatten()[batch.mlm_positions], batch.mlm_labels)


def test_types():
    batch = collate([example([10, 11], [False, False], 0)], PAD)
    assert batch.pixels.dtype == torch.uint8  # a quarter of the bytes of what the model takes
    assert batch.mask.dtype == torch.bool
    others = (batch.ids, batch.masked_ids, batch.mlm_positions, batch.mlm_labels, batch.image_id)
    assert all(tensor.dtype == torch.int64 for tensor in (*others, batch.caption_id))
    assert batch.mlm_positions.shape == batch.mlm_labels.shape == (0,)
