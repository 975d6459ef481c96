"""CC3M, CC12M and SBU: lists of links, and what img2dataset downloaded of them."""

import json
import shutil
from pathlib import Path

import pytest

from albef.config import UserError
from albef.data.prepare.conceptual_captions import links
from albef.data.prepare.img2dataset import rows_of_links
from albef.data.prepare.writing import Files
from downloads import picture, prepare, records, write

LINKS = [
    ("a dog on the beach", "http://x.org/0.jpg"),
    ("two cars", "http://x.org/1.jpg"),
    ("a tree", "http://x.org/2"),
]


def download(folder: Path, beside: bool = False) -> None:
    """Links 0 and 2 came, with what img2dataset writes beside them."""
    for number in (0, 2):
        place = folder / "00000" / f"{number:09d}"
        picture(place.with_suffix(".jpg"))
        caption, url = LINKS[number]
        record = {"caption": caption, "url": url, "key": place.name, "status": "success", "width": 2}
        write(place.with_suffix(".json"), record)
        if beside:
            write(place.with_suffix(".txt"), caption)


def check(out: Path, name: str, source: Path) -> None:
    found = records(out / f"{name}.jsonl", "pretrain", source)
    assert [(record.image.name, record.captions[0]) for record in found] == [
        ("000000000.jpg", LINKS[0][0]),
        ("000000002.jpg", LINKS[2][0]),
    ]
    assert (out / "missing.txt").read_text().endswith("00000/000000001.jpg\n")


@pytest.mark.parametrize("header", ["", "caption\turl\n"])
def test_cc3m_table(tmp_path: Path, header: str) -> None:
    source = tmp_path / "cc"
    table = header + "".join(f"{caption}\t{url}\n" for caption, url in LINKS)
    write(source / "Train_GCC-training.tsv", table)
    download(source / "cc3m")
    check(prepare("cc3m", source), "cc3m", source)


def test_cc12m_table_has_the_link_first(tmp_path: Path) -> None:
    source = tmp_path / "cc"
    write(source / "cc12m.tsv", "".join(f"{url}\t{caption}\n" for caption, url in LINKS))
    download(source)
    check(prepare("cc12m", source), "cc12m", source)


def test_a_caption_that_begins_like_a_link_is_one(tmp_path: Path) -> None:
    table = write(tmp_path / "cc3m.tsv", "a dog\thttp://x.org/0\nhttp is a word\thttp://x.org/1\n")
    assert [caption for _, caption, _ in links(table)] == ["a dog", "http is a word"]


def test_sbu_in_two_text_files_or_one_json(tmp_path: Path) -> None:
    for source in (tmp_path / "text", tmp_path / "json"):
        download(source / "sbu")
    captions, urls = zip(*LINKS, strict=True)
    write(tmp_path / "text" / "SBU_captioned_photo_dataset_captions.txt", "\n".join(captions) + "\n")
    write(tmp_path / "text" / "SBU_captioned_photo_dataset_urls.txt", "\n".join(urls) + "\n")
    together = {"image_urls": urls, "user_ids": ["u"] * 3, "captions": captions}
    write(tmp_path / "json" / "sbu-captions-all.json", together)
    for source in (tmp_path / "text", tmp_path / "json"):
        check(prepare("sbu", source), "sbu", source)


@pytest.mark.parametrize("name", ["sbu", "cc3m", "cc12m"])
def test_without_a_list_the_captions_beside_the_pictures(tmp_path: Path, name: str) -> None:
    source = tmp_path / "folder"
    download(source / name, beside=True)
    write(source / name / "00000" / "000000001.txt", LINKS[1][0])  # its picture was lost
    check(prepare(name, source), name, source)


def test_pictures_of_another_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "cc"
    write(source / "cc12m.tsv", "".join(f"{url}\t{caption}\n" for caption, url in LINKS[1:]))
    download(source)
    with pytest.raises(SystemExit, match="2"):
        prepare("cc12m", source)
    error = capsys.readouterr().err
    assert "000000000.json: its image came from http://x.org/0.jpg" in error
    assert f"{source / 'cc12m.tsv'}, line 1 has http://x.org/1.jpg" in error


@pytest.mark.parametrize("lost", [0, 3, 9_998, 10_001])
def test_numbers_that_shift_are_found_wherever_they_do(tmp_path: Path, lost: int) -> None:
    """A list of which the downloader took two lines for one, before a picture in the middle of a folder."""
    names = [(f"caption {n}", f"http://x.org/{n}") for n in range(lost + 3)]
    downloaded = names[: lost + 1] + names[lost + 2 :]
    for number in {0, lost, lost + 1}:
        place = tmp_path / f"{number // 10_000:05d}" / f"{number:09d}"
        picture(place.with_suffix(".jpg"))
        write(place.with_suffix(".json"), {"url": downloaded[number][1]})
    table = [(f"list, line {n + 1}", *link) for n, link in enumerate(names)]
    rows = rows_of_links(table, Path("."), Files(tmp_path, tmp_path))
    message = rf"{lost + 1:09d}\.json: its image came from .*/{lost + 2}, but list, line {lost + 2} has .*/{lost + 1}"
    with pytest.raises(UserError, match=message):
        list(rows)


def test_pictures_that_do_not_say_their_link_are_counted_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "cc"
    write(source / "cc3m.tsv", "".join(f"{caption}\t{url}\n" for caption, url in LINKS))
    download(source)
    for content in (None, "", '{"caption": "x"}', "["):
        file = source / "00000" / "000000002.json"
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_text(content)
        out = prepare("cc3m", source)
        assert "1 of the images have no .json beside them" in capsys.readouterr().out
        assert len((out / "cc3m.jsonl").read_text().splitlines()) == 2
        shutil.rmtree(out)


def test_broken_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "cc"
    download(source)
    for name, file, content, message in (
        ("cc3m", "cc3m.tsv", "a dog\nx\n", "line 1: expected a caption, a tab and a URL, found 1 fields"),
        (
            "sbu",
            "sbu-captions-all.json",
            {"captions": ["a", "b"], "image_urls": [LINKS[0][1]]},
            "more captions than",
        ),
        (
            "sbu",
            "sbu-captions-all.json",
            {"captions": [1], "image_urls": ["x"]},
            'row 1 of "captions": must be a text',
        ),
    ):
        write(source / file, content)
        with pytest.raises(SystemExit, match="2"):
            prepare(name, source)
        assert message in capsys.readouterr().err


def test_a_table_is_a_stream(tmp_path: Path) -> None:
    """The first row comes before the second line has been read, so that no size is too large."""
    table = write(tmp_path / "cc12m.tsv", f"{LINKS[0][1]}\t{LINKS[0][0]}\nbroken\n")
    rows = rows_of_links(links(table), Path("."), Files(tmp_path, tmp_path))
    where, row = next(rows)
    assert where.endswith("line 1")
    assert json.dumps(row) == json.dumps({"image": "00000/000000000.jpg", "caption": LINKS[0][0]})


def test_names_go_on_in_the_next_folder(tmp_path: Path) -> None:
    many = (("x", "y", "z") for _ in range(10_001))
    *_, (_, last) = rows_of_links(many, Path("p"), Files(Path("nowhere"), tmp_path))
    assert last["image"] == "p/00001/000010000.jpg"
