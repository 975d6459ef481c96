"""Feeds golden files through the public classes and prints how far every expected tensor is off.

    python tests/parity/replay.py FILE...

Exit status 1 if a deviation is beyond the tolerances of `golden/README.md`, or if nothing was compared.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import replay_albef as albef
import replay_clip as clip
import replay_lxmert as lxmert
import replay_oscar as oscar
import replay_uniter as uniter
from rich.console import Console
from rich.table import Table

from golden import Comparison, Golden, deviation

# By the task that a file names.
REPLAYS: dict[str, Callable[[Golden], Iterator[Comparison]]] = {
    "pretrain": albef.replay_pretrain,
    "pretrain_trajectory": albef.replay_trajectory,
    "retrieval": albef.replay_retrieval,
    "retrieval_eval": albef.replay_retrieval_eval,
    "entailment": albef.replay_classification,
    "nlvr": albef.replay_classification,
    "text_assignment": albef.replay_text_assignment,
    "vqa": albef.replay_vqa,
    "gradcam": albef.replay_gradcam,
    "position_resize": albef.replay_position_resize,
    "clip_vit": clip.replay_vit,
    "clip_trajectory": clip.replay_trajectory,
    "clip_position_resize": clip.replay_position_resize,
    "clip_pixels": clip.replay_pixels,
    "lxmert_pretrain": lxmert.replay_pretrain,
    "lxmert_vqa": lxmert.replay_vqa,
    "lxmert_nlvr": lxmert.replay_nlvr,
    "lxmert_vqa_trajectory": lxmert.replay_trajectory,
    "lxmert_regions": lxmert.replay_regions,
    "uniter_mlm": uniter.replay_mlm,
    "uniter_mrfr": uniter.replay_regions,
    "uniter_mrc": uniter.replay_regions,
    "uniter_mrckl": uniter.replay_regions,
    "uniter_itm_wra": uniter.replay_itm,
    "uniter_retrieval": uniter.replay_retrieval,
    "uniter_retrieval_hard": uniter.replay_hard,
    "uniter_vqa": uniter.replay_answers,
    "uniter_ve": uniter.replay_answers,
    "uniter_nlvr2": uniter.replay_nlvr2,
    "oscar_pretrain": oscar.replay_pretrain,
    "oscar_retrieval": oscar.replay_retrieval,
    "oscar_vqa": oscar.replay_vqa,
    "oscar_nlvr2": oscar.replay_nlvr,
}
# Of JSON files, by a name that the kind alone has.
CONTENTS: dict[str, Callable[[Mapping[str, Any]], Iterator[Comparison]]] = {
    "sot": clip.replay_text,
    "max_length": lxmert.replay_text,
    "pretrain": albef.replay_learning_rates,
}


def replay(path: Path) -> Iterator[Comparison]:
    """Every comparison that a golden file asks for."""
    if path.suffix == ".json":
        content = json.loads(path.read_text("utf-8"))
        yield from CONTENTS[next(name for name in CONTENTS if name in content)](content)
        return
    golden = Golden(path)
    if golden.case["task"] not in REPLAYS:
        raise SystemExit(f"{path}: nothing here replays the task {golden.case['task']!r}.")
    yield from REPLAYS[golden.case["task"]](golden)


def main(paths: list[str]) -> int:
    """Prints a table per file; the exit status."""
    console, compared, failed = Console(width=130), 0, 0
    for path in map(Path, paths):
        table = Table("tensor", "largest abs", "largest rel", "", title=path.name)
        rows = []
        for name, got, expected, tolerance in replay(path):
            absolute, relative, good = deviation(got, expected, tolerance)
            compared, failed = compared + 1, failed + (not good)
            rows.append((absolute, (name, f"{absolute:.2e}", f"{relative:.2e}", "ok" if good else "BEYOND")))
        for _, row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(f"{compared} tensors compared, {failed} beyond tolerance")
    return int(failed > 0 or compared == 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
