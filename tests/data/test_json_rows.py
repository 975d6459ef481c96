"""Rows of JSON one by one: the same as reading the whole."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from albef.config import UserError
from albef.data.json_rows import json_rows

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.dictionaries(st.text(max_size=3), VALUES, max_size=3),
    rows=st.lists(VALUES, max_size=4),
    indent=st.sampled_from([None, 2]),
)
def test_the_list_under_a_key_row_by_row(
    tmp_path: Path, before: dict[str, object], rows: list[object], indent: int | None
) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(before | {"the rows": rows, "after": 1}, indent=indent))
    assert [row for _, row in json_rows(file, "the rows")] == rows
    file.write_text(json.dumps(rows, indent=indent))
    assert [row for _, row in json_rows(file)] == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", 'not an object; expected {"rows"'),
        ("{}", 'the key "rows" is missing; found only nothing'),
        ('{"row": []}', 'the key "rows" is missing; rename "row"'),
        ('{"rows": 3}', '"rows" is not a list'),
        ('{"rows": [1 2]}', "line 1: broken JSON .a comma or ] is missing"),
        ('{\n"a" 1}', "line 2: broken JSON .a colon is missing"),
        ('{"a": 1 "rows": []}', "broken JSON .a comma or } is missing"),
        ('{"a": 1,', 'the key "rows" is missing'),
        ('{"rows": [1, ', "broken JSON"),
    ],
)
def test_broken_objects(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        list(json_rows(file, "rows"))
