"""Rows of JSON one by one: the same as reading the whole."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from albef.config import UserError
from albef.data.json_rows import json_rows, jsonl_rows

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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b'[{"a": 1}][{"a": 2}]', "line 1: broken JSON .more follows after the list"),
        ("x.json", b'[{"a": 1}]\n\n{"a": 2}', "line 3: broken JSON .more follows after the list"),
        (
            "x.json",
            b'[{"a": 1}, {"b": 1, "c": 2, "b": 3}]',
            'row 2: cannot be read .the key "b" is there twice',
        ),
        ("x.jsonl", b'{"a": 1}\n{"b": 1, "b": 3}', 'line 2: cannot be read .the key "b" is there twice'),
        ("x.json", b"  \n ", "is empty"),
        ("x.jsonl", b'[{"a": 1},\n{"a": 2}]', "line 1: a list begins here.*\\.json"),
        ("x.jsonl", b'{"a": 1},\n{"a": 2}', "line 1: broken JSON .Extra data"),
        ("x.jsonl", b'{"a": 1}\n{"a": ' + b"9" * 5000 + b"}", "line 2: cannot be read"),
        ("x.json", b"[" + b'{"a":' * 100_000, "row 1: cannot be read"),
        ("x.json", b'[{"a": 1},\n{"a": "caf\xe9"}]', "line 2: not UTF-8 text"),
        ("x.jsonl", b'{"a": 1}\n' * 3000 + b'{"a": "caf\xe9"}', "line 3001: not UTF-8 text"),
        ("x.json", '[{"a": 1}]'.encode("utf-16"), "UTF-16 text: save it as UTF-8"),
        ("x.json", b"\x1f\x8b\x08\x00rest", "gzip.: unpack it"),
    ],
)
def test_nothing_of_a_file_is_passed_over(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as refused:
        list(jsonl_rows(file) if name.endswith("l") else json_rows(file))
    assert str(refused.value).startswith(str(file))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_ends_of_lines_and_a_byte_order_mark(tmp_path: Path, end: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + end.join(['{"a": 1}', "", '{"a": "\u2028"}', ""]).encode())
    assert [row for _, row in jsonl_rows(file)] == [{"a": 1}, {"a": "\u2028"}]
    file.write_bytes(b"\xef\xbb\xbf" + end.join(["[", '{"a": 1}', "]", ""]).encode())
    assert [row for _, row in json_rows(file)] == [{"a": 1}]
