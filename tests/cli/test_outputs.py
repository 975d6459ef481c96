"""Where results go: checked before the work, whole, unfolded, and quietly given up where nobody reads."""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toy
import toy_clip
import toy_lxmert
import toy_oscar
from albef.cli import main
from albef.data.text import Tokenizer
from albef.engine import Engine
from albef.errors import printable
from albef.model_directory import save_model
from commands import refused

RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    engine = toy.engine()
    save_model(tmp_path / "model", engine.model, engine.tokenizer, "")
    return tmp_path / "model"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        image = Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8))
        image.save(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture
def index(model: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    main(["index", str(model), str(photos), "--out", str(photos.parent / "idx")])
    capsys.readouterr()
    return photos.parent / "idx"


COMMANDS = {
    "evaluate --json": ["evaluate", "{model}", "--count", "4", "--json", "{out}"],
    "evaluate --results": ["evaluate", "{model}", "--results", "{out}"],
    "predict --json": ["predict", "match", "{model}", "{photo}", "a fox", "--json", "{out}"],
    "grounding --out": ["predict", "grounding", "{model}", "{photo}", "a fox", "--out", "{out}"],
    "search --out": ["search", "{index}", "a fox", "--out", "{out}"],
    "export": ["export", "{model}", "--official", "{out}"],
    "export --to": ["export", "{model}", "--to", "openai", "--out", "{out}"],
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("out", [".", "..", "{folder}", "", "{file}/x", "{file}/x/y", "x" * 300])
def test_a_place_where_no_file_can_go_is_refused_before_the_work(
    name: str,
    out: str,
    index: Path,
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(Engine, "load", work)
    monkeypatch.setattr("albef.exchange.held.held_by_run", work)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    place = out.format(folder=tmp_path, file=tmp_path / "file")
    known = {"model": model, "index": index, "photo": photos / "a.png", "out": place}
    before = sorted(tmp_path.rglob("*"))
    assert refused(capsys, *(part.format(**known) for part in COMMANDS[name])).startswith(
        f"albef: {place or '.'}: "
    )
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_a_stroke_at_the_end_means_a_folder(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"model": "m", "index": "i", "photo": "p", "out": f"{tmp_path}/new/"}
    with pytest.raises(SystemExit) as end:
        main([part.format(**known) for part in COMMANDS[name]])
    assert end.value.code == 2
    assert f"'{tmp_path}/new/' is a folder, but a file is written here" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["evaluate", "{model}", "--data", "{rows}", "--json", "{rows}"], "read by this command"),
        (["evaluate", "{model}", "--json", "{model}/config.json"], "a part of the folder that it is in"),
        (["evaluate", "{model}", "--json", "{new}", "--results", "{new}"], "named for another result"),
        (["predict", "grounding", "{model}", "{photo}", "a fox", "--out", "{photo}"], "read by this command"),
        (["predict", "retrieval", "{model}", "a fox", "{photo}", "--json", "{link}"], "read by this command"),
        (["search", "{index}", "{photo}", "--out", "{photo}"], "read by this command"),
        (
            ["search", "{index}", "a fox", "--json", "{index}/index.json"],
            "a part of the folder that it is in",
        ),
        (["search", "{index}", "a fox", "--json", "{new}", "--out", "{new}"], "named for another result"),
    ],
)
def test_what_is_read_is_never_written_over(
    command: list[str],
    reason: str,
    index: Path,
    model: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"image": "photos/a.png", "caption": "a fox"}]))
    (tmp_path / "link").symlink_to(photos / "a.png")
    known = {
        "model": model,
        "index": index,
        "photo": photos / "a.png",
        "link": tmp_path / "link",
        "rows": tmp_path / "rows.json",
        "new": tmp_path / "new",
    }
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert f"is {reason} and would be overwritten" in refused(
        capsys, *(part.format(**known) for part in command)
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


FOLDERS = {
    "index": ["index", "{model}", "{photos}", "--out", "{out}"],
    "import": ["import", "{photo}", "--out", "{out}"],
    "export of a folder": ["export", "{model}", "--to", "hugging-face", "--out", "{out}"],
    "export of an OSCAR": ["export", "{model}", "--to", "pytorch-transformers", "--out", "{out}"],
    "export of an LXMERT": ["export", "{model}", "--to", "hugging-face", "--out", "{out}"],
    "data export": ["data", "export", "pictograms", "--count", "2", "--out", "{out}"],
    "data prepare": ["data", "prepare", "coco", "--from", "{photos}", "--out", "{out}"],
}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("out", ["{file}", "{file}/x", "{full}", "/", "x" * 300])
def test_a_place_where_no_folder_can_go_is_refused_before_the_work(
    name: str,
    out: str,
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Engine, "load", lambda *_: pytest.fail("the work has begun"))
    monkeypatch.setattr(
        "albef.exchange.importing.open_published", lambda *_: pytest.fail("the work has begun")
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").touch()
    place = out.format(file=tmp_path / "file", full=tmp_path / "full")
    known = {"model": model, "photos": photos, "photo": photos / "a.png", "out": place}
    before = sorted(tmp_path.rglob("*"))
    assert refused(capsys, *(part.format(**known) for part in FOLDERS[name])).startswith(f"albef: {place}: ")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "name", [*COMMANDS, *(one for one in FOLDERS if "import" not in one and "prepare" not in one)]
)
def test_where_no_file_may_grow_every_command_says_so_and_leaves_nothing(
    name: str,
    index: Path,
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = (COMMANDS | FOLDERS)[name]
    rows = json.dumps(
        [{"image": str(photos / "a.png"), "question": "a fox?", "answer": "yes", "question_id": 1}]
    )
    if name == "evaluate --results":
        vqa = toy.engine("answer")
        save_model(tmp_path / "vqa", vqa.model, vqa.tokenizer, "", answers=["yes", "no"])
        (tmp_path / "rows.json").write_text(rows)
        model = tmp_path / "vqa"
        command = [*command, "--task", "vqa", "--data", str(tmp_path / "rows.json")]
    if "--to" in command:
        clip = toy_clip.engine()
        tokenizer = Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY)
        of_system = {
            "export of an OSCAR": (toy_oscar.model(), tokenizer),
            "export of an LXMERT": (toy_lxmert.model(), tokenizer),
        }
        save_model(tmp_path / "other", *of_system.get(name, (clip.model, clip.tokenizer)), "")
        model = tmp_path / "other"
    # `evaluate` keeps texts in a temporary file, which may not grow either.
    temporary = name == "evaluate --json"
    known = {
        "model": model,
        "index": index,
        "photo": photos / "a.png",
        "photos": photos,
        "out": tmp_path / "out",
    }
    before = sorted(tmp_path.rglob("*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        said = refused(capsys, *[part.format(**known) for part in command])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    what = f"{tempfile.gettempdir()}, where temporary files are" if temporary else str(tmp_path / "out")
    assert said.startswith(f"albef: {what}")
    assert ": can't be written: a file may not grow that large there" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_the_folder_that_one_stands_in_is_filled(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    main(["index", str(model), str(photos), "--out", "."])
    assert sorted(os.listdir()) == [
        "features.npy",
        "index.json",
        "manifest.json",
        "skipped.jsonl",
        "tokens.npy",
    ]
    main(["search", ".", "a fox"])
    assert (tmp_path / "new-search.png").is_file()
    main(["verify", "."])


# Commands whose standard output goes to where `argv[1]` says; what becomes of each is told by standard error.
UNREAD = """
import json, os, sys
from albef.cli import main
for arguments in json.loads(sys.argv[2]):
    if sys.argv[1] == "full":
        out = os.open("/dev/full", os.O_WRONLY)
    else:
        read, out = os.pipe()
        os.close(read)
    os.dup2(out, 1)
    sys.stdout = open(1, "w", closefd=False)
    try:
        main(arguments)
        code = 0
    except SystemExit as end:
        code = end.code
    print("status", code, file=sys.stderr)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
"""


def unread(output: str, *commands: Sequence[object]) -> list[str]:
    given = json.dumps([[str(word) for word in command] for command in commands])
    process = subprocess.run([sys.executable, "-c", UNREAD, output, given], text=True, stderr=subprocess.PIPE)
    assert process.returncode == 0, process.stderr
    return process.stderr.splitlines()


def test_a_closed_pipe_ends_quietly_and_the_figures_are_written(
    index: Path, model: Path, photos: Path, tmp_path: Path
) -> None:
    image = photos / "a.png"
    said = unread(
        "closed",
        ["search", index, "a fox"],
        ["search", index, "a fox", "--paths"],
        ["predict", "match", model, image, "a fox", "--json", tmp_path / "hits"],
        ["info", model, "--json"],
    )
    assert set(said) <= {"status 1", "status 141"}
    assert len(said) == 4
    assert json.loads((tmp_path / "hits").read_text())


def test_output_on_a_full_disk_is_a_sentence(index: Path, model: Path) -> None:
    said = unread("full", ["info", model, "--json"], ["search", index, "a fox"])
    sentence = (
        "albef: The output can't be written: the disk is full; make room on it, or choose another place."
    )
    assert said == [sentence, "status 2"] * 2


@pytest.mark.parametrize("name", ["evaluate --json", "predict --json", "search --json", "grounding --json"])
def test_a_dash_prints_the_json_alone(
    name: str,
    index: Path,
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    known = {"model": model, "index": index, "photo": photos / "a.png", "out": "-"}
    others = {
        "search --json": ["search", "{index}", "a fox", "--json", "{out}"],
        "grounding --json": ["predict", "grounding", "{model}", "{photo}", "a fox", "--json", "{out}"],
    }
    main([part.format(**known) for part in (COMMANDS | others)[name]])
    assert json.loads(capsys.readouterr().out)
    assert not Path("-").exists()


@pytest.mark.parametrize(
    "name", ["evaluate --results", "grounding --out", "search --out", "export", "export --to"]
)
def test_a_dash_is_no_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = {"model": "m", "index": "i", "photo": "p", "out": "-"}
    with pytest.raises(SystemExit):
        main([part.format(**known) for part in COMMANDS[name]])
    assert (
        "'-' means standard output, but this can only be written to a file; name one"
        in capsys.readouterr().err
    )


def test_nothing_is_folded_into_a_pipe(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["search", str(index), "a fox"])
    shown = capsys.readouterr().out
    for name in ("a.png", "b.png"):
        assert any(line.split()[-1:] == [str(tmp_path / "photos" / name)] for line in shown.splitlines())


def test_names_of_any_bytes_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xe9.idx")
    assert r"caf\udce9.idx: no such folder" in refused(capsys, *["search", str(tmp_path / name), "a fox"])
    assert printable(os.fsdecode(b"caf\xe9\n\x1b[31m ") + "é") == r"caf\udce9\n\x1b[31m é"


def test_stopping_says_what_is_kept(
    index: Path,
    model: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "track", stop)
    for out, kept in ((index, "is as it was before"), (index.with_name("new"), "was not written")):
        with pytest.raises(SystemExit) as end:
            main(["index", str(model), str(photos), "--out", str(out)])
        assert end.value.code == 130
        assert capsys.readouterr().err == f"albef: stopped. {out} {kept}.\n"
    main(["verify", str(index)])
