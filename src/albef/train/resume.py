"""Whether a run folder holds the run that is asked for: its configuration and data, compared setting by setting."""

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
from albef.recipe import load_recipe
from albef.train.checkpoint import Facts, checkpoints_in
from albef.writing import append_whole

CONFIG_FILE, CHANGES_FILE = "config.yaml", "changes.jsonl"
DATA = "the content of the data"

# What may differ between two sittings of one run: it changes how the work is done and shown, not what is learnt.
# Where the data lie is judged by what they hold.
HARMLESS = frozenset(
    {
        "data.source",
        "data.image_root",
        "data.strip_prefix",
        "data.validation",
        "data.workers",
        "data.max_bad_fraction",
        "task.compat",  # stands for other settings, which are compared themselves
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
# What decides which quantities the optimizer keeps of which parameter: another one could not go on with them.
FIXED = frozenset({"train.optimizer", "train.decay_embeddings"})


class Change(NamedTuple):
    """A setting that is not what it was."""

    setting: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.setting}: {self.old} → {self.new}"


def identity(config: Config) -> dict[str, Any]:
    """What a checkpoint's manifest notes of the run that wrote it."""
    return {"config": settings(config), "data": data_fingerprint(config.data)}


def settings(config: Config) -> dict[str, Any]:
    """Every setting as `section.key`, in the types that JSON has."""
    content = dataclasses.asdict(config)
    flat = {f"{section}.{key}": value for section, keys in content.items() for key, value in keys.items()}
    return dict(json.loads(json.dumps(flat)))


def last_manifest(folder: Path) -> Manifest | None:
    """The manifest of the newest checkpoint of a run that has a readable one; its files are not looked at."""
    for checkpoint in reversed(checkpoints_in(folder / "checkpoints")):
        with contextlib.suppress(Damaged):
            return read_manifest(checkpoint)
    return None


def changes(folder: Path, config: Config, last: Manifest | None) -> Iterator[Change]:
    """What is another than in the run that a folder holds: in its newest checkpoint, else in its `config.yaml`."""
    old = settings(load_recipe(folder / CONFIG_FILE)) if last is None else last.facts["config"]
    defaults = settings(Config())
    for setting, new in settings(config).items():
        # A setting that did not exist yet:
        before = old.get(setting, LATER.get(setting.removeprefix("model."), defaults[setting]))
        if before != new:
            yield Change(setting, before, new)
    if last is not None and last.facts["data"] != (data := data_fingerprint(config.data)):
        yield Change(DATA, last.facts["data"], data)


def check_same_run(folder: Path, config: Config, allow_changes: bool) -> None:
    """Lets a configuration go on with the run in a folder, and notes there what has changed.

    Raises `UserError` that says what differs, if that changes what is learnt and `allow_changes` is not given, or if
    the optimizer's state would not fit.
    """
    last = last_manifest(folder)
    found = list(changes(folder, config, last))
    fixed = [change for change in found if change.setting in FIXED and last is not None]
    if fixed:
        raise UserError(
            f"{folder} was trained with another optimizer ({'; '.join(map(str, fixed))}), whose state would not fit: "
            f"choose another folder with --out, and --train.init={folder} to begin with its weights."
        )
    forbidden = [change for change in found if change.setting not in HARMLESS]
    if forbidden and not allow_changes:
        raise UserError(
            f"{folder} holds another run ({'; '.join(map(str, forbidden))}): choose another folder with --out, "
            f"or go on in spite of it with --allow-changes, which is noted in its {CHANGES_FILE}."
        )
    if found:
        step = 0 if last is None else last.facts["step"]
        lines = (json.dumps({"step": step, **change._asdict()}, ensure_ascii=False) for change in found)
        file = (folder / CHANGES_FILE).absolute()
        with told(file, file):
            append_whole(file, "".join(f"{line}\n" for line in lines))


def agreed(newest: tuple[Path, Manifest], load: Callable[[], Facts]) -> Facts:
    """The facts of the checkpoint that the first process chose, loaded by every process; all succeed or all fail.

    Raises `UserError` in every process where one of them finds another checkpoint there, or can't read it.
    """
    checkpoint, manifest = newest

    def loaded() -> tuple[str, Facts]:
        try:
            # The first process has just verified it.
            seal = manifest.seal if distributed.rank() == 0 else verify(checkpoint).seal
            return seal, load()
        except UserError as error:
            if distributed.rank() == 0:
                raise
            raise UserError(
                f"Process {distributed.rank()} can't go on from the checkpoint that the first one chose: {error}"
            ) from error

    each = distributed.from_each(loaded)
    different = [rank for rank, found in enumerate(each) if found != each[0]]
    if different:
        raise UserError(
            f"{checkpoint}: process {different[0]} read another checkpoint there than the first one (step "
            f"{each[different[0]][1]['step']} and {each[0][1]['step']}): see that all processes have the same folder."
        )
    return each[distributed.rank()][1]
