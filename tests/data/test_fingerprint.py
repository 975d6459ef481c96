"""The fingerprint of data knows regions by the content of their files, wherever they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import toy_regions
from albef.config import DataConfig, UserError
from albef.data.fingerprint import PIECE_BYTES, PIECES, data_fingerprint, pieces, source_fingerprint


def fingerprint(regions: Path) -> str:
    return data_fingerprint(DataConfig(regions=str(regions)))


@pytest.mark.parametrize("kind", ["npz", "oscar", "oscar file", "lxmert", "uniter"])
def test_any_change_of_a_region_file_is_seen(kind: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "moved" / "there"
    toy_regions.write_images(here / "sub", 3)
    place = here
    if kind == "npz":
        changed = ["sub/1.npz"]
    elif kind == "lxmert":
        changed = [str(toy_regions.lxmert_tsv(here).relative_to(here))]
    elif kind == "uniter":
        toy_regions.uniter_lmdb(here)
        (here / "nbb_th0.2_max100_min10.json").write_text("{}")
        changed = ["feat_th0.2_max100_min10/data.mdb", "nbb_th0.2_max100_min10.json"]
    else:
        file = toy_regions.oscar_tsv(here)
        place = file if kind == "oscar file" else here
        changed = ["features.tsv", "predictions.tsv"]
    first = fingerprint(place)
    shutil.copytree(here, there)
    place = there / place.relative_to(here)
    assert fingerprint(place) == first
    for name in changed:
        content = (there / name).read_bytes()
        (there / name).write_bytes(
            content[:40] + bytes([content[40] ^ 1]) + content[41:] if len(content) > 40 else b"[]"
        )
        assert fingerprint(place) != first, name
        (there / name).write_bytes(content)
    assert fingerprint(place) == first


def test_without_regions_it_is_that_of_the_source() -> None:
    assert data_fingerprint(DataConfig()) == source_fingerprint(DataConfig()) == "pictograms"


def test_regions_that_are_nowhere_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.regions .*none does not exist"):
        fingerprint(tmp_path / "none")


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, 3 * PIECE_BYTES + 5, 100 * PIECE_BYTES + 1])
def test_pieces_begin_at_the_beginning_and_end_at_the_end(size: int, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(size)
    (tmp_path / "file").write_bytes(content)
    found = list(pieces(tmp_path / "file", size))
    assert len(found) <= PIECES
    assert content.startswith(found[0])
    assert content.endswith(found[-1])
    if size < PIECES * PIECE_BYTES:
        assert sum(map(len, found)) >= size  # nothing is left out
