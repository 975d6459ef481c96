"""Public data sets of which the regions are there, and not the images."""

import json
import shlex
from pathlib import Path

import pytest

from albef.cli import main
from downloads import write
from toy_region_files import lxmert_row, uniter_arrays, uniter_database, uniter_record

SENTENCE = {"raw": "A man on a dirt road.", "tokens": []}


def karpathy(file: Path, *rows: dict[str, object]) -> None:
    write(file, {"images": [{"sentences": [SENTENCE]} | row for row in rows]})


def rows_of(file: Path) -> list[str]:
    return [row["image"] for row in json.loads(file.read_text())]


def test_coco_with_lxmerts_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [
        f"COCO_{year}_{number:012d}"
        for number, year in enumerate(["train2014", "val2014", "val2014", "val2014"])
    ]
    rows = [
        {"filename": f"{name}.jpg", "filepath": name.split("_")[1], "split": split, "cocoid": number}
        for number, (name, split) in enumerate(zip(names, ["train", "val", "test", "test"], strict=True))
    ]
    karpathy(tmp_path / "coco" / "dataset_coco.json", *rows)
    files = tmp_path / "mscoco_imgfeat"
    files.mkdir()
    (files / "train2014_obj36.tsv").write_bytes(lxmert_row(img_id=names[0]))
    (files / "val2014_obj36.tsv").write_bytes(lxmert_row(img_id=names[1]) + lxmert_row(img_id=names[3]))
    out, source = tmp_path / "out", tmp_path / "coco"
    main(["data", "prepare", "coco", "--from", str(source), "--regions", str(files), "--out", str(out)])
    assert rows_of(out / "coco_train.json") == [f"train2014/{names[0]}.jpg"]
    assert rows_of(out / "coco_test.json") == [f"val2014/{names[3]}.jpg"]
    assert (out / "missing.txt").read_text() == f"val2014/{names[2]}.jpg\n"
    printed = capsys.readouterr().out
    assert "1 images have no regions" in printed
    command = shlex.split(printed.splitlines()[-1])
    assert command[:3] == ["albef", "train", "RECIPE"]
    assert command[-1] == f"--data.regions={files}"


def test_flickr30k_with_uniters_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"filename": f"{number}.jpg", "split": split}
        for number, split in ((10, "train"), (11, "val"), (12, "test"))
    ]
    karpathy(tmp_path / "flickr" / "dataset_flickr30k.json", *rows)
    record = uniter_record(uniter_arrays())
    uniter_database(tmp_path / "feat", {f"flickr30k_{number:012d}.npz": record for number in (10, 11)})
    arguments = [
        "data",
        "prepare",
        "flickr30k",
        "--from",
        str(tmp_path / "flickr"),
        "--out",
        str(tmp_path / "out"),
    ]
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--regions", str(tmp_path / "feat")])
    assert "--regions has no regions of flickr30k-images/12.jpg, nor of any other" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--regions", str(tmp_path / "nothing")])
    assert "nothing does not exist; name a folder with an .npz" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "flickr30k-images or" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_statements_about_two_images(tmp_path: Path) -> None:
    for name in ("train", "dev", "test1"):
        identifier = f"{name}-7-0-1"
        row = {"identifier": identifier, "sentence": "Two dogs.", "label": "True", "directory": 3}
        write(tmp_path / "nlvr" / f"{name}.json", json.dumps(row))
    files = tmp_path / "nlvr2_imgfeat"
    files.mkdir()
    for name in ("train", "dev", "test1"):
        images = [lxmert_row(img_id=f"{name}-7-0-img{side}") for side in (0, 1)]
        (files / f"{name}_obj36.tsv").write_bytes(b"".join(images))
    out, source = tmp_path / "out", tmp_path / "nlvr"
    main(["data", "prepare", "nlvr2", "--from", str(source), "--regions", str(files), "--out", str(out)])
    (row,) = json.loads((out / "nlvr_train.json").read_text())
    assert row["images"] == ["images/train/3/train-7-0-img0.png", "images/train/3/train-7-0-img1.png"]
