"""`albef index` and `albef search` as people keep an index: moved models and photographs, scripts, odd names."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import toy
from albef.cli import main
from albef.engine import Engine
from albef.engine.loaded import LoadedModel
from albef.model.albef import ALBEF
from albef.model_directory import save_model
from albef.search.index import Index
from commands import refused
from search_commands import found


def test_a_moved_model_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "model").rename(home / "my-model")
    said = refused(capsys, "search", str(home / "idx"), "a fox")
    assert f"{home / 'idx'}: the model that made it is no longer at {home / 'model'}" in said
    assert "--model MODEL" in said
    paths, _ = found(home, capsys, "--model", str(home / "my-model"))
    assert len(paths) == 4


def test_an_index_of_a_model_in_memory_asks_for_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads((home / "idx" / "index.json").read_text())
    (home / "idx" / "index.json").write_text(json.dumps(facts | {"model": ""}))
    (home / "idx" / "manifest.json").unlink()
    assert "--model MODEL" in refused(capsys, "search", str(home / "idx"), "a fox")


def test_another_model_is_told_from_the_one_that_made_the_index(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = toy.engine("contrast")
    save_model(home / "another", engine.model, engine.tokenizer, "")
    said = refused(capsys, "search", str(home / "idx"), "a fox", "--model", str(home / "another"))
    assert "made with other weights" in said


def test_moved_photographs_are_counted_and_found_again(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "photos").rename(home / "photographs")
    main(["search", str(home / "idx"), "a fox"])
    counted = "3 of 4 hits are no longer where they were indexed. If you moved them, add --moved OLD=NEW."
    assert counted in capsys.readouterr().out
    assert found(home, capsys)[1].strip() == counted
    monkeypatch.chdir(home)
    for move in (f"{home / 'photos'}={home / 'photographs'}", "photos=photographs", "photos/=./photographs/"):
        paths, said = found(home, capsys, "--moved", move)
        assert said == ""
        assert paths == [
            str(home / name)
            for name in (
                "other/e.png",
                "photographs/2023/a.png",
                "photographs/2024/b.png",
                "photographs/2024/c d.png",
            )
        ]


def test_photographs_may_have_moved_to_several_places(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "photos" / "2023").rename(home / "a=b")
    (home / "photos" / "2024" / "b.png").rename(home / "b.png")
    moves = [f"{home}/photos/2023={home}/a=b", f"{home}/photos/2024/b.png={home}/b.png"]
    paths, said = found(home, capsys, *(word for move in moves for word in ("--moved", move)))
    assert (said, len(paths)) == ("", 4)
    assert str(home / "b.png") in paths
    (home / "photos").rename(home / "c")  # and what has an equals sign in its old name
    main(["index", str(home / "model"), str(home / "a=b"), "--out", str(home / "idx")])
    (home / "a=b").rename(home / "d")
    capsys.readouterr()
    assert found(home, capsys, "--moved", f"{home}/a=b={home}/d")[0] == [f"{home}/d/a.png"]


@pytest.mark.parametrize(
    ("move", "message"),
    [
        ("photos", "write it as OLD=NEW"),
        ("=photos", "write it as OLD=NEW"),
        ("/elsewhere=photos", "/elsewhere: no image of the index was there. They were below"),
        ("photos/20=photos", "photos/20: no image of the index was there"),
        ("photos=nowhere", "nowhere: no such file or folder"),
    ],
)
def test_moves_that_mean_nothing_are_refused(
    home: Path, move: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    assert message in refused(capsys, "search", "idx", "a fox", "--moved", move)


def test_hits_for_a_script(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "sub").mkdir()
    main(["search", str(home / "idx"), "a fox", "--json", str(home / "sub" / "hits.json")])
    table = capsys.readouterr().out
    hits = json.loads((home / "sub" / "hits.json").read_text())
    assert [set(hit) for hit in hits] == [{"path", "score", "similarity", "match"}] * 4
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert all(0 < hit["match"] < 1 for hit in hits)
    rows = [
        line.split(None, 5) for line in table.splitlines() if str(home / "photos") in line or "e.png" in line
    ]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    assert [row[1] for row in rows] == [f"{hit['score']:.2f}" for hit in hits]
    assert [row[-1].strip() for row in rows] == [hit["path"] for hit in hits]
    main(["search", str(home / "idx"), "a fox", "--json", "-"])
    assert json.loads(capsys.readouterr().out) == hits
    main(["search", str(home / "idx"), str(home / "other" / "e.png"), "--json", "-", "-k", "1"])
    (hit,) = json.loads(capsys.readouterr().out)
    assert (hit["path"], hit["match"]) == (str(home / "other" / "e.png"), None)
    sheets = {path.name for path in home.glob("*.png")}
    assert sheets == {"idx-search.png"}  # of the table; a script gets none unasked


@pytest.mark.parametrize(
    ("query", "words", "message"),
    [
        ("a fox", ["--json", "-", "--paths"], "--json - and --paths both print"),
        (
            "{home}/other/e.png",
            ["--batch-size", "2"],
            "--batch-size has no effect when the query is an image",
        ),
    ],
)
def test_arguments_that_mean_nothing_are_refused(
    home: Path, query: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "search", str(home / "idx"), query.format(home=home), *words)


def test_paths_are_the_bytes_of_the_names(home: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    odd = home / "other" / os.fsdecode(b"caf\xe9\n.png")
    (home / "other" / "e.png").rename(odd)
    main(["index", str(home / "model"), str(home / "other"), "--out", str(home / "idx")])
    capfdbinary.readouterr()
    for option, end in (("--paths0", b"\0"), ("--paths", b"\n")):
        main(["search", str(home / "idx"), "a fox", option])
        assert capfdbinary.readouterr().out == os.fsencode(odd) + end
    main(["search", str(home / "idx"), "a fox"])
    assert rb"caf\udce9\n.png" in capfdbinary.readouterr().out
    assert (home / "idx-search.png").stat().st_size > 0


def test_any_file_is_a_query_by_image(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    (home / "other" / "e.png").rename(home / "holiday")
    (home / "a fox").mkdir()  # a folder is no image
    (home / "notes.txt").write_text("no image")
    main(["search", "idx", "holiday", "--json", "-", "-k", "1"])
    (hit,) = json.loads(capsys.readouterr().out)
    assert hit["similarity"] == pytest.approx(1, abs=1e-4)
    main(["search", "idx", "a fox", "--json", "-"])
    assert all(hit["match"] is not None for hit in json.loads(capsys.readouterr().out))
    assert "notes.txt: " in refused(capsys, "search", "idx", "notes.txt")
    said = refused(capsys, "search", "idx", "gone.jpg")
    assert said.startswith(
        "albef: gone.jpg: no such file. A query that ends in .jpg is read as an image: correct "
    )
    assert refused(capsys, "predict", "retrieval", "model", "gone.jpg", "a fox") == said
    assert "The query is empty" in refused(capsys, "search", "idx", "?!")
    main(["search", "idx", "a fox " * 999])  # longer than any name of a file
    capsys.readouterr()
    main(["predict", "retrieval", "model", "holiday", "a fox", "two red cars"])
    assert "two red cars" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["index", "{idx}", "{home}/other", "--out", "{home}/new"], "{idx}: is an index"),
        (["search", "{idx}", "a fox", "--model", "{idx}"], "--model {idx}: is an index"),
    ],
)
def test_an_index_is_no_model(
    home: Path, command: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"home": home, "idx": home / "idx"}
    said = refused(capsys, *(word.format(**known) for word in command))
    assert f"{named}, but a model is needed here.".format(**known) in said


def test_one_is_counted_as_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "photos" / "2023" / "broken.png").write_bytes(b"no image")
    main(["index", str(home / "model"), str(home / "photos" / "2023"), "--out", str(home / "idx2")])
    said = capsys.readouterr().out
    assert "2 image files. Their index" in said
    assert "\n1 image indexed in" in said
    assert "\n1 unreadable image skipped;" in said
    main(["index", str(home / "model"), str(home / "other"), "--out", str(home / "idx2")])
    assert capsys.readouterr().out.startswith("1 image file. Its index")
    (home / "other" / "e.png").unlink()
    main(["search", str(home / "idx2"), "a fox", "--paths"])
    assert "1 of 1 hits is no longer where it was indexed. If you moved it, add" in capsys.readouterr().err


def test_a_sheet_that_can_not_be_written_does_not_cost_the_hits(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "idx-search.png").mkdir()
    main(["search", str(home / "idx"), "a fox"])
    shown = capsys.readouterr()
    assert "e.png" in shown.out
    assert f"{home / 'idx-search.png'}: is a folder" in shown.out
    assert "--out FILE.png" in shown.out


def test_grounding_writes_nothing_unasked(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(home.rglob("*"))
    command = ["predict", "grounding", str(home / "model"), str(home / "other" / "e.png"), "a fox"]
    main(command)
    assert "--out FILE.png" in capsys.readouterr().out
    assert sorted(home.rglob("*")) == before
    main([*command, "--out", str(home / "map.png")])
    assert str(home / "map.png") in capsys.readouterr().out
    assert (home / "map.png").stat().st_size > 0


def test_room_is_said_and_compared_before_the_work(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (home / "idx" / "manifest.json").read_bytes()
    main(["index", str(home / "model"), str(home / "photos"), "--out", str(home / "idx2")])
    taken = (home / "idx2" / "tokens.npy").stat().st_size + (home / "idx2" / "features.npy").stat().st_size
    assert capsys.readouterr().out.startswith(f"3 image files. Their index will take {taken - 256} bytes (")
    monkeypatch.setattr("albef.disk.free_bytes", lambda place: 500)
    monkeypatch.setattr("albef.search.index.whole_folder", lambda *_: pytest.fail("the work has begun"))
    said = refused(capsys, "index", str(home / "model"), str(home / "photos"), "--out", str(home / "idx"))
    assert f"{home / 'idx'}: needs " in said
    assert "but its disk has only 500 bytes free" in said
    assert (home / "idx" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("command", "effect"),
    [
        (["index", "{model}", "{photos}", "--out", "{new}"], True),
        (["search", "{idx}", "a fox"], True),
        (["predict", "retrieval", "{model}", "a fox", "{photo}", "{photo}"], True),
        (["predict", "match", "{model}", "{photo}", "a fox"], False),
    ],
)
def test_device_precision_and_batch_size(
    home: Path,
    command: list[str],
    effect: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load, passes, loaded = Engine.load, [], []

    def noting(*arguments: object, **options: object) -> Engine:
        loaded.append(load(*arguments, **options))
        return loaded[-1]

    def counting(kind: type, verb: str) -> None:
        inner = getattr(kind, verb)

        def counted(self: object, *given: object) -> object:
            passes.append(verb)
            return inner(self, *given)

        monkeypatch.setattr(kind, verb, counted)

    monkeypatch.setattr(Engine, "load", noting)
    known = {
        "model": home / "model",
        "photos": home / "photos",
        "photo": home / "other" / "e.png",
        "idx": home / "idx",
        "new": home / "new",
    }
    words = [word.format(**known) for word in command]
    main([*words, "--device", "cpu", "--bf16"])
    assert loaded[-1].bf16
    assert "can't be used here" in refused(capsys, *words, "--device", "nonsense")
    if not effect:
        with pytest.raises(SystemExit):
            main([*words, "--batch-size", "1"])
        return
    counting(ALBEF, "encode_image")
    counting(LoadedModel, "match_logits")
    main([*words, "--batch-size", "2"])
    few = len(passes)
    passes.clear()
    main([*words, "--batch-size", "1"])
    assert len(passes) > few


def test_an_index_that_is_replaced_while_it_is_read_is_read_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from albef.search import index as module

    load, times = np.load, []

    def replaced_meanwhile(file: Path, **options: object) -> np.ndarray:
        times.append(file)
        if len(times) == 1:
            main(["index", str(home / "model"), str(home / "other"), "--out", str(home / "idx")])
        return load(file, **options)

    with monkeypatch.context() as patch:
        patch.setattr(np, "load", replaced_meanwhile)
        found: Index = module.load_index(home / "idx")
    assert [path.name for path in found.paths] == ["e.png"]
    assert len(found.tokens) == 1


def test_advice_about_a_result_is_one_sentence(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = str(home / "other" / "e.png")
    main(["predict", "retrieval", str(home / "model"), photo, "a fox", "?!"])
    advice = "albef: 1 of 2 texts have no words, such as '?!': their results mean nothing.\n"
    assert capsys.readouterr().err == advice
