"""Commands with systems that see regions: what is wrong with regions is said in a sentence, with exit status 2."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import toy
import toy_region_files
import toy_regions
from albef.cli import main
from albef.config import TaskName
from albef.model_config import SystemName
from albef.model_directory import save_model
from albef.recipe import dump_config, load_recipe
from albef.run import prepare, run
from albef.train.loop import train
from toy_regions import lxmert_tsv, oscar_tsv, uniter_lmdb

Break = Callable[[Path], object]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one sentence that a command ends with."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert len([line for line in said if line.startswith("albef: ")]) == 1
    return said[-1]


def written_recipe(system: SystemName, task: TaskName) -> Path:
    """A recipe in the current folder, with its images and their regions in the folder data."""
    data = toy_regions.write_data(Path("data"), task)
    Path("recipe.yaml").write_text(dump_config(toy_regions.config(system, task, data)))
    return Path("recipe.yaml")


def with_arrays(**changed: np.ndarray | None) -> Break:
    """Every .npz with other arrays, or without them."""

    def broken(data: Path) -> None:
        for number in range(8):
            arrays = {**toy_regions.regions(number, 2), **changed}
            kept = {name: array for name, array in arrays.items() if array is not None}
            np.savez(data / f"{number}.npz", **kept)

    return broken


def without_regions(data: Path) -> None:
    for file in data.glob("*.npz"):
        file.unlink()


def replaced(written: Callable[[Path], Path], name: str, old: bytes, new: bytes) -> Break:
    """Published files, in one of which something is replaced everywhere."""

    def broken(data: Path) -> None:
        without_regions(data)
        written(data)
        file = data / name
        assert old in file.read_bytes()
        file.write_bytes(file.read_bytes().replace(old, new))

    return broken


def other_records(data: Path) -> None:
    without_regions(data)
    toy_region_files.uniter_database(
        data / "feat_th0.2_max100_min10", {f"{number}.npz": b"\xc0\x01" for number in range(8)}
    )


def cut_database(data: Path) -> None:
    without_regions(data)
    file = uniter_lmdb(data) / "data.mdb"
    file.write_bytes(file.read_bytes()[:8192])


def no_labels(data: Path) -> None:
    without_regions(data)
    oscar_tsv(data)
    (data / "predictions.tsv").unlink()


def half_of_an_index(data: Path) -> None:
    without_regions(data)
    oscar_tsv(data)
    lines = (data / "features.lineidx").read_text().splitlines()
    (data / "features.lineidx").write_text("\n".join(lines[:4]) + "\n")


def shifted_index(data: Path) -> None:
    without_regions(data)
    oscar_tsv(data)
    (data / "predictions.lineidx").write_text("5\n")


def nothing(data: Path) -> None:
    pass


BOXES = np.array([[0.1, 0.1, 0.5, 0.5], [0.2, 0.2, 1.5, 0.9]], np.float32)
NOT_FINITE = np.array([[0.1, 0.1, np.nan, 0.5], [0.2, 0.2, 0.5, 0.9]], np.float32)
EXCHANGED = np.array([[0.5, 0.1, 0.1, 0.5], [0.2, 0.2, 0.5, 0.9]], np.float32)
SIZES = ["--data.regions=data"]


@pytest.mark.parametrize(
    ("system", "broken", "settings", "said"),
    [
        ("lxmert", without_regions, [], r"\d\.png: has no regions: there is no .*\d\.npz\. Make one"),
        (
            "uniter",
            nothing,
            ["--data.regions=nowhere"],
            r"data\.regions \(--regions\): nowhere does not exist; name a folder",
        ),
        (
            "uniter",
            without_regions,
            SIZES,
            r"data\.regions \(--regions\): data holds no regions of a known kind; name a folder",
        ),
        (
            "oscar",
            nothing,
            ["--model.region_width=7"],
            r"\d\.npz: .* are 6 numbers wide, .* takes 7; set model",
        ),
        ("oscar", with_arrays(boxes=BOXES), [], r"\d\.npz: a box reaches out of its image \(0.1 to 1.5\)"),
        ("oscar", with_arrays(boxes=NOT_FINITE), [], r"\d\.npz: boxes holds a number that is not finite"),
        ("oscar", with_arrays(boxes=EXCHANGED), [], r"\d\.npz: a box ends before it begins"),
        (
            "lxmert",
            replaced(lxmert_tsv, "val_obj36.tsv", b"A", b"!"),
            SIZES,
            r"obj36\.tsv, image \d: \w+ is not an array in base64; the file is damaged, get it again",
        ),
        ("uniter", other_records, SIZES, r"min10, \d\.npz: the record cannot be read as msgpack"),
        ("uniter", cut_database, SIZES, r"min10: data\.mdb is cut short at 8,192 of .* get it again"),
        ("oscar", no_labels, SIZES, r"features\.tsv: there is no predictions\.tsv .* get the labels too"),
        ("oscar", half_of_an_index, SIZES, r"features\.lineidx: does not fit features\.tsv beside it"),
        ("oscar", shifted_index, SIZES, r"predictions\.lineidx: does not fit predictions\.tsv beside it"),
        ("oscar", with_arrays(tags=np.array(["x" * 10_000, "y"])), [], r"\d\.npz: its tags have 10,001 char"),
        ("oscar", with_arrays(tags=None), [], r"\d\.png: its regions have no tags, .* system oscar learns"),
        (
            "lxmert",
            with_arrays(object_ids=None),
            [],
            r"\d\.png: its regions have no object_ids, .* make them",
        ),
        (
            "lxmert",
            with_arrays(attribute_confidences=None),
            [],
            r"\d\.png: its regions have no attribute_confidences",
        ),
        (
            "lxmert",
            with_arrays(object_ids=np.array([1, 9])),
            [],
            r"\d\.png: object_ids holds 9, but model\.num_objects is 9 .* set model\.num_objects",
        ),
        (
            "lxmert",
            nothing,
            ["--model.num_attributes=1"],
            r"\d\.png: attribute_ids holds \d, but model\.num_at",
        ),
        (
            "uniter",
            nothing,
            ["--model.num_objects=8"],
            r"\d\.png: classes has 9 probabilities .* model\.num_objects is 8; set",
        ),
    ],
)
def test_training_on_bad_regions_ends_with_a_sentence(
    system: SystemName,
    broken: Break,
    settings: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = written_recipe(system, "pretrain")
    broken(Path("data"))
    found = refused(capsys, "train", recipe, "--out", "run", *settings)
    assert re.search(said, found), found
    assert not list(Path("run").glob("checkpoints/step-*"))


def test_an_image_without_regions_is_listed_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = toy_regions.config("uniter", "retrieval", toy_regions.write_data(Path("data"), "retrieval"), 4)
    Path("data/3.npz").unlink()
    train(prepare(config, Path("run")), Path("run"))
    (line,) = Path("run/bad_samples.jsonl").read_text().splitlines()
    assert "data/3.png: has no regions" in json.loads(line)["reason"]


@pytest.mark.parametrize("system", toy_regions.SYSTEM_NAMES)
def test_a_model_of_another_system_is_no_start(
    system: SystemName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe, engine = written_recipe(system, "vqa"), toy.engine()
    save_model(Path("other"), engine.model, engine.tokenizer, "")
    found = refused(capsys, "train", recipe, "--out", "run", "--init", "other")
    assert (
        f"other: is a model of system albef, but the recipe's model.system is {system}. Start from" in found
    )
    assert not Path("run/config.yaml").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, the run of an OSCAR on regions elsewhere, and a model of system albef."""
    home = tmp_path_factory.mktemp("home")
    data = toy_regions.write_data(home / "data", "retrieval")
    without_regions(home / "data")
    (home / "regions").mkdir()
    config = toy_regions.config("oscar", "retrieval", data)
    regions = str(oscar_tsv(home / "regions").parent)
    run(
        dataclasses.replace(config, data=dataclasses.replace(config.data, regions=regions)),
        home / "run",
        report=False,
    )
    engine = toy.engine()
    save_model(home / "albef", engine.model, engine.tokenizer, "")
    return home


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("index {model} data --out index", "for itm. It has no features to compare images with texts: use a"),
        (
            "predict match {model} data/1.png fox",
            r"data/1\.png: has no regions: there is no data/1\.npz\. Make",
        ),
        ("predict retrieval {model} fox data/1.png data/2.png", r"data/1\.png: has no regions: there is"),
        ("predict grounding {model} data/1.png fox", "Its system, oscar, has no maps of where"),
        ("predict match {model} data/1.png fox --regions data", "data holds no regions of a known kind"),
        ("predict match albef data/1.png fox --regions regions", "system albef sees pixels: leave them out"),
        ("evaluate {model} --data data/retrieval.json --regions none", "none does not exist; name a folder"),
        ("search index fox --rerank-with {model}", "trained for itm, but re-ranking needs ITC and ITM"),
        ("export {model} --to hugging-face --out out", "oscar"),
    ],
)
def test_what_a_region_model_cannot_do_is_said(
    trained: Path,
    command: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(trained)
    if "search" in command:
        main(["index", "albef", "data", "--out", "index"])
        capsys.readouterr()
    found = refused(capsys, *command.format(model="run").split())
    assert re.search(said, found), found
    assert not Path("out").exists()


def test_the_other_commands_know_region_runs(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    main(["predict", "match", "run", "data/1.png", "a fox", "--regions", "regions", "--json", "-"])
    assert 0 < json.loads(capsys.readouterr().out)["match"] < 1
    main(["evaluate", "run", "--json", str(tmp_path / "metrics.json")])
    assert json.loads((tmp_path / "metrics.json").read_text())["data/pictures"] == 8
    capsys.readouterr()
    main(["info", "run", "--json"])
    assert json.loads(capsys.readouterr().out)["heads"]
    main(["runs", "."])
    assert "finished" in capsys.readouterr().out
    main(["verify", "run"])
    assert "undamaged" in capsys.readouterr().out
    main(["export", "run", "--to", "pytorch-transformers", "--out", str(tmp_path / "out")])
    assert (tmp_path / "out").is_dir()


def test_a_region_run_goes_on_with_moved_files_but_not_with_others(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.copytree(trained / "regions", tmp_path / "elsewhere")
    moved = f"--data.regions={tmp_path / 'elsewhere'}"
    config = load_recipe(tmp_path / "run" / "config.yaml", [moved])
    prepare(config, tmp_path / "run")
    labels = tmp_path / "elsewhere" / "predictions.tsv"
    labels.write_bytes(labels.read_bytes().replace(b"fox", b"dog"))
    found = refused(capsys, "train", "--resume", tmp_path / "run", moved)
    assert "holds a run with other settings (the content of the data: " in found
    prepare(config, tmp_path / "run", allow_changes=True)
    assert '"the content of the data"' in (tmp_path / "run" / "changes.jsonl").read_text()
    shutil.rmtree(tmp_path / "elsewhere")
    assert "elsewhere does not exist; name" in refused(capsys, "train", "--resume", tmp_path / "run", moved)
