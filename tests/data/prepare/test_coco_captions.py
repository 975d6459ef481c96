"""COCO captions from the official annotations."""

from pathlib import Path

import pytest

from downloads import picture, prepare, records, write


def download(folder: Path, year: str, names: list[str]) -> Path:
    content = {
        "info": {"year": year},
        "licenses": [],
        "images": [{"license": 5, "file_name": name, "id": n, "height": 2} for n, name in enumerate(names)],
        "annotations": [
            {"image_id": n, "id": 10 * n + turn, "caption": f"Picture {n}, caption {turn}.\n"}
            for turn in (0, 1)
            for n in range(len(names))
        ],
    }
    write(folder / "annotations" / f"captions_train{year}.json", content)
    for name in names[:2]:
        picture(folder / f"train{year}" / name)
    return folder


@pytest.mark.parametrize("year", ["2014", "2017"])
def test_a_row_per_caption(tmp_path: Path, year: str) -> None:
    names = [f"COCO_train2014_{n:012d}.jpg" if year == "2014" else f"{n:012d}.jpg" for n in range(3)]
    source = download(tmp_path / "coco", year, names)
    out = prepare("coco-captions", source)
    found = records(out / "coco_captions.json", "pretrain", source)
    assert [record.captions[0] for record in found] == [
        f"Picture {n}, caption {turn}." for turn in (0, 1) for n in (0, 1)
    ]
    assert found[0].image_id == found[2].image_id != found[1].image_id
    assert (out / "missing.txt").read_text() == f"train{year}/{names[2]}\n"


def test_a_caption_of_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "coco"
    content = {"images": [], "annotations": [{"image_id": 3, "id": 1, "caption": "x"}]}
    file = write(source / "captions_train2017.json", content)
    (source / "train2017").mkdir()
    with pytest.raises(SystemExit, match="2"):
        prepare("coco-captions", source)
    expected = f'{file}, row 1 of "annotations": "image_id" is 3, but "images" has no such id.'
    assert expected in capsys.readouterr().err
