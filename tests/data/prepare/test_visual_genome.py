"""Visual Genome's regions and questions."""

import shlex
from pathlib import Path

import pytest

from albef.recipe import load_recipe
from downloads import picture, prepare, records, write

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    source = tmp_path / "vg"
    regions = [
        {
            "regions": [
                {
                    "region_id": 10 * n,
                    "width": 82,
                    "height": 139,
                    "image_id": n,
                    "phrase": phrase,
                    "y": 5,
                    "x": 4,
                }
                for phrase in phrases
            ],
            "id": n,
        }
        for n, phrases in (
            (1, ["the clock is green", " a tall tree "]),
            (2, []),
            (3, ["a cat"]),
            (4, ["a dog"]),
        )
    ]
    write(source / "region_descriptions.json", regions)
    questions = [
        {
            "id": n,
            "qas": [
                {
                    "question": "What colour?",
                    "image_id": n,
                    "qa_id": 90 + n,
                    "answer": "Green.",
                    "a_objects": [],
                }
            ],
        }
        for n in (1, 4)
    ]
    write(source / "question_answers.json", questions)
    picture(source / "VG_100K" / "1.jpg")
    picture(source / "VG_100K_2" / "3.jpg")
    return source


def test_phrases_and_questions(genome: Path) -> None:
    out = prepare("visual-genome", genome)
    captions = records(out / "vg.json", "pretrain", genome)
    assert [(record.image.parent.name, record.captions) for record in captions] == [
        ("VG_100K", ("the clock is green", "a tall tree")),
        ("VG_100K_2", ("a cat",)),
    ]
    (question,) = records(out / "vg_qa.json", "vqa", genome)
    assert (question.captions, question.answers, question.answer_weights) == (
        ("What colour?",),
        ("green",),
        (0.5,),
    )
    assert question.key == "91"
    assert (out / "missing.txt").read_text() == "VG_100K/4.jpg\n"


def test_either_file_is_enough(genome: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (genome / "region_descriptions.json").unlink()
    out = prepare("visual-genome", genome)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("albef train"))
    _, _, recipe, *settings = shlex.split(line)
    config = load_recipe(ROOT / recipe, settings)
    assert config.data.answer_list == ""  # none was written
    assert sorted(path.name for path in out.iterdir()) == ["missing.txt", "vg_qa.json"]
    out.rename(genome.parent / "before")
    (genome / "question_answers.json").unlink()
    with pytest.raises(SystemExit, match="2"):
        prepare("visual-genome", genome)
    assert "neither region_descriptions.json nor question_answers.json" in capsys.readouterr().err


def test_pictures_in_no_known_folder(genome: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (genome / "VG_100K").rename(genome / "one")
    (genome / "VG_100K_2").rename(genome / "two")
    with pytest.raises(SystemExit, match="2"):
        prepare("visual-genome", genome)
    assert "VG_100K or VG_100K_2 is neither here" in capsys.readouterr().err
