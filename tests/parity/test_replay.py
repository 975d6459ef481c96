"""Golden files replay, and the tool notices what is off."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
import replay

import golden
from albef.model import layers

GOLDEN = Path(__file__).parent.parent / "golden"


FILES = sorted(
    file.name
    for file in GOLDEN.iterdir()
    if file.suffix in (".safetensors", ".json")
    and file.name != "text.json"
    and not file.name.endswith("-names.json")
)


@pytest.mark.parametrize("file", FILES)
def test_golden_file_replays(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    if file == "clip_text.json":
        pytest.importorskip("ftfy")
    assert replay.main([str(GOLDEN / file)]) == 0
    assert "0 beyond tolerance" in capsys.readouterr().out


# A file of each task, and one of another model.
WITH_TEXTS = (
    "pretrain_alpha0.4",
    "retrieval_distill1",
    "entailment",
    "nlvr",
    "text_assignment",
    "vqa",
    "clip_vit",
    "oscar_pretrain",
    "oscar_retrieval",
    "lxmert_pretrain",
    "lxmert_vqa",
    "lxmert_nlvr",
    "uniter_mlm",
    "uniter_itm_wra",
    "uniter_nlvr2_triplet",
    "uniter_nlvr2_paired_attn",
)


@pytest.mark.parametrize("file", WITH_TEXTS)
def test_golden_file_replays_where_padding_is_kept(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(layers, "packs", lambda device: bool(asked.append(device)))  # as on a GPU
    assert replay.main([str(GOLDEN / f"{file}.safetensors")]) == 0
    assert asked


def test_a_changed_number_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = GOLDEN / "pretrain_alpha0.4.safetensors"
    with safe_open(source, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(source)
    tensors["expect.loss_itm"] += 1e-3
    save_file(tensors, tmp_path / "off.safetensors", metadata=metadata)
    assert replay.main([str(tmp_path / "off.safetensors")]) == 1
    assert "BEYOND" in capsys.readouterr().out


def test_a_missing_tensor_is_beyond_tolerance() -> None:
    compared = list(golden.compare({}, {"absent": torch.zeros(2)}, golden.TIGHT))
    assert [golden.deviation(got, expected, t)[2] for _, got, expected, t in compared] == [False]


def test_nothing_compared_is_a_failure() -> None:
    assert replay.main([]) == 1
