"""Settings that no run could work with are refused where they are made."""

from dataclasses import replace

import pytest

from albef.config import SIZES, Config, UserError

WRONG = [
    ("model.max_tokens", 128, "from 2 to 64"),
    ("model.max_tokens", 1, "from 2 to 64"),
    ("model.patch_size", 0, "at least 1"),
    ("model.text_heads", 0, "at least 1"),
    ("model.dropout", 1.5, "from 0 to 1"),
    ("data.count", 0, "at least 1"),
    ("data.workers", -1, "at least 0"),
    ("data.crop_scale", (0.2, 1.5), "from 0 to 1"),
    ("data.max_bad_fraction", 5.0, "from 0 to 1"),
    ("task.losses", (), "name at least one"),
    ("task.momentum", 1.01, "from 0 to 1"),
    ("task.queue_size", -1, "at least 0"),
    ("train.steps", 0, "at least 1"),
    ("train.batch_size", 0, "at least 1"),
    ("train.processes", 0, "at least 1"),
    ("train.log_every_steps", 0, "at least 1"),
    ("train.checkpoint_every_steps", 0, "at least 1"),
    ("train.keep_checkpoints", 0, "at least 1"),
    ("train.seed", -1, "at least 0"),
    ("train.lr", float("nan"), "at least 0"),
    ("evaluate.count", 0, "at least 1"),
    ("evaluate.beams", 0, "at least 1"),
]


@pytest.mark.parametrize(("setting", "value", "message"), WRONG)
def test_settings_out_of_range_are_refused(setting: str, value: object, message: str) -> None:
    section, name = setting.split(".")
    good = replace(Config(), model=SIZES["tiny"])
    with pytest.raises(UserError, match=f"{setting} is .*{message}"):
        replace(getattr(good, section), **{name: value})


def test_the_ends_of_a_range_are_in_it() -> None:
    model = replace(SIZES["tiny"], max_tokens=64)
    assert model.max_tokens == model.max_positions
    assert replace(Config().data, crop_scale=(1.0, 1.0), workers=0).workers == 0
    assert replace(Config().task, alpha_ramp_steps=-1, queue_size=0, momentum=1.0).queue_size == 0
