"""What a run writes down; what cannot be written stops nothing."""

import json
from pathlib import Path

import pytest

from albef.train.logging import RunLog, keep_before

FIGURES = {"itc": 1.0, "pairs": 64.0, "pairs_per_second": 10.0}


def steps(file: Path) -> list[int]:
    return [json.loads(line)["step"] for line in file.read_text().splitlines()]


def test_a_resumed_run_goes_on_where_its_checkpoint_is(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0, 9) as log:
        for step in range(6):
            log.write(step, FIGURES)
    with RunLog(tmp_path, 4, 9) as log:
        log.write(4, FIGURES)
    assert steps(tmp_path / "log.jsonl") == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("rest", ['{"step": 2, "it', '{"step": 2}', "\x00\x00\n", ""])
def test_half_a_line_is_cut_off(tmp_path: Path, rest: str) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text('{"step": 0}\n{"step": 1}\n' + rest)
    keep_before(file, 9)
    assert steps(file) == [0, 1]


def test_a_full_disk_is_said_once_and_again_after_it_had_room(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log.jsonl"
    with RunLog(tmp_path, 0, 9) as log:
        log.write(0, FIGURES)
        file.rename(tmp_path / "aside")
        file.symlink_to("/dev/full")
        log.write(1, FIGURES)
        log.write(2, FIGURES)
        file.unlink()
        (tmp_path / "aside").rename(file)
        log.write(3, FIGURES)
    assert steps(file) == [0, 3]
    assert " ".join(capsys.readouterr().out.split()).count("Training continues without it") == 1


def test_a_tracker_that_fails_is_given_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path, 0, 9) as log:

        class Down:
            def add_scalar(self, *_: object) -> None:
                raise ConnectionError("nobody answers")

        log.writer = Down()
        log.write(0, FIGURES)
        assert log.writer is None
        log.write(1, FIGURES)
    assert steps(tmp_path / "log.jsonl") == [0, 1]
    assert "nobody answers" in capsys.readouterr().out


def test_brackets_in_what_is_said_are_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path, 0, 9) as log:
        log.say("a[/b] runs/[old]")
    assert "a[/b] runs/[old]" in capsys.readouterr().out


def test_into_a_pipe_every_logged_step_is_a_plain_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunLog(tmp_path, 0, 1000) as log:
        log.say("a/very/long/path " * 20)
        for step in (0, 19, 39):
            log.advance(step)
            figures = {"itc": 3.214, "mlm": 5.0, "pairs": 64.0 * (step + 1), "pairs_per_second": 128.0}
            log.write(step, figures)
    printed = capsys.readouterr().out
    assert printed.splitlines() == [
        "a/very/long/path " * 20,
        "Losses: itc = image–text contrast (ITC), mlm = masked words (MLM). A pair is an image with a text.",
        "step 1 of 1,000: loss itc 3.21, mlm 5.00; 128 pairs/s; 8 min 20 s left",
        "step 20 of 1,000: loss itc 3.21, mlm 5.00; 128 pairs/s; 8 min 10 s left",
        "step 40 of 1,000: loss itc 3.21, mlm 5.00; 128 pairs/s; 8 min 0 s left",
    ]
