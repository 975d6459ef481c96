"""Checks that a run folder holds the same run: its configuration and data, compared setting by setting."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from albef import distributed
from albef.config import LATER, Config, UserError
from albef.data.fingerprint import data_fingerprint
from albef.disk import told
from albef.manifest import Damaged, Manifest, read_manifest, verify
from albef.recipe import distilled, load_recipe
from albef.train.checkpoint import Facts, checkpoints_in
from albef.writing import append_whole

CONFIG_FILE, CHANGES_FILE = "config.yaml", "changes.jsonl"
DATA = "the content of the data"

# Settings that may change when a run is resumed: they affect how the work is done and shown, not what is learned.
# Paths of data may change too, since the content of the data is compared.
HARMLESS = frozenset(
    {
        "data.source",
        "data.image_root",
        "data.strip_prefix",
        "data.regions",
        "data.validation",
        "data.workers",
        "data.max_bad_fraction",
        "task.compat",  # stands for other settings, which are compared
        "train.device",
        "train.processes",
        "train.threads",
        "train.shard",
        "train.timeout_seconds",
        "train.log_every_steps",
        "train.checkpoint_every_steps",
        "train.keep_checkpoints",
        "train.keep_every_steps",
    }
    | {f"evaluate.{field.name}" for field in dataclasses.fields(Config().evaluate)}
)
# Settings that decide what the optimizer stores for each parameter. With others its state cannot be loaded.
FIXED = frozenset({"train.optimizer", "train.decay_embeddings"})


class Change(NamedTuple):
    """A setting that has changed."""

    setting: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.setting}: {self.old} → {self.new}"


def identity(config: Config) -> dict[str, Any]:
    """What a manifest says about the run that wrote a checkpoint."""
    return {"config": settings(config), "data": data_fingerprint(config.data)}


def settings(config: Config) -> dict[str, Any]:
    """Every setting as `section.key`, with JSON's types."""
    content = dataclasses.asdict(config)
    flat = {f"{section}.{key}": value for section, keys in content.items() for key, value in keys.items()}
    return dict(json.loads(json.dumps(flat)))


def last_manifest(folder: Path) -> Manifest | None:
    """The newest readable manifest among a run's checkpoints. The other files are not checked."""
    for checkpoint in reversed(checkpoints_in(folder / "checkpoints")):
        with contextlib.suppress(Damaged):
            return read_manifest(checkpoint)
    return None


def changes(folder: Path, config: Config, last: Manifest | None) -> Iterator[Change]:
    """What has changed since the run in a folder: since its newest checkpoint, else since its `config.yaml`."""
    old = settings(load_recipe(folder / CONFIG_FILE)) if last is None else last.facts["config"]
    old = old | {"task.distill": list(distilled(old["task.distill"]))}
    defaults = settings(Config())
    for setting, new in settings(config).items():
        # A setting that did not exist when the run began:
        before = old.get(setting, LATER.get(setting.removeprefix("model."), defaults[setting]))
        if before != new:
            yield Change(setting, before, new)
    if last is not None and last.facts["data"] != (data := data_fingerprint(config.data)):
        yield Change(DATA, last.facts["data"], data)


def check_same_run(folder: Path, config: Config, allow_changes: bool) -> None:
    """Checks that a configuration may continue the run in a folder, and records there what has changed.

    Raises `UserError` with a list of changes, if they affect what is learned and `allow_changes` is not given, or if
    the optimizer's state would not fit.
    """
    last = last_manifest(folder)
    found = list(changes(folder, config, last))
    fixed = [change for change in found if change.setting in FIXED and last is not None]
    if fixed:
        raise UserError(
            f"{folder} was trained with another optimizer ({'; '.join(map(str, fixed))}). Its state does not fit. "
            f"Choose another folder with --out, and start from the old weights with --train.init={folder}."
        )
    forbidden = [change for change in found if change.setting not in HARMLESS]
    if forbidden and not allow_changes:
        raise UserError(
            f"{folder} holds a run with other settings ({'; '.join(map(str, forbidden))}). Choose another folder with "
            f"--out, or continue anyway with --allow-changes. The changes are then recorded in its {CHANGES_FILE}."
        )
    if found:
        step = 0 if last is None else last.facts["step"]
        lines = (json.dumps({"step": step, **change._asdict()}, ensure_ascii=False) for change in found)
        file = (folder / CHANGES_FILE).absolute()
        with told(file, file):
            append_whole(file, "".join(f"{line}\n" for line in lines))


def agreed(newest: tuple[Path, Manifest], load: Callable[[], Facts]) -> Facts:
    """Loads the first process's checkpoint in every process, and returns its facts. All succeed or all fail.

    Raises `UserError` in every process if one of them finds another checkpoint there or cannot read it.
    """
    checkpoint, manifest = newest

    def loaded() -> tuple[str, Facts]:
        try:
            # The first process has already verified it.
            seal = manifest.seal if distributed.rank() == 0 else verify(checkpoint).seal
            return seal, load()
        except UserError as error:
            if distributed.rank() == 0:
                raise
            raise UserError(
                f"Process {distributed.rank()} cannot load the checkpoint that the first process chose: {error}"
            ) from error

    each = distributed.from_each(loaded)
    different = [rank for rank, found in enumerate(each) if found != each[0]]
    if different:
        raise UserError(
            f"{checkpoint}: process {different[0]} read a checkpoint of step {each[different[0]][1]['step']} there, the "
            f"first process one of step {each[0][1]['step']}. Make sure that all processes use the same folder."
        )
    return each[distributed.rank()][1]
