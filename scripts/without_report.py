"""Trains and measures as `albef train` does, but without the report: it would take longer than some small trainings."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from albef import load_recipe
from albef.config import UserError
from albef.run import run
from albef.train.stopping import Interrupted


def main() -> None:
    """Runs a recipe with settings, or goes on with a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", type=Path, help="YAML file with the settings")
    parser.add_argument("--out", type=Path, help="folder of the run")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with this run")
    given, settings = parser.parse_known_args()
    try:
        if given.resume:
            run(load_recipe(given.resume / "config.yaml", settings), given.resume, report=False)
        else:
            run(load_recipe(given.recipe, settings), given.out, report=False)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)


if __name__ == "__main__":
    main()
