"""Synthetic checkpoints of full size in and out, with their peak memory: `make test-full-size`.

ALBEF.pth (1.8 GB) takes at most 1.3 times its size. OpenAI's ViT-B-32.pt (354 MB) is held once.

Outside of the default run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from peaks import TORCH_BYTES, run
from safetensors.torch import load_file

from albef.exchange.torchscript import read_torchscript

NAMES = json.loads((Path(__file__).parent.parent / "golden" / "official-names.json").read_text())["pretrain"]
CLIP_NAMES = json.loads((Path(__file__).parent.parent / "golden" / "clip-names.json").read_text())[
    "clip/ViT-B-32"
]
LIMIT = 1.3  # times the file


def synthetic() -> dict[str, torch.Tensor]:
    """The published names and shapes with random values, tied names being one tensor."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = {}
    for name, shape in NAMES.items():
        root, tied, kind = name.partition("cls.predictions.decoder.")
        first = "bert.embeddings.word_embeddings.weight" if kind == "weight" else "cls.predictions.bias"
        if tied:
            state[name] = state[root + first]
        elif name.endswith("position_ids"):
            state[name] = torch.arange(shape[1])[None]
        elif name == "queue_ptr":
            state[name] = torch.zeros(1, dtype=torch.long)
        else:
            state[name] = torch.empty(shape).normal_(std=0.02, generator=generator)
    return state


def test_the_published_pre_trained_file_goes_in_and_out(folder: Path) -> None:
    file, model, back = folder / "ALBEF.pth", folder / "model", folder / "back.pth"
    # In a process of its own, so that this one stays small.
    script = "import torch, sys; from test_full_size_checkpoint import synthetic; "
    script += "torch.save({'model': synthetic(), 'epoch': 29}, sys.argv[1])"
    subprocess.run([sys.executable, "-c", script, str(file)], cwd=Path(__file__).parent, check=True)
    size = file.stat().st_size
    peaks = {
        "import": run("import", str(file), "--out", str(model)),
        "export": run("export", str(model), "--official", str(back)),
    }
    print(f"\n{file.name}: {size / 1e9:.2f} GB, exported {back.stat().st_size / 1e9:.2f} GB")
    for name, peak in peaks.items():
        print(
            f"{name}: peak {peak.resident / 1e9:.2f} GB resident ({peak.resident / size:.2f} × the file), "
            f"of which at most {peak.anonymous / 1e9:.2f} GB are not pages of a file; {peak.seconds:.0f} s"
        )
    before = torch.load(file, weights_only=True, mmap=True)["model"]
    after = torch.load(back, weights_only=True, mmap=True)["model"]
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    for peak in peaks.values():
        assert peak.resident <= LIMIT * size


def test_openai_s_archive_goes_in_and_out(folder: Path) -> None:
    file, model, again = folder / "ViT-B-32.pt", folder / "model", folder / "again"
    script = "import sys, toy_openai; from pathlib import Path; from albef.config import SIZES; "
    script += "toy_openai.C = SIZES['clip-vit-b-32']; "
    script += "toy_openai.save(toy_openai.halved(toy_openai.published()), Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, str(file)], cwd=Path(__file__).parent.parent, check=True)
    size, peaks = file.stat().st_size, {"import": run("import", str(file), "--out", str(model))}
    for form in ("open-clip", "hugging-face"):
        peaks[form] = run("export", str(model), "--to", form, "--out", str(folder / form))
    for name, peak in peaks.items():
        print(f"{name}: peak {peak.resident / 1e6:,.0f} MB, {peak.anonymous / 1e6:,.0f} not of a file")
    published = read_torchscript(file)
    written = load_file(folder / "open-clip" / "open_clip_model.safetensors")
    assert {name: list(tensor.shape) for name, tensor in written.items()} == CLIP_NAMES
    assert all(torch.equal(tensor, published[name].float()) for name, tensor in written.items())
    run("import", str(folder / "hugging-face"), "--out", str(again))
    first, second = (load_file(place / "model.safetensors") for place in (model, again))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert peaks["import"].anonymous <= size + TORCH_BYTES
    assert max(peaks[form].anonymous for form in ("open-clip", "hugging-face")) <= TORCH_BYTES
