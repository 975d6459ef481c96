"""Settings that no run could work with are refused where they are made, and names of sizes mean their sizes."""

import dataclasses
from dataclasses import replace

import pytest

from albef.config import (
    OFFICIAL,
    SIZES,
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    TaskConfig,
    TrainConfig,
    UserError,
    official,
)

NAN, INFINITE = float("nan"), float("inf")

WRONG = [
    ("model.max_tokens", 128, "from 2 to 64"),
    ("model.max_tokens", 1, "from 2 to 64"),
    ("model.patch_size", 0, "at least 1"),
    ("model.num_attributes", 0, "at least 1"),
    ("model.pollution_classes", 4, "from 2 to 3"),
    ("model.text_heads", 0, "at least 1"),
    ("model.dropout", 1.5, "from 0 to 1"),
    ("data.count", 0, "at least 1"),
    ("data.workers", -1, "at least 0"),
    ("data.workers", 10**6, "at most 1,024"),
    ("data.crop_scale", (0.2, 1.5), "from 0 to 1"),
    ("data.max_bad_fraction", 5.0, "from 0 to 1"),
    ("task.losses", (), "name at least one"),
    ("task.momentum", 1.01, "from 0 to 1"),
    ("task.queue_size", -1, "at least 0"),
    ("task.hardness", -0.1, "at least 0"),
    ("train.steps", 0, "at least 1"),
    ("train.batch_size", 0, "at least 1"),
    ("train.processes", 0, "at least 1"),
    ("train.log_every_steps", 0, "at least 1"),
    ("train.checkpoint_every_steps", 0, "at least 1"),
    ("train.keep_checkpoints", 0, "at least 1"),
    ("train.seed", -1, "at least 0"),
    ("evaluate.count", 0, "at least 1"),
    ("evaluate.beams", 0, "at least 1"),
    ("evaluate.layer", -1, "at least 0"),
    ("evaluate.splits", (), "name at least one"),
    # What would divide by zero, learn nothing, or be refused by somebody else's code after hours.
    ("model.initial_temperature", 0.0, "from 0.001 to 0.5"),
    ("model.initial_temperature", -0.07, "from 0.001 to 0.5"),
    ("model.initial_std", 0.0, "above 0"),
    ("model.std", (0.5, 0.0, 0.5), "above 0"),
    ("model.dropout", 1.0, "from 0 to 1, but not 1"),
    ("model.vocab_size", 5, "from 6 to"),
    ("model.image_depth", 10**9, "at most 1,000"),
    ("model.image_width", 12 * 10**9, "at most 1,000,000"),
    ("model.patch_size", 10**9, "at most 100,000"),
    ("data.source", "", "name"),
    ("data.crop_scale", (1.0, 0.2), "the smaller share must come first"),
    ("data.crop_scale", (0.0, 1.0), "from 0 to 1, but not 0"),
    ("data.twin_aspects", (), "name at least one"),
    ("data.num_nouns", 0, "at least 1"),
    ("train.betas", (1.0, 1.0), "from 0 to 1, but not 1"),
    ("train.threads", 10**6, "at most 1,024"),
    ("train.processes", 10**6, "at most 1,024"),
    ("train.seed", 2**63, f"from 0 to {2**63 - 1}"),
    ("train.timeout_seconds", 10**12, "from 1 to"),
    ("train.init_image_layers", (0, -1), "at least 0"),
    ("train.device", "", "name"),
]


@pytest.mark.parametrize(("setting", "value", "message"), WRONG)
def test_settings_out_of_range_are_refused(setting: str, value: object, message: str) -> None:
    section, name = setting.split(".")
    good = replace(Config(), model=SIZES["tiny"])
    with pytest.raises(UserError, match=f"{setting} is .*{message}"):
        replace(getattr(good, section), **{name: value})


FLOATS = [
    f"{section.name}.{setting.name}"
    for section in dataclasses.fields(Config)
    for setting in dataclasses.fields(section.default_factory())
    if "float" in str(setting.type)
]


@pytest.mark.parametrize("setting", FLOATS)
@pytest.mark.parametrize("number", [NAN, INFINITE, -INFINITE])
def test_numbers_that_are_none_are_refused(setting: str, number: float) -> None:
    section, name = setting.split(".")
    old = getattr(getattr(Config(), section), name)
    value: object = number
    if isinstance(old, tuple):
        value = (*old[1:], number)
    elif isinstance(old, dict):
        value = {"single": number}
    with pytest.raises(UserError, match=setting):
        replace(getattr(Config(), section), **{name: value})


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("model.image_size", 48.0, "a whole number"),
        ("model.image_heads", "12", "a whole number"),
        ("model.append_sep", 1, "true or false"),
        ("model.vocabulary", "gpt", "one of bert, clip, trained"),
        ("model.mean", (0.5,), "3 numbers"),
        ("model.mean", 0.5, "3 numbers"),
        ("model.std", ("a", "b", "c"), "3 numbers"),
        ("model.size", None, "one of tiny, small, base"),
        ("model.size", "huge", "one of tiny, small, base"),
        ("data.flip", "no", "true or false"),
        ("data.source", 3, "a text"),
        ("data.mix", {"single": "much"}, "numbers by name"),
        ("data.mix", [0.5], "numbers by name"),
        ("task.losses", ("itc", "itn"), "a list of itc, itm, mlm"),
        ("task.losses", "itc", "a list of itc, itm, mlm"),
        ("task.distill", False, "a list of itc, mlm, answer, classification"),
        ("task.distill", ("itm",), "a list of itc, mlm, answer, classification"),
        ("task.name", "search", "one of pretrain, "),
        ("train.steps", True, "a whole number"),
        ("train.lr", "1e-3", "a finite number"),
        ("train.lr", None, "a finite number"),
        ("train.betas", (0.9,), "2 numbers"),
        ("train.init_text_layers", (0, "1"), "a list of whole numbers"),
        ("evaluate.splits", "test", "a list of texts"),
        ("evaluate.layer", 1.5, "a whole number or null"),
    ],
)
def test_values_of_another_type_are_refused(setting: str, value: object, message: str) -> None:
    section, name = setting.split(".")
    with pytest.raises(UserError, match=rf"{setting} is .*, but it must be {message}"):
        replace(getattr(Config(), section), **{name: value})


def test_settings_that_contradict_each_other_are_refused() -> None:
    for task, said in (
        (TaskConfig(losses=("itm",), align_first=0.4), r"task\.align_first .* task\.losses"),
        (TaskConfig(losses=("mlm",), align_first=0.1), r"task\.align_first .* task\.losses"),
        (
            TaskConfig(name="retrieval", losses=("itm",), align_first=0.4),
            r"task\.align_first .* task\.losses",
        ),
    ):
        with pytest.raises(UserError, match=said):
            Config(task=task)
    assert Config(task=TaskConfig(name="vqa", losses=("itm",), align_first=0.4))  # has a loss of its own
    with pytest.raises(UserError, match=r"task\.losses is mlm, but retrieval has other losses: .* itc, itm"):
        Config(task=TaskConfig(name="retrieval", losses=("mlm",)))
    with pytest.raises(UserError, match=r"task\.losses lacks itm, .*grounding"):
        Config(task=TaskConfig(name="grounding", losses=("itc",)))
    with pytest.raises(UserError, match=r"data\.mlm_probability is 0.* task\.losses"):
        Config(data=DataConfig(mlm_probability=0.0))
    assert Config(data=DataConfig(mlm_probability=0.0, mlm_content_only=True))
    assert Config(data=DataConfig(mlm_probability=0.0), task=TaskConfig(losses=("itc", "itm")))
    with pytest.raises(UserError, match=r"train\.init .*train\.init_image"):
        Config(train=TrainConfig(init="runs/a", init_image="deit"))
    with pytest.raises(UserError, match=r"train\.init_text_layers .*train\.init_text"):
        Config(train=TrainConfig(init_text_layers=(0, 1)))
    with pytest.raises(UserError, match=r"train\.linear .*train\.precision"):
        Config(train=TrainConfig(linear="onednn", precision="bf16"))
    with pytest.raises(UserError, match=r"evaluate\.layer is 6.* model\.fusion_depth is 6"):
        Config(evaluate=EvaluateConfig(layer=6))
    narrow = replace(SIZES["tiny"], fusion_depth=0)
    for task in (TaskConfig(), TaskConfig(name="vqa"), TaskConfig(losses=("itc", "itm"))):
        with pytest.raises(UserError, match=r"model\.fusion_depth is 0"):
            Config(model=narrow, task=task)
    assert Config(model=narrow, task=TaskConfig(losses=("itc",)))
    with pytest.raises(UserError, match="model is 'tiny', but it must be a ModelConfig"):
        Config(model="tiny")  # type: ignore[arg-type]


def test_a_size_means_its_sizes_unless_they_are_given() -> None:
    for name, size in SIZES.items():
        assert ModelConfig(size=name) == ModelConfig(name) == size
    narrow = ModelConfig(size="tiny", image_width=48, dropout=0.0)
    assert narrow == replace(SIZES["tiny"], image_width=48)
    assert ModelConfig() == SIZES["base"]
    # What is given stays, the published value too.
    assert ModelConfig(size="tiny", image_size=256, patch_size=16).image_size == 256


def test_compat_means_all_that_it_stands_for() -> None:
    for task in (TaskConfig(compat="official"), replace(TaskConfig(), compat="official")):
        with pytest.raises(UserError, match=r"task\.compat is official, but .*official\(config\)"):
            Config(task=task)
    config = official(Config(data=DataConfig(count=7)))
    assert (config.task.compat, config.data.count) == ("official", 7)
    for key, value in OFFICIAL.items():
        section, name = key.split(".")
        assert getattr(getattr(config, section), name) == value
    assert replace(config, train=replace(config.train, steps=3)).train.schedule == "published"
    with pytest.raises(UserError, match=r"train\.clip_norm is 1\.0"):
        replace(config, train=replace(config.train, clip_norm=1.0))


def test_the_ends_of_a_range_are_in_it() -> None:
    model = replace(SIZES["tiny"], max_tokens=64)
    assert model.max_tokens == model.max_positions
    assert replace(Config().data, crop_scale=(1.0, 1.0), workers=0).workers == 0
    assert replace(Config().task, alpha_ramp_steps=-1, queue_size=0, momentum=1.0).queue_size == 0
