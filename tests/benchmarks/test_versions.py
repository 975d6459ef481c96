"""The comparison of versions: ratios are taken round by round."""

import versions
from versions import AGAIN, NOW


def test_ratios_are_those_of_the_rounds() -> None:
    seconds = {NOW: [1.0, 10.0, 2.0], "before": [2.0, 20.0, 3.0], AGAIN: [1.0, 10.0, 2.0]}
    section = versions.section_of(seconds, "toy")
    assert section.rows == [
        [NOW, "2.000 s", "1.000"],
        ["before", "3.000 s", "2.000"],
        [AGAIN, "2.000 s", "1.000"],
    ]
    assert "3 rounds" in section.text


def test_a_step_of_this_version_is_timed() -> None:
    seconds = versions.timed({NOW: versions.ROOT}, ["tiny", "2", "fp32"], rounds=1)
    assert list(seconds) == [NOW]
    assert seconds[NOW][0] > 0
