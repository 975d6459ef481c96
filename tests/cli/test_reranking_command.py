"""`albef search --rerank-with`."""

import contextlib
import io
import json
from pathlib import Path

import pytest
import torch

import toy
from albef.cli import main
from albef.engine import Engine
from albef.model_directory import save_model
from commands import refused


@pytest.fixture
def second(home: Path) -> Path:
    """Another model directory, beside an index of a model that cannot match."""
    for name, engine in (("features", toy.engine("contrast")), ("second", toy.engine())):
        with torch.no_grad():
            engine.model.image_encoder.positions.add_(0.01)
        save_model(home / name, engine.model, engine.tokenizer, "")
    with contextlib.redirect_stdout(io.StringIO()):
        places = [str(home / "photos"), str(home / "other")]
        main(["index", str(home / "features"), *places, "--out", str(home / "idx")])
    return home / "second"


def test_a_second_model_re_ranks(home: Path, second: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["search", str(home / "idx"), "a fox", "-k", "3"]
    main([*command, "--json", "-"])
    plain = json.loads(capsys.readouterr().out)
    assert [hit["match"] for hit in plain] == [None] * 3
    main([*command, "--rerank-with", str(second), "--json", str(home / "hits.json")])
    shown = capsys.readouterr()
    hits = json.loads((home / "hits.json").read_text())
    assert [set(hit) for hit in hits] == [{"path", "score", "similarity", "match", "index_similarity"}] * 3
    own = Engine.load(second, quiet=True).rank("a fox", [hit["path"] for hit in hits])
    assert [hit.number for hit in own] == [0, 1, 2]
    assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in own], abs=0.05)
    known = {hit["path"]: hit["similarity"] for hit in plain}
    assert all(hit["index_similarity"] == known[hit["path"]] for hit in hits if hit["path"] in known)
    rows = [line.split(None, 6) for line in shown.out.splitlines() if ".png" in line and "sheet" not in line]
    assert [row[1] for row in rows] == [f"{hit['score']:.2f}" for hit in hits]
    assert [row[5] for row in rows] == [f"{hit['index_similarity']:.3f}" for hit in hits]
    kept = next((home / "idx" / "reranking").iterdir())
    cost = f"Re-ranking reads 4 images with {second}{{}}. An image takes 208 bytes and is kept in {kept}.\n"
    assert shown.err == cost.format(", 4 of them for the first time")
    main([*command, "--rerank-with", str(second), "--json", "-"])
    shown = capsys.readouterr()
    assert shown.err == cost.format("")
    for hit, before in zip(json.loads(shown.out), hits, strict=True):
        assert {**hit, "path": 0} == pytest.approx({**before, "path": 0}, abs=1e-5)
    main([*command, "--rerank-with", str(second), "--paths"])
    assert capsys.readouterr().out.splitlines() == [hit["path"] for hit in hits]


def test_re_ranking_follows_images_that_moved_and_counts_those_that_are_gone(
    home: Path, second: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "photos").rename(home / "photographs")
    command = ["search", str(home / "idx"), "a fox", "--rerank-with", str(second), "--json", "-"]
    main([*command, "--moved", f"{home / 'photos'}={home / 'photographs'}"])
    shown = capsys.readouterr()
    moved = json.loads(shown.out)
    assert all(hit["match"] is not None for hit in moved)
    assert "no longer" not in shown.err
    main(command)
    shown = capsys.readouterr()
    hits = json.loads(shown.out)
    assert [hit["path"] for hit in hits[:1]] == [str(home / "other" / "e.png")]
    for hit in hits[1:]:
        assert (hit["score"], hit["similarity"], hit["match"]) == (None, None, None)
        assert hit["index_similarity"] is not None
    assert "albef: 3 of 4 images cannot be read any more and come last, such as " in shown.err
    assert "3 of 4 hits are no longer where they were indexed." in shown.err


def test_an_index_with_kept_encodings_is_verified_and_made_again(
    home: Path, second: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["search", str(home / "idx"), "a fox", "--rerank-with", str(second)])
    capsys.readouterr()
    main(["verify", str(home / "idx")])
    assert capsys.readouterr().out == f"{home / 'idx'}: undamaged\n"
    assert (home / "idx" / "reranking").is_dir()
    main(["index", str(home / "features"), str(home / "other"), "--out", str(home / "idx")])
    assert not (home / "idx" / "reranking").exists()


@pytest.mark.parametrize(
    ("query", "model", "message"),
    [
        ("a fox", "{home}/features", "features: was trained for contrast, but re-ranking needs ITC and ITM."),
        ("a fox", "{home}/idx", "--rerank-with {home}/idx: is an index, but a model is needed here."),
        ("a fox", "{home}/idx/", "is an index, but a model is needed here."),
        ("a fox", "{home}/nothing", "nothing: no such folder"),
        ("{home}/other/e.png", "{home}/second", "--rerank-with has no effect when the query is an image"),
        ("?!", "{home}/second", "The query is empty"),
    ],
)
def test_what_cannot_re_rank_is_refused(
    home: Path,
    second: Path,
    query: str,
    model: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [query.format(home=home), "--rerank-with", model.format(home=home)]
    assert message.format(home=home) in refused(capsys, "search", str(home / "idx"), *words)
    assert not (home / "idx" / "reranking").exists()
