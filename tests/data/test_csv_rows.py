"""Tables: no row is lost or changed without a word."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albef.config import DataConfig, TaskName, UserError
from albef.data.sources import Source, open_source


def opened(file: Path, content: str | bytes, task: TaskName = "pretrain", split: str = "test") -> Source:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_source(DataConfig(source=str(file)), split, 0, 16, task)


def captions(source: Source) -> list[str]:
    return [source.record(index, 0).captions[0] for index in range(len(source))]


def table(lines: list[str], separator: str) -> str:
    return "".join(f"{n}.png{separator}{line}\n" for n, line in enumerate(lines))


STRAY = ["a fox", '"blue disc, says the label', "a car", 'the "dot"', '"', 'he said "', '""x', 'x"y"']


def test_a_mark_in_a_tsv_is_a_letter(tmp_path: Path) -> None:
    source = opened(tmp_path / "a.tsv", "image\tcaption\n" + table(STRAY, "\t"))
    assert captions(source) == STRAY
    assert source.record(7, 0).origin == "a.tsv, line 9"


def test_marks_round_a_whole_field_of_a_tsv_are_none(tmp_path: Path) -> None:
    lines = ['"a ""red"" car"', '"a fox"', '""']
    assert captions(opened(tmp_path / "a.tsv", "image\tcaption\n" + table(lines, "\t"))) == [
        'a "red" car',
        "a fox",
        "",
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a", '"b', "c"], "line 3: a field that begins with a quotation mark there does not end"),
        (["a", '"b', "c", 'the "d"', "e"], "line 3: a field that begins .* does not end"),
        (["a", '"b', "c", 'he said "', "e"], "line 3: .* ends in line 5 only, and other rows are in it"),
        (["a", '"b" c'], "line 3: a field that begins"),
        (["a", '"b \\"c\\" d"'], "line 3: a field that begins"),
        (["a", '"' + "b" * 200_000], "line 3: a field that begins"),
    ],
)
def test_a_mark_that_is_not_closed_in_a_csv_is_refused(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        opened(tmp_path / "a.csv", "image,caption\n" + table(lines, ","))


def test_a_caption_over_several_lines_is_read_and_said(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    content = 'image,caption\na.png,"a fox\non grass"\nb.png,a car\nc.png,"two, or\nthree\ntrees"\n'
    source = opened(tmp_path / "a.csv", content)
    assert captions(source) == ["a fox\non grass", "a car", "two, or\nthree\ntrees"]
    assert source.record(0, 0).origin == "a.csv, lines 2 to 3"
    assert source.record(2, 0).origin == "a.csv, lines 5 to 7"
    (note,) = source.notes
    assert "a.csv: 2 of 3 rows run over several lines, the first from lines 2 to 3" in note
    assert opened(tmp_path / "a.csv", "image,caption\na.png,a fox\n").notes == []


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\t\0"), max_size=8),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([",", ";", "|", "\t"]),
    st.sampled_from([".csv", ".tsv"]),
)
def test_what_a_writer_of_tables_writes_is_read_as_it_was(tmp_path_factory, texts, separator, ending) -> None:
    content = io.StringIO()
    writer = csv.writer(content, delimiter=separator)
    writer.writerow(["caption", "image"])
    writer.writerows([text, "a.png"] for text in texts)
    file = tmp_path_factory.getbasetemp() / f"any{ending}"
    assert captions(opened(file, content.getvalue())) == texts


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_the_separator_is_read_off_the_header(tmp_path: Path, separator: str, ending: str) -> None:
    content = f"image{separator}caption\na.png{separator}a fox\n"
    assert captions(opened(tmp_path / f"a{ending}", content)) == ["a fox"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "filepath\ttitle\na.png\ta fox\n",
            r'header of tabs: the key "image" is missing; rename "filepath"\.',
        ),
        ("image;text\na.png;a fox\n", r'header of semicolons: the key "caption" is missing; rename "text"\.'),
        ("picture,title\na.png,a fox\n", 'header: the key "image" is missing; found only picture, title'),
        ("image_id,caption\n1,a fox\n", 'header: the key "image" is missing; found only image_id, caption'),
        ("image,caption,caption\na.png,a fox,b\n", 'header: two columns are called "caption"'),
        ("image,caption\na.png,a fox\nimage,caption\nb.png,x\n", "line 3: the header is repeated here"),
        ("image,caption\na.png,a fox,b\n", r"line 2: not as many fields as the header has \(3, not 2\)"),
        ("image,caption\na.png\n", r"line 2: not as many fields as the header has \(1, not 2\)"),
        ("", "holds no rows"),
        ("\n\n", "holds no rows"),
        ("image,caption\n,\n", "holds no rows"),
        (b"image,caption\na.png,caf\xe9\n", "line 2: not UTF-8 text"),
        ("image,caption\na.png,a fox\n".encode("utf-16"), "UTF-16 text: save it as UTF-8"),
        (b"PK\x03\x04\x14\x00\x06\x00\xff", "workbooks"),
        (b"\x1f\x8b\x08\x00\xff", "gzip"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        opened(tmp_path / "a.csv", content)
    assert str(refused.value).isprintable()


def test_a_field_of_a_tsv_with_a_tab_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"line 2: not as many fields .* can hold neither a tab nor a new line"
    ):
        opened(tmp_path / "a.tsv", 'image\tcaption\na.png\t"a\tfox"\n')


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_ends_of_lines_and_empty_rows(tmp_path: Path, end: str, ending: str) -> None:
    separator = "," if ending == ".csv" else "\t"
    lines = ["", "image,caption,", "a.png,a fox,", "", ",,", "b.png,a car,"]
    content = "\ufeff" + end.join(lines).replace(",", separator)
    source = opened(tmp_path / f"a{ending}", content)
    assert captions(source) == ["a fox", "a car"]
    assert source.record(1, 0).origin == f"a{ending}, line 6"


def test_tables_of_other_tasks(tmp_path: Path) -> None:
    questions = "image,question,answer,question_id\na.png,what?,a fox,1\nb.png,who?,,2\n"
    source = opened(tmp_path / "a.csv", questions, "vqa", "train")
    assert [(r.captions, r.answers, r.key) for r in [source.record(0, 0)]] == [(("what?",), ("a fox",), "1")]
    assert source.notes[0].endswith('1 of 2 questions have no "answer" and are left out.')
    source = opened(tmp_path / "a.csv", "image;sentence;label\na;a fox;neutral\n", "entailment")
    assert (source.record(0, 0).image.name, source.record(0, 0).label) == ("a.jpg", 1)
    with pytest.raises(UserError, match='header: the key "question" is missing; rename "questions"'):
        opened(tmp_path / "a.csv", "image,questions\na.png,what?\n", "vqa")
    source = opened(tmp_path / "a.csv", "image,text,box\na.png,a fox,\n", "grounding", "train")
    assert source.record(0, 0).box is None
    with pytest.raises(UserError, match='line 2: "box" must be'):
        opened(tmp_path / "a.csv", 'image,text,box\na.png,a fox,"[1,2,3,4]"\n', "grounding")
