"""Recipes: sizes, overrides, and mistakes that get a sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

from albef.config import SIZES, UserError
from albef.recipe import dump_config, load_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text("model:\n  size: tiny\n  image_depth: 3\ntrain:\n  steps: 7\n  lr: 1e-3\n")
    return path


def test_size_then_recipe_then_override(recipe: Path) -> None:
    config = load_recipe(
        recipe, ["--train.steps=9", "--data.crop_scale=[0.5,1.0]", "--task.losses=[itc,itm]"]
    )
    assert config.model.image_width == SIZES["tiny"].image_width
    assert config.model.image_depth == 3
    assert config.train.steps == 9
    assert config.train.lr == 1e-3
    assert config.data.crop_scale == (0.5, 1.0)
    assert config.task.losses == ("itc", "itm")
    assert load_recipe(recipe, ["--model.size=small"]).model.image_width == SIZES["small"].image_width


def test_a_dumped_configuration_comes_back(recipe: Path, tmp_path: Path) -> None:
    config = load_recipe(recipe, ["--task.compat=official"])
    assert config.task.teacher_dropout
    assert config.train.schedule == "published"
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_recipe(tmp_path / "again.yaml") == config


def test_what_is_given_stays_beside_the_published_behaviour(recipe: Path) -> None:
    recipe.write_text("task: {compat: official}\ntrain: {clip_norm: 0.5}\n")
    config = load_recipe(recipe, ["--data.obey_exif=true"])
    assert (config.train.clip_norm, config.data.obey_exif) == (0.5, True)
    assert (config.train.schedule, config.task.teacher_dropout) == ("published", True)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("train:\n  step: 3", [], r"unknown setting train.step; did you mean train\.steps"),
        ("training:\n  steps: 3", [], r"unknown setting training; did you mean train"),
        ("- 1", [], "a recipe has the sections"),
        ("train: 3", [], "a recipe has the sections"),
        ("train:\n  steps: many", [], r"train\.steps"),
        ("train: {steps: [", [], "not readable as YAML"),
        ("", ["--train.stepz=3"], r"command line: unknown setting train.stepz; did you mean train\.steps"),
        ("", ["--train.steps=abc"], r"train\.steps"),
        ("", ["train.steps=3"], "write it as --section.key=value"),
        ("", ["--train.steps"], "write it as --section.key=value"),
        ("", ["--model.size=huge"], "choose one of tiny, small, base"),
        ("model: {size: [tiny]}", [], "choose one of tiny, small, base"),
        ("model:\n  image_size: 100", [], "not divisible by model.patch_size"),
        ("model:\n  size: tiny\n  max_tokens: 128", [], r"model\.max_tokens is 128, but .* from 2 to 64"),
        ("", ["--train.log_every_steps=0"], r"train\.log_every_steps is 0, but it must be at least 1"),
        ("task:\n  losses: [itc, itn]", [], "losses"),
        ("model: !!python/object/apply:os.system ['true']", [], "not readable as YAML"),
    ],
)
def test_mistakes_get_a_sentence(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(path, overrides)
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such recipe"):
        load_recipe(tmp_path / "nothing.yaml")


def albef(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "albef", *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def test_the_command_says_one_sentence_and_exits_with_2(recipe: Path, tmp_path: Path) -> None:
    done = albef("train", str(recipe), "--train.stepz=3", "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "train.stepz" in done.stderr
    assert not (tmp_path / "run").exists()


def test_help_and_info_need_no_torch() -> None:
    code = "import sys, albef.cli; albef.cli.build_parser(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_print_config(recipe: Path) -> None:
    done = albef("train", str(recipe), "--print_config")
    assert done.returncode == 0
    assert "steps: 7" in done.stdout
