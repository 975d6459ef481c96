"""Synthetic checkpoints of UNITER, OSCAR and LXMERT at full size, in and out by command: `make test-full-size`.

Outside of the default run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from peaks import TORCH_BYTES, run
from safetensors.torch import load_file, save_file
from torch import Tensor

from albef.config import SIZES
from albef.data.text import SPECIALS
from albef.systems import SYSTEMS

GOLDEN = Path(__file__).parent.parent / "golden"
TIED = {
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "feat_regress.weight": "uniter.img_embeddings.img_linear.weight",
}


def published() -> dict[str, dict[str, list[int]]]:
    """Names and shapes of pre-trained models, by "system/kind". Other kinds differ in their heads alone."""
    found = {"uniter/pretraining": names_in("uniter")["pretraining"]}
    found |= {kind: names_in("oscar")[kind] for kind in ("oscar/pretraining", "oscar/pretraining_plus")}
    found |= {kind: names_in("lxmert")[kind] for kind in ("lxmert/pretraining", "hf/lxmert-pretraining")}
    for size in ("uniter-large", "oscar-large"):
        config = SIZES[size]
        system = SYSTEMS[config.system]
        with torch.device("meta"):
            state = system.published(system.model(config, system.heads).state_dict(), config)
        found[f"{config.system}/{size}"] = {name: list(tensor.shape) for name, tensor in state.items()}
    return found


def names_in(system: str) -> dict[str, dict[str, list[int]]]:
    return json.loads((GOLDEN / f"{system}-names.json").read_text())


PUBLISHED = published()


def synthetic(names: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """Random values under the published names, tied names being one tensor."""
    draws = torch.Generator().manual_seed(0)
    state = {
        name: torch.empty(shape).normal_(std=0.02, generator=draws)
        for name, shape in names.items()
        if name not in TIED
    }
    for name in names:
        if name in TIED:
            state[name] = next(tensor for first, tensor in state.items() if first.endswith(TIED[name]))
    return state


def written(folder: Path, kind: str, state: dict[str, Tensor]) -> tuple[Path, list[str]]:
    """The file or folder as it was published, and what `albef import` must be told."""
    system = kind.partition("/")[0]
    place = folder / "published"
    place.mkdir()
    if system == "uniter":
        torch.save(state, place / "model.pt")
        pieces = [*SPECIALS, *(f"piece{number}" for number in range(28_996 - len(SPECIALS)))]
        (place / "vocab.txt").write_text("\n".join(pieces) + "\n")
        return place / "model.pt", ["--tokenizer", str(place / "vocab.txt")]
    if system == "oscar":
        torch.save(state, place / "pytorch_model.bin")
        (place / "config.json").write_text(json.dumps({"img_feature_dim": 2054, "num_attention_heads": 16}))
        if "large" not in kind:
            (place / "config.json").write_text(
                json.dumps({"img_feature_dim": 2054, "num_attention_heads": 12})
            )
        return place, []
    if system == "hf":
        save_file(
            {name: tensor for name, tensor in state.items() if name not in TIED}, place / "model.safetensors"
        )
        return place, []
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, place / "model_LXRT.pth")
    return place / "model_LXRT.pth", []


@pytest.mark.parametrize("kind", PUBLISHED)
def test_in_and_out(kind: str, folder: Path) -> None:
    names = PUBLISHED[kind]
    state = synthetic(names)
    place, told = written(folder, kind, state)
    model, out = folder / "model", folder / "out"
    system, to_folder = kind.partition("/")[0], {"oscar": "pytorch-transformers", "hf": "hugging-face"}
    form = ["--to", to_folder[system], "--out"] if system in to_folder else ["--official"]
    peaks = {
        "import": run("import", str(place), "--out", str(model), *told),
        "export": run("export", str(model), *form, str(out)),
    }
    size = 4 * sum(tensor.numel() for name, tensor in state.items() if name not in TIED)
    print(f"\n{kind}: {size / 1e6:,.0f} MB")
    for command, peak in peaks.items():
        print(
            f"{command}: peak {peak.resident / 1e6:,.0f} MB resident, {peak.anonymous / 1e6:,.0f} MB of it not of a "
            f"file; {peak.seconds:.0f} s"
        )
    back = read(out, system)
    assert {name: list(tensor.shape) for name, tensor in back.items()} == {
        name: shape for name, shape in names.items() if system != "hf" or name not in TIED
    }
    assert all(torch.equal(tensor, state[name]) for name, tensor in back.items())
    assert max(peak.anonymous for peak in peaks.values()) <= TORCH_BYTES


def read(out: Path, system: str) -> dict[str, Tensor]:
    """The tensors that were written, without what LXMERT's scripts expect before the names."""
    if system == "hf":
        return load_file(out / "model.safetensors")
    file = out / "pytorch_model.bin" if system == "oscar" else out
    found = torch.load(file, weights_only=True, mmap=True)
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}
