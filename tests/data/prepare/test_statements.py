"""SNLI-VE and NLVR2."""

from pathlib import Path

import pytest

from downloads import picture, prepare, records, write


def sentence(number: int, label: str, key: str) -> dict[str, object]:
    return {
        key: f"{number}" if key == "Flickr30K_ID" else f"{number}.jpg",
        "annotator_labels": [label],
        "captionID": f"{number}.jpg#2",
        "gold_label": label,
        "pairID": f"{number}.jpg#2r1n",
        "sentence1": "Two men.",
        "sentence2": f"The sentence of {number}.",
    }


@pytest.mark.parametrize("key", ["Flickr30K_ID", "Flikr30kID"])
def test_snli_ve(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "ve"
    for split in ("train", "dev", "test"):
        rows = [sentence(n, label, key) for n, label in ((7, "neutral"), (8, "entailment"), (9, "neutral"))]
        write(source / f"snli_ve_{split}.jsonl", rows)
    for n in (7, 8):
        picture(source / "flickr30k-images" / f"{n}.jpg")
    out = prepare("snli-ve", source)
    for split in ("train", "dev", "test"):
        found = records(out / f"ve_{split}.json", "entailment", source)
        assert [(record.image.name, record.captions[0], record.label) for record in found] == [
            ("7.jpg", "The sentence of 7.", 1),
            ("8.jpg", "The sentence of 8.", 2),
        ]
    assert (out / "missing.txt").read_text() == "flickr30k-images/9.jpg\n"
    file = write(source / "snli_ve_dev.jsonl", [sentence(7, "-", key)])
    out.rename(tmp_path / "before")
    with pytest.raises(SystemExit, match="2"):
        prepare("snli-ve", source)
    assert f'{file}, line 1: "label" is "-"; it must be one of contradiction' in capsys.readouterr().err


def test_annotations_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "ve"
    picture(source / "flickr30k-images" / "7.jpg")
    file = write(source / "snli_ve_train.jsonl", [sentence(7, "neutral", "Flickr30K_ID")])
    folder, latin, broken = ("cannot be read (Is a directory)", "not UTF-8 text", "line 2: broken JSON")
    for content, message in (
        (None, folder),
        (b'{"a": "caf\xe9"}', latin),
        (file.read_bytes() + b"{", broken),
    ):
        file.unlink()
        if content is None:
            file.mkdir()
        else:
            file.write_bytes(content)
        with pytest.raises(SystemExit, match="2"):
            prepare("snli-ve", source)
        error = capsys.readouterr().err
        assert str(file) in error
        assert message in error
        if content is None:
            file.rmdir()
            file.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["ve"]


def statement(identifier: str, **more: object) -> dict[str, object]:
    row = {
        "validation": {"47": "True"},
        "sentence": f"Two dogs: {identifier}.",
        "left_url": "http://x",
        "label": "True",
    }
    return row | {"identifier": identifier, "writer": "1", "synset": "dog", "query": "dogs1"} | more


def test_nlvr2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "nlvr2"
    train = [statement("train-10171-0-0", directory=97), statement("train-10171-1-0", directory=98)]
    dev = [statement("dev-850-0-0", label="False"), statement("dev-850-0-1")]
    for name, rows in (("train", train), ("dev", dev), ("test1", [statement("test1-0-1-0")])):
        file = write(source / "data" / f"{name}.jsonl", rows)
        file.rename(file.with_suffix(".json"))  # an object a line, under this name
    for name in ("train/97/train-10171-0", "dev/dev-850-0", "test1/test1-0-1"):
        for side in (0, 1):
            root = source if name.startswith("test1") else source / "images"
            picture(root / f"{name}-img{side}.png")
    picture(source / "images" / "train" / "98" / "train-10171-1-img0.png")  # its other picture is missing
    out = prepare("nlvr2", source)
    (first,) = records(out / "nlvr_train.json", "nlvr", source)
    assert first.image == source / "images/train/97/train-10171-0-img0.png"
    assert first.second_image == source / "images/train/97/train-10171-0-img1.png"
    found = records(out / "nlvr_dev.json", "nlvr", source)
    assert [(record.label, record.key) for record in found] == [(0, "dev-850-0-0"), (1, "dev-850-0-1")]
    assert records(out / "nlvr_test.json", "nlvr", source)[0].image.parent == source / "test1"
    assert not (out / "nlvr_test2.json").exists()
    assert (out / "missing.txt").read_text() == "images/train/98/train-10171-1-img1.png\n"
    out.rename(tmp_path / "before")
    for row, message in (
        (statement("dev-850-0"), '"identifier" is "dev-850-0"; it must be split-set-pair-sentence'),
        (statement("train-1-0-0"), 'the key "directory" is missing'),
        (statement("dev-850-0-0", label="yes"), '"label" is "yes"'),
    ):
        file = write(source / "data" / "dev.jsonl", [row])
        file.rename(file.with_suffix(".json"))
        with pytest.raises(SystemExit, match="2"):
            prepare("nlvr2", source)
        error = capsys.readouterr().err
        assert "dev.json, line 1: " in error
        assert message in error


@pytest.mark.parametrize("there", ["annotations and images", "annotations"])
def test_the_second_test_set_of_nlvr2_is_written_where_its_images_are(tmp_path: Path, there: str) -> None:
    source = tmp_path / "nlvr2"
    for name, more in (("train", {"directory": 0}), ("dev", {}), ("test1", {}), ("test2", {})):
        file = write(source / "data" / f"{name}.jsonl", [statement(f"{name}-0-0-0", **more)])
        file.rename(file.with_suffix(".json"))
        if name != "test2" or "images" in there:
            for side in (0, 1):
                folder = source / "images" / name / ("0" if more else "")
                picture(folder / f"{name}-0-0-img{side}.png")
    out = prepare("nlvr2", source)
    assert (out / "nlvr_test2.json").exists() == ("images" in there)
    if "images" in there:
        (found,) = records(out / "nlvr_test2.json", "nlvr", source)
        assert found.key == "test2-0-0-0"
    assert not (out / "missing.txt").exists()
