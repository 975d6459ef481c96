"""Files written tensor by tensor are read by the library of the format."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from albef.exchange.stream import TYPES, Place, write_tensors

SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=5)


@given(shapes=SHAPES, dtypes=st.lists(st.sampled_from(list(TYPES)), min_size=5, max_size=5))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], dtypes: list[torch.dtype]
) -> None:
    file = Path(tmp_path_factory.mktemp("stream")) / "a.safetensors"
    tensors = {
        f"tensor {number}": torch.randint(-9, 9, shape).to(dtype)
        for number, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=False))
    }
    places = {name: Place(tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    write_tensors(file, places, iter(tensors.values()))
    read = load_file(file)
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_transposed_tensors_are_written_in_their_own_order(tmp_path: Path) -> None:
    tensor = torch.arange(6).reshape(2, 3).T
    write_tensors(tmp_path / "a.safetensors", {"a": Place(tensor.dtype, tensor.shape)}, [tensor])
    assert torch.equal(load_file(tmp_path / "a.safetensors")["a"], tensor)
