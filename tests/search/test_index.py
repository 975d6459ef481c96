"""The index: what is in it, what is skipped, when it is replaced."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import toy
from albef.cli import main
from albef.config import UserError
from albef.engine import Engine
from albef.manifest import verify
from albef.model.verbs import Encoding
from albef.model_directory import save_model
from albef.search.index import build_index, find_images, index_bytes, load_index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one of them deeper, with a broken one and other files between."""
    rng = np.random.default_rng(0)
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    for name in ("a.png", "c.png", "deep/d.JPG"):
        image = Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8))
        image.save(tmp_path / "pictures" / name)
    (tmp_path / "pictures" / "b.png").write_bytes(b"<html>not here</html>")
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    (tmp_path / "pictures" / ".hidden.png").write_text("no picture")
    return tmp_path / "pictures"


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_an_index_holds_features_and_tokens(
    engine: Engine, folder: Path, tmp_path: Path, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build_index(engine, [folder], tmp_path / "idx", batch_size=batch_size)
    files = [folder / name for name in ("a.png", "c.png", "deep/d.JPG")]
    for index in (built, load_index(tmp_path / "idx")):
        assert index.paths == tuple(files)
        assert len(index) == 3
        assert index.weights == engine.fingerprint
        assert index.num_skipped == 1
        assert index.features.dtype == np.float32
        assert index.tokens.dtype == np.float16
        np.testing.assert_allclose(index.features, engine.encode_images(files), atol=1e-5)
        (encoding,) = engine.image_encodings(files)
        np.testing.assert_allclose(index.tokens, encoding.tokens.numpy(), atol=2e-3, rtol=2e-3)
    assert isinstance(built.tokens, np.memmap)
    (skipped,) = (tmp_path / "idx" / "skipped.jsonl").read_text().splitlines()
    assert json.loads(skipped)["path"] == str(folder / "b.png")
    assert "HTML" in json.loads(skipped)["reason"]


def test_a_model_that_cannot_match_stores_no_tokens(folder: Path, tmp_path: Path) -> None:
    engine = toy.engine("contrast")
    built = build_index(engine, [folder], tmp_path / "idx")
    assert built.tokens is None
    assert load_index(tmp_path / "idx").tokens is None
    assert not (tmp_path / "idx" / "tokens.npy").exists()
    verify(tmp_path / "idx")
    np.testing.assert_allclose(built.features, engine.encode_images(built.paths), atol=1e-5)
    assert index_bytes(engine, 3) == built.features.nbytes


def test_an_index_without_tokens_does_not_excuse_lost_ones(
    engine: Engine, folder: Path, tmp_path: Path
) -> None:
    build_index(engine, [folder], tmp_path / "idx")
    (tmp_path / "idx" / "tokens.npy").unlink()
    with pytest.raises(UserError, match=r"cannot be read \(.*tokens\.npy.*Make it again"):
        load_index(tmp_path / "idx")


def test_an_older_index_says_nothing_of_its_tokens_and_has_them(
    engine: Engine, folder: Path, tmp_path: Path
) -> None:
    build_index(engine, [folder], tmp_path / "idx")
    facts = json.loads((tmp_path / "idx" / "index.json").read_text())
    assert facts.pop("has_tokens") is True
    (tmp_path / "idx" / "index.json").write_text(json.dumps(facts))
    (tmp_path / "idx" / "manifest.json").unlink()
    assert load_index(tmp_path / "idx").tokens.shape == (3, 5, 16)
    (tmp_path / "idx" / "index.json").write_text(json.dumps(facts | {"has_tokens": "no"}))
    with pytest.raises(UserError, match="Make it again"):
        load_index(tmp_path / "idx")


def test_the_size_is_that_of_the_encodings_not_of_a_grid(
    engine: Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model may have any number of places in an image."""
    encode = engine.model.encode_image

    def more_places(pixels: torch.Tensor) -> Encoding:
        encoding: Encoding = encode(pixels)
        return encoding._replace(tokens=encoding.tokens.repeat(1, 3, 1))

    monkeypatch.setattr(engine.model, "encode_image", more_places)
    built = build_index(engine, [folder], tmp_path / "idx", batch_size=2)
    assert built.tokens.shape == (3, 15, 16)
    assert index_bytes(engine, 3) == built.tokens.nbytes + built.features.nbytes


def test_a_model_without_features_makes_no_index(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no features to compare images with texts"):
        build_index(toy.engine("itm"), [folder], tmp_path / "idx")
    assert not (tmp_path / "idx").exists()


def test_files_and_folders_are_found_once(folder: Path) -> None:
    found, _ = find_images([folder / "c.png", folder, folder / "deep"])
    assert [path.name for path in found] == ["c.png", "a.png", "b.png", "d.JPG"]
    with pytest.raises(UserError, match="no such file"):
        find_images([folder / "absent.png"])
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="no images there"):
        find_images([folder / "empty"])


def test_an_index_is_replaced_by_a_whole_one_only(
    engine: Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "idx"
    build_index(engine, [folder], out)
    build_index(engine, [folder / "c.png"], out)
    assert [path.name for path in load_index(out).paths] == ["c.png"]

    def fail(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        build_index(engine, [folder], out)
    assert [path.name for path in load_index(out).paths] == ["c.png"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["idx", "pictures"]


def test_a_folder_of_pictures_is_never_replaced_by_an_index(engine: Engine, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError, match="would be overwritten"):
        build_index(engine, [folder], folder)
    assert sorted(folder.rglob("*")) == before


def test_nothing_readable_is_an_error_and_leaves_nothing(
    engine: Engine, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"None of the 1 files .*b\.png"):
        build_index(engine, [folder / "b.png"], tmp_path / "idx")
    assert not (tmp_path / "idx").exists()


def test_what_is_no_index_is_said_to_be_none(engine: Engine, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no index\.json"):
        load_index(folder)
    with pytest.raises(UserError, match=r"nowhere: no such folder\."):
        load_index(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"a\.png: is a file, but an index is a folder\."):
        load_index(folder / "a.png")
    out = tmp_path / "idx"
    build_index(engine, [folder], out)
    facts = json.loads((out / "index.json").read_text())
    for change in ({"format_version": 9}, {"paths": ["a.png"]}, {"paths": None}):
        (out / "index.json").write_text(json.dumps(facts | change))
        with pytest.raises(UserError, match="Make it again"):
            load_index(out)
    (out / "index.json").write_text(json.dumps(facts))
    (out / "tokens.npy").write_bytes((out / "tokens.npy").read_bytes()[:-7])
    with pytest.raises(UserError, match="Make it again"):
        load_index(out)


def test_what_is_left_out_is_listed(engine: Engine, folder: Path, tmp_path: Path) -> None:
    (folder / "2022").symlink_to("/not/mounted")
    (folder / ".Trash-1000").mkdir()
    (folder / "c.png").rename(folder / ".Trash-1000" / "c.png")
    files, left_out = find_images([folder])
    for built in (
        build_index(engine, files, tmp_path / "idx", left_out),
        build_index(engine, [folder], tmp_path / "idx"),
    ):
        assert [path.name for path in built.paths] == ["a.png", "d.JPG"]
        assert built.num_skipped == 1
        lines = [json.loads(line) for line in (tmp_path / "idx" / "skipped.jsonl").read_text().splitlines()]
        assert [line["path"] for line in lines] == [
            str(folder / name) for name in ("b.png", ".Trash-1000/c.png", "2022")
        ]
        assert lines[2]["reason"] == "left out: behind links that lead nowhere"


def test_names_that_are_not_utf8_are_indexed_found_and_printed(
    engine: Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = folder / os.fsdecode(b"caf\xe9.png")
    (folder / "a.png").rename(odd)
    save_model(tmp_path / "model", engine.model, engine.tokenizer, "")
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, "utf-8", errors="strict"))
    main(["index", str(tmp_path / "model"), str(folder), "--out", str(tmp_path / "idx")])
    main(["search", str(tmp_path / "idx"), "a fox"])
    sys.stdout.flush()
    assert odd in load_index(tmp_path / "idx").paths
    assert b"3 images indexed" in printed.getvalue()
    assert rb"caf\udce9.png" in b"".join(printed.getvalue().split())
