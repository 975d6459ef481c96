"""What all sets share: where files are looked for, missing pictures, all or nothing."""

import shlex
from pathlib import Path

import pytest

from albef.cli import main
from albef.config import UserError
from albef.data.prepare import NAMES
from albef.data.prepare.reading import DEPTH, find, search
from albef.data.prepare.sets import SETS
from albef.data.prepare.writing import Files, Training
from albef.recipe import load_recipe
from downloads import picture, prepare, records, write

RECIPES = Path(__file__).parents[3] / "recipes"


def test_the_command_line_knows_every_set() -> None:
    assert tuple(SETS) == NAMES


def test_the_nearest_of_a_name_is_found(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    write(deep / "x.json", [])
    assert len(deep.relative_to(tmp_path).parts) == DEPTH
    assert search(tmp_path, "x.json") == deep / "x.json"
    write(tmp_path / "b" / "x.json", [])
    assert search(tmp_path, "x.json") == tmp_path / "b" / "x.json"
    assert search(tmp_path, "c/x.json") == deep / "x.json"
    write(tmp_path / "00000" / "y.json", [])  # one of many thousands that are only numbered
    assert search(tmp_path, "y.json") is None
    with pytest.raises(UserError, match=r"y\.json or z\.json is neither here nor .* part of Y 2014"):
        find(tmp_path, "y.json", "z.json", origin="Y 2014")


def rows(*images: str):
    return ((f"row {number}", {"image": image, "caption": "x"}) for number, image in enumerate(images))


def test_missing_pictures_are_listed_once(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "folder.png").mkdir()
    files = Files(tmp_path, tmp_path)
    files.rows("x.jsonl", "pretrain", rows("a.png", "b.png", "b.png", "folder.png"))
    files.rows("y.json", "pretrain", rows("b.png", "a.png"))
    assert [(file.rows, file.left_out) for file in files.written] == [(1, 3), (1, 1)]
    assert files.missing == 2
    assert (tmp_path / "missing.txt").read_text() == "b.png\nfolder.png\n"


def test_no_picture_at_all_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"/b\.png: is not there, nor any .* 2 rows of x\.json.*correct --from"
    ):
        Files(tmp_path, tmp_path).rows("x.json", "pretrain", rows("b.png", "c.png"))
    with pytest.raises(UserError, match="annotations of this split are empty"):
        Files(tmp_path, tmp_path).rows("x.json", "pretrain", rows())


def test_a_row_that_the_reader_would_refuse_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='row 7: the key "caption" is missing'):
        Files(tmp_path, tmp_path).rows("x.json", "pretrain", [("row 7", {"image": "a.png"})])


def test_half_a_surrogate_pair_does_not_spoil_the_file(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = [("row 1", {"image": "a.png", "caption": "a dog \ud83d"})]
    Files(tmp_path, tmp_path).rows("x.json", "pretrain", rows)
    assert records(tmp_path / "x.json", "pretrain", tmp_path)[0].captions == ("a dog ?",)
    Files(tmp_path, tmp_path).document("y.json", ["a dog \ud83d"])
    assert (tmp_path / "y.json").read_text("utf-8") == '["a dog ?"]'


def test_mistakes_end_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, message in (
        (tmp_path / "nowhere", "no such folder. Correct --from"),
        (tmp_path, "is part of"),
    ):
        with pytest.raises(SystemExit, match="2"):
            prepare("snli-ve", folder)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "training",
    [
        Training("retrieval-coco", {"source": "a.json", "validation": "b.json"}),
        Training("retrieval-flickr30k", {"source": "a.json"}),
        Training("own-data", {"source": "a.json"}),
        Training("vqa", {"source": "a.json", "answer_list": "c.json"}),
        Training("entailment", {"source": "a.json"}),
        Training("nlvr", {"source": "a.json"}),
        Training("grounding", {"source": "a.json", "detections": "d.json"}),
        Training("easy-vqa", {"source": "a.json", "answer_list": "c.json"}),
    ],
    ids=lambda training: training.recipe,
)
def test_the_command_to_type_next_is_one(training: Training) -> None:
    for out, root in (("my out", "my in"), ("2024-05-01", "2024"), ("[a] #1: b", "it's"), ("a=b", '"')):
        albef, train, recipe, *settings = shlex.split(training.command(Path(out), Path(root)))
        assert (albef, train) == ("albef", "train")
        config = load_recipe(RECIPES / Path(recipe).name, settings)
        assert (config.data.source, config.data.image_root) == (f"{out}/a.json", root)
    assert (config.train.init == "MODEL") == (config.train.lr < 1e-4)  # what fine-tunes begins with a model


def test_a_file_that_the_set_has_not_is_taken_away() -> None:
    words = shlex.split(
        Training("vqa", {"source": "a.json", "answer_list": ""}).command(Path("o"), Path("i"))
    )
    assert load_recipe(RECIPES / "vqa.yaml").data.answer_list
    assert load_recipe(RECIPES / "vqa.yaml", words[3:]).data.answer_list == ""


def test_an_unreplaced_model_gets_a_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = Training("nlvr", {"source": "a.json"}).command(tmp_path, tmp_path)
    _, *arguments = shlex.split(command)
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--out", str(tmp_path / "run")])
    assert "MODEL: no such folder. Give a run" in capsys.readouterr().err
