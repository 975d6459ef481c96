"""Files of weights: every kind gives its tensors, none runs code, and what can't be read is told in a sentence."""

import random
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from albef.config import UserError
from albef.train.weights_file import find_weights, read_weights, with_linear_weights, with_positions

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


class Command:
    """What a malicious pickle holds."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("wrapped", [dict, lambda s: {"model": s}, lambda s: {"state_dict": s, "epoch": 3}])
@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_files_bare_and_wrapped(tmp_path: Path, wrapped, zipped: bool) -> None:
    torch.save(wrapped(STATE), tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert same(read_weights(tmp_path / "a.pth"))


def test_a_folder_gives_its_safetensors_first(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "pytorch_model.bin")
    assert find_weights(str(tmp_path), "train.init_text").name == "pytorch_model.bin"
    save_file(STATE, tmp_path / "model.safetensors")
    file = find_weights(str(tmp_path), "train.init_text")
    assert file.name == "model.safetensors"
    assert same(read_weights(file))
    assert find_weights(str(file), "train.init_text") == file


def test_a_folder_with_one_file_of_another_name_will_do(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "vit.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert find_weights(str(tmp_path), "train.init_image").name == "vit.safetensors"
    save_file(STATE, tmp_path / "other.safetensors")
    with pytest.raises(
        UserError, match=r"train.init_image: .*other.safetensors, vit.safetensors.*Name the file"
    ):
        find_weights(str(tmp_path), "train.init_image")


def test_nothing_there_is_told_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"train.init_text: .*neither a file nor a folder\. albef does not download"
    ):
        find_weights(str(tmp_path / "bert-base-uncased"), "train.init_text")
    with pytest.raises(UserError, match=r"its files of weights: none"):
        find_weights(str(tmp_path), "train.init_text")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    torch.save({"a": Command(proof)}, tmp_path / "bad.bin")
    with pytest.raises(UserError, match="would run code"):
        read_weights(tmp_path / "bad.bin")
    assert not proof.exists()


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin", "a.pth"])
def test_a_file_cut_off_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name == "a.safetensors":
        save_file(STATE, file)
    else:
        torch.save(STATE, file)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"a\.\w+: (cannot be read as|not a PyTorch file)"):
        read_weights(file)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"a\.\w+: (cannot be read as|not a PyTorch file)"):
            read_weights(tmp_path / name)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="holds no named tensors"):
        read_weights(tmp_path / "a.pth")


def test_onnx_asks_for_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="pip install onnx"):
        read_weights(tmp_path / "a.onnx")


class Node:
    """What of an ONNX graph's node the names are found by."""

    def __init__(self, op_type: str, inputs: list[str], output: str) -> None:
        self.op_type, self.input, self.output = op_type, inputs, [output]


def test_numbered_factors_get_the_name_of_their_bias() -> None:
    state = {
        "a.bias": torch.ones(2),
        "onnx::MatMul_7": STATE["a.weight"].T,
        "onnx::MatMul_8": torch.ones(2, 2),
    }
    nodes = [
        Node("MatMul", ["x", "onnx::MatMul_7"], "y"),
        Node("Add", ["a.bias", "y"], "z"),
        Node("MatMul", ["z", "onnx::MatMul_8"], "u"),
        Node("Add", ["u", "z"], "v"),
    ]
    found = with_linear_weights(state, nodes)
    assert set(found) == {"a.bias", "a.weight", "onnx::MatMul_8"}
    assert torch.equal(found["a.weight"], STATE["a.weight"])


def test_positions_cut_in_two_are_joined() -> None:
    first, patches = torch.zeros(1, 1, 3), torch.ones(1, 4, 3)
    state = {"vit.cls_token": torch.full((1, 1, 3), 2.0), "onnx::Concat_1": first, "onnx::Reshape_2": patches}
    nodes = [Node("Reshape", ["onnx::Reshape_2", "s"], "r"), Node("Concat", ["onnx::Concat_1", "r"], "p")]
    found = with_positions(state, nodes)
    assert set(found) == {"vit.cls_token", "vit.position_embeddings"}
    assert torch.equal(found["vit.position_embeddings"], torch.cat([first, patches], 1))


@pytest.mark.parametrize("zipped", [True, False])
def test_whatever_a_reader_raises_on_odd_bytes_is_told_in_a_sentence(tmp_path: Path, zipped: bool) -> None:
    file = tmp_path / "a.pt"
    torch.save({"model": STATE}, file, _use_new_zipfile_serialization=zipped)
    sound = file.read_bytes()
    said = []
    for number in range(400):
        draw = random.Random(number)
        content = bytearray(sound)
        if number % 2:
            content = content[: draw.randrange(len(content))]
        for _ in range(draw.randrange(4)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        file.write_bytes(content)
        try:
            read_weights(file)
        except UserError as error:
            said.append(str(error))
    assert len(said) > 200
    assert all(text.startswith(f"{file}: ") and "\n" not in text for text in said)
