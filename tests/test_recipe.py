"""Recipes: sizes, overrides, and mistakes that get a sentence."""

import contextlib
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albef.cli import main
from albef.config import DISTILLED, SIZES, ModelConfig, UserError
from albef.model_config import ON_REGIONS, SystemName
from albef.recipe import dump_config, load_recipe
from albef.systems import SYSTEMS, build_task

RECIPES = Path(__file__).parent.parent / "recipes"


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


@pytest.mark.parametrize("system", ON_REGIONS)
def test_systems_on_regions_have_a_recipe_of_their_own_for_every_task(system: SystemName) -> None:
    found = {path.stem: load_recipe(path) for path in (RECIPES / system).glob("*.yaml")}
    assert found.keys() == SYSTEMS[system].tasks.keys()
    for name, config in found.items():
        assert config.task.name == name
        tiny = ModelConfig(size=f"{system}-tiny", system=system)  # type: ignore[arg-type]
        build_task(dataclasses.replace(config, model=tiny))


@pytest.mark.parametrize(
    ("written", "losses"),
    [
        ("true", DISTILLED),
        ("on", DISTILLED),
        ("False", ()),
        ("[]", ()),
        ("[mlm]", ("mlm",)),
        ("[itc, mlm]", ("itc", "mlm")),
    ],
)
def test_distilled_losses_may_be_all_or_none(recipe: Path, written: str, losses: tuple[str, ...]) -> None:
    assert load_recipe(recipe, [f"--task.distill={written}"]).task.distill == losses
    recipe.write_text(f"task:\n  distill: {written}\n")
    assert load_recipe(recipe).task.distill == losses


@pytest.mark.parametrize("written", ["itc", "[true]", "1", "", "maybe"])
def test_other_words_are_no_list_of_losses(recipe: Path, written: str) -> None:
    with pytest.raises(UserError, match=r"task\.distill is .* must be a list of itc, mlm, answer, "):
        load_recipe(recipe, [f"--task.distill={written}"])


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
        ("- 1", [], "a recipe consists of the sections"),
        ("train: 3", [], "a recipe consists of the sections"),
        ("train:\n  steps: many", [], r"train\.steps"),
        ("train: {steps: [", [], "not valid YAML"),
        ("", ["--train.stepz=3"], r"command line: unknown setting train.stepz; did you mean train\.steps"),
        ("", ["--train.steps=abc"], r"train\.steps"),
        ("", ["train.steps=3"], "write --section.key=value"),
        ("", ["--train.steps"], "write --section.key=value"),
        ("", ["--model.size=huge"], "one of tiny, small, base"),
        ("model: {size: [tiny]}", [], "one of tiny, small, base"),
        ("model:\n  image_size: 100", [], "not divisible by model.patch_size"),
        ("model:\n  size: tiny\n  max_tokens: 128", [], r"model\.max_tokens is 128, but .* from 2 to 64"),
        ("", ["--train.log_every_steps=0"], r"train\.log_every_steps is 0, but it must be at least 1"),
        ("task:\n  losses: [itc, itn]", [], "losses"),
        ("model: !!python/object/apply:os.system ['true']", [], "not valid YAML"),
        ("data:\n  source: [2021]", [], r"data\.source must be a text; put it in quotation marks"),
        ("data: {flip: true, flip: false}", [], r"data\.flip is there twice"),
        ("data: {flip: true}\ntrain: {}\ndata: {randaugment: false}", [], "each once"),
        ("train.steps: 3", [], "a recipe consists of the sections"),
        ("train: &a {betas: *a}", [], r"train\.betas"),
        ("train: {betas: &a [*a, *a]}", [], r"train\.betas"),
        ("train:\n  steps: 1:30", [], r"train\.steps is '1:30', but it must be a whole number"),
        ("train:\n  steps:", [], r"train\.steps is None"),
        ("task:\n  compat: [official]", [], r"task\.compat"),
        ("", ["--train.steps=12:30"], r"train\.steps is '12:30', but it must be a whole number"),
        ("", ["--train.steps="], r"train\.steps is None"),
        ("", ["--train.lr=1e400"], r"train\.lr is inf"),
        ("", ["--evaluate.splits=test"], r"evaluate\.splits is 'test', but it must be a list of texts"),
        ("", ["--data.crop_scale=[0.5"], "the value is not valid YAML"),
        ("", ["--data.mix={[]: 1}"], r"data\.mix"),
    ],
)
def test_mistakes_get_a_sentence(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(path, overrides)
    assert "\n" not in str(caught.value)


# What people have in names of files and YAML takes for something else.
TEXTS = [
    "2024", "2024-05-01", "12:30", "[2021] trip/pairs.json", "my #1 pairs/train.json", "a: b.json", "null", "~",
    "true", "1e5", "", " a ", "'a'", '"a"', "{a}", "*a", "&a", "!a", "%a", "@a", "- a", "? a", "| a", "a\nb", "a\tb",
    "\u00e9", "\udce9", "a=b",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_what_was_typed(recipe: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_recipe(recipe, [f"--data.source={text or 'a'}", f"--train.init={text}"])
    assert (config.data.source, config.train.init) == (text or "a", text)
    recipe.write_text(dump_config(config))
    assert load_recipe(recipe) == config
    for words in (
        [str(recipe), "--init", text],
        [str(recipe), f"--train.init={text}"],
        [f"--train.init={text}", str(recipe)],
    ):
        main(["train", *words, "--print_config"])
        recipe.with_name("shown.yaml").write_text(capsys.readouterr().out)
        assert load_recipe(recipe.with_name("shown.yaml")).train.init == text


@given(st.text(st.characters(exclude_characters="\0"), min_size=1))
def test_any_text_is_what_was_typed(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text("")
    config = load_recipe(path, [f"--data.source={text}"])
    assert config.data.source == text
    path.write_text(dump_config(config))
    assert load_recipe(path).data.source == text


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("2024-05-01", "2024-05-01"),
        ("2024", "2024"),
        ("007", "007"),
        ("12:30", "12:30"),
        ("yes", "yes"),
        ("1_000.50", "1_000.50"),
        ("'a: b'", "a: b"),
        ('"a\\tb"', "a\tb"),
        ("null", ""),
        ("~", ""),
        ("", ""),
        ("'null'", "null"),
    ],
)
def test_a_text_in_a_recipe_is_what_stands_there(recipe: Path, written: str, text: str) -> None:
    recipe.write_text(f"data:\n  image_root: {written}  # a comment\n")
    assert load_recipe(recipe).data.image_root == text


def test_other_values_stay_yaml(recipe: Path) -> None:
    recipe.write_text(
        "data: {flip: no, mix: {single: 1, pair: 2.5}}\nevaluate: {splits: [2024, 12:30], layer: 1}\n"
    )
    config = load_recipe(recipe)
    assert (config.data.flip, config.data.mix) == (False, {"single": 1.0, "pair": 2.5})
    assert config.evaluate.splits == ("2024", "12:30")
    config = load_recipe(
        recipe,
        [
            "--data.flip=true",
            "--data.mix={group: 1e-1}",
            "--evaluate.splits=[test, 2024-05-01, 'a: b']",
            "--evaluate.layer=null",
            "--train.steps=1_000",
            "--train.lr=2e-3",
            "--train.init_image=x",
            "--train.init_image_layers=[0, 1]",
            "--train.checkpointing=[]",
        ],
    )
    assert (config.data.flip, config.data.mix) == (True, {"group": 0.1})
    assert config.evaluate.splits == ("test", "2024-05-01", "a: b")
    assert (config.evaluate.layer, config.train.steps, config.train.lr) == (None, 1000, 0.002)
    assert (config.train.init_image_layers, config.train.checkpointing) == ((0, 1), ())


def test_settings_with_spaces_are_no_names_of_files(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "--data.source=a b", str(recipe), "--print_config"])
    assert "source: a b" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["info", "tiny", "--data.source=a b"])
    assert "unknown argument" in capsys.readouterr().err or "unrecognized" in capsys.readouterr().err


LINES = st.sampled_from(
    [
        "model:",
        "  size: tiny",
        "  size: ",
        "data: {source: a}",
        "train:",
        "  steps: 1",
        "  betas: [0.9",
        "  betas: &a",
        "    - *a",
    ]
)


@given(
    st.one_of(
        st.binary(max_size=40),
        st.lists(LINES | st.text(max_size=8), max_size=6).map(
            lambda x: "\n".join(x).encode("utf-8", "replace")
        ),
    )
)
def test_any_file_is_a_recipe_or_gets_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        load_recipe(path)


def test_many_aliases_are_not_unfolded(recipe: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30))]
    recipe.write_text("data:\n" + "".join(f"  {line}\n" for line in lines))
    with pytest.raises(UserError, match=r"unknown setting data\.a0"):
        load_recipe(recipe)


def test_a_missing_recipe_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such recipe"):
        load_recipe(tmp_path / "nothing.yaml")
    with pytest.raises(UserError, match="no such recipe"):
        load_recipe(tmp_path / ("x" * 5000))


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
