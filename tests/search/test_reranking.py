"""Re-ranking with a second model: its scores are those of its own `rank`, and it encodes each image once."""

import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import toy
import toy_clip
from albef.config import UserError
from albef.engine import Engine
from albef.engine.loaded import LoadedModel
from albef.errors import Caution
from albef.model.verbs import Encoding
from albef.ranker import Hit
from albef.search.index import RERANKING_FOLDER, Index, build_index, load_index
from albef.search.kept import HASH_BYTES, KeptEncodings
from albef.search.search import search


def noise(file: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)).save(file)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Nine images, found by CLIP."""
    (tmp_path / "images").mkdir()
    for number in range(9):
        noise(tmp_path / "images" / f"{number}.png", number)
    return build_index(toy_clip.engine(), [tmp_path / "images"], tmp_path / "idx")


@pytest.fixture
def first() -> Engine:
    return toy_clip.engine()


@pytest.fixture
def second() -> Engine:
    """A model with matching, of other weights."""
    engine = toy.engine()
    with torch.no_grad():
        for parameter in engine.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return engine


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the image files that were encoded, in order."""
    names: list[str] = []
    encode = LoadedModel.image_encodings

    def noting(self: LoadedModel, images: list[Path], *more: object) -> Iterator[object]:
        names.extend(image.name for image in images if isinstance(image, Path))
        yield from encode(self, images, *more)

    monkeypatch.setattr(LoadedModel, "image_encodings", noting)
    return names


def same(hits: list[Hit], expected: list[Hit]) -> bool:
    """Whether two searches agree. Features differ a little with the number of images that are encoded at once."""
    places = [(hit.number, hit.path, hit.index_similarity) for hit in hits]
    scores = [(hit.score, hit.similarity, hit.match) for hit in hits]
    return places == [(hit.number, hit.path, hit.index_similarity) for hit in expected] and np.allclose(
        scores, [(hit.score, hit.similarity, hit.match) for hit in expected], atol=1e-5
    )


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / RERANKING_FOLDER).rglob("*") if path.is_file())


def test_the_second_model_orders_as_it_ranks(first: Engine, second: Engine, index: Index) -> None:
    hits = search(index, first, "Two foxes!", k=9, reranker=second)
    assert index.tokens is None  # the model of the index cannot match
    own = second.rank("Two foxes!", index.paths, k=9)
    assert [hit.path for hit in hits] == [index.paths[hit.number] for hit in own]
    found = {hit.path: hit.similarity for hit in search(index, first, "Two foxes!", k=9)}
    for hit, expected in zip(hits, own, strict=True):
        assert hit.path == index.paths[hit.number]
        assert hit.similarity == pytest.approx(expected.similarity, abs=1e-5)
        assert hit.match == pytest.approx(expected.match, abs=0.05)  # tokens are kept in half precision
        assert hit.score == pytest.approx(hit.similarity / second.temperature + hit.match, abs=1e-4)
        assert hit.index_similarity == found[hit.path]
    assert {round(hit.similarity, 3) for hit in hits} != {round(one, 3) for one in found.values()}


def test_only_the_best_of_the_index_are_read(
    first: Engine, second: Engine, index: Index, encoded: list[str]
) -> None:
    best = {hit.path for hit in search(index, first, "a fox", k=4)}
    hits = search(index, first, "a fox", k=2, rerank=4, reranker=second)
    assert len(hits) == 2
    assert sorted(encoded) == sorted(path.name for path in best)
    again = search(index, first, "a fox", k=4, rerank=1, reranker=second)  # at least k
    assert {hit.path for hit in again} == best
    assert same(again[:2], hits)


@pytest.mark.parametrize("batch_size", [None, 1, 2, 4])
def test_each_image_is_encoded_once(
    first: Engine,
    second: Engine,
    index: Index,
    encoded: list[str],
    batch_size: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    search(index, first, "a fox", k=3, rerank=3, reranker=second, say=said.append)
    assert len(encoded) == len(set(encoded)) == 3
    passes: list[int] = []
    match = LoadedModel.match_images

    def noting(self: LoadedModel, text: object, images: Encoding) -> np.ndarray:
        passes.append(len(images.tokens))
        return match(self, text, images)

    with monkeypatch.context() as patch:
        patch.setattr(LoadedModel, "match_images", noting)
        hits = search(index, first, "a fox", k=9, batch_size=batch_size, reranker=second, say=said.append)
    assert (sum(passes), max(passes)) == (9, batch_size or 9)
    assert len(encoded) == len(set(encoded)) == 9
    assert same(search(index, first, "a fox", k=9, reranker=second, say=said.append), hits)
    assert len(encoded) == 9
    kept = KeptEncodings(index.folder, second)
    assert [len(file.read_bytes()) for file in files_in(index.folder)] == [kept.bytes_each] * 9
    where = f"An image takes {kept.bytes_each} bytes and is kept in {index.folder}/{RERANKING_FOLDER}/"
    for sentence, counts in zip(
        said,
        (
            "3 images with the second model, 3 of them for the first time. ",
            "9 images with the second model, 6 of them for the first time. ",
            "9 images with the second model. ",
        ),
        strict=True,
    ):
        assert sentence.startswith(f"Re-ranking reads {counts}{where}")


def test_another_model_and_another_configuration_keep_their_own(
    first: Engine, second: Engine, index: Index, encoded: list[str]
) -> None:
    search(index, first, "a fox", reranker=second)
    search(index, first, "a fox", reranker=toy.engine())
    second.config = replace(second.config, mean=(0.1, 0.2, 0.3))
    hits = search(index, first, "a fox", reranker=second)
    own = second.rank("a fox", index.paths)
    second.bf16 = True  # computes otherwise
    search(index, first, "a fox", reranker=second)
    assert len(encoded) == 36 + 9  # `rank` keeps nothing
    assert len(files_in(index.folder)) == 36
    assert len(list((index.folder / RERANKING_FOLDER).iterdir())) == 4
    assert [hit.similarity for hit in hits] == pytest.approx([hit.similarity for hit in own[:9]], abs=1e-5)


def test_an_image_that_changed_is_encoded_again(
    first: Engine, second: Engine, index: Index, encoded: list[str]
) -> None:
    search(index, first, "a fox", reranker=second)
    image = index.paths[4]
    before = image.stat()
    for seed, later, longer in ((99, 1, b""), (98, 0, b"more")):  # either tells that it changed
        noise(image, seed)
        image.write_bytes(image.read_bytes() + longer)
        os.utime(image, ns=(before.st_mtime_ns, before.st_mtime_ns + later))
        encoded.clear()
        hits = {hit.path: hit for hit in search(index, first, "a fox", reranker=second)}
        assert encoded == ["4.png"]
        expected = (second.encode_images([image]) @ second.encode_texts(["a fox"])[0])[0]
        assert hits[image].similarity == pytest.approx(expected, abs=1e-5)


def test_images_that_cannot_be_read_come_last_and_are_counted(
    first: Engine, second: Engine, index: Index
) -> None:
    search(index, first, "a fox", k=9, reranker=second)
    found = [hit.path for hit in search(index, first, "a fox", k=9)]
    found[0].unlink()  # although it is kept: nobody could look at it
    found[2].write_bytes(b"no image")
    with pytest.warns(
        Caution, match=r"2 of 9 images cannot be read any more and come last, such as .*no such file"
    ):
        hits = search(index, first, "a fox", k=9, reranker=second)
    assert [hit.path for hit in hits[-2:]] == [found[0], found[2]]
    for hit in hits[-2:]:
        assert (hit.score, hit.match) == (-np.inf, None)
        assert np.isnan(hit.similarity)
        assert hit.index_similarity is not None
    assert all(np.isfinite(hit.score) for hit in hits[:-2])
    for path in index.paths:
        path.unlink(missing_ok=True)
    with pytest.warns(Caution, match="9 of 9 images cannot be read"):
        assert [hit.path for hit in search(index, first, "a fox", k=9, reranker=second)] == found


@pytest.mark.parametrize(
    ("damage", "place"),
    [("flipped", place) for place in (0, HASH_BYTES, HASH_BYTES + 40, -1)]
    + [(damage, 0) for damage in ("cut", "longer", "empty", "of another", "link", "folder")],
)
def test_a_damaged_file_is_made_anew(
    first: Engine, second: Engine, index: Index, encoded: list[str], damage: str, place: int
) -> None:
    hits = search(index, first, "a fox", k=9, reranker=second)
    files = files_in(index.folder)
    file, content = files[3], files[3].read_bytes()
    elsewhere = index.folder.parent / "precious"
    elsewhere.write_bytes(content)
    if damage == "flipped":
        changed = bytearray(content)
        changed[place] ^= 1
        file.write_bytes(changed)
    elif damage == "link":
        file.unlink()
        file.symlink_to(elsewhere)
    elif damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        longer = {
            "cut": content[:-1],
            "longer": content + b"\0",
            "empty": b"",
            "of another": files[4].read_bytes(),
        }
        file.write_bytes(longer[damage])
    encoded.clear()
    with warnings.catch_warnings(record=True) as cautions:
        warnings.simplefilter("always")
        assert same(search(index, first, "a fox", k=9, reranker=second), hits)
    assert len(encoded) == 1
    assert elsewhere.read_bytes() == content
    if damage == "folder":
        assert "Nothing is kept of these images" in str(cautions[0].message)
    else:
        assert (file.is_symlink(), len(file.read_bytes()), cautions) == (False, len(content), [])
        search(index, first, "a fox", k=9, reranker=second)
        assert len(encoded) == 1


def test_an_index_that_has_gone_is_not_made_again(first: Engine, second: Engine, index: Index) -> None:
    index.folder.rename(index.folder.with_name("moved"))
    with pytest.warns(Caution, match="Nothing is kept of these images"):
        assert len(search(index, first, "a fox", k=9, reranker=second)) == 9
    assert not index.folder.exists()


def test_the_model_of_the_index_only_finds(
    second: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(tmp_path / "a.png", 0)
    engine = toy.engine()
    index = build_index(engine, [tmp_path / "a.png"], tmp_path / "idx")
    assert index.tokens is not None
    matching: list[Engine] = []
    match = LoadedModel.match_images
    monkeypatch.setattr(
        LoadedModel, "match_images", lambda self, *given: (matching.append(self), match(self, *given))[1]
    )
    search(index, engine, "a fox", reranker=second)
    assert matching == [second]


def test_without_room_or_permission_re_ranking_goes_on(
    first: Engine, second: Engine, index: Index, encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hits = search(index, first, "a fox", reranker=toy.engine())  # another model
    (index.folder / RERANKING_FOLDER).rename(index.folder / "aside")
    (index.folder / RERANKING_FOLDER).write_text("in the way")
    encoded.clear()
    for _ in range(2):
        with pytest.warns(
            Caution, match="Nothing is kept of these images, so that the next search reads them anew: "
        ):
            assert same(search(index, first, "a fox", reranker=toy.engine()), hits)
    assert len(encoded) == 18
    (index.folder / RERANKING_FOLDER).unlink()
    monkeypatch.setattr("albef.disk.free_bytes", lambda place: 500)
    with pytest.warns(Caution, match="but its disk has only 500 bytes free"):
        assert same(search(index, first, "a fox", reranker=toy.engine()), hits)
    assert files_in(index.folder) == []


def test_a_killed_search_leaves_nothing_that_is_read(
    first: Engine, second: Engine, index: Index, encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hits = search(index, first, "a fox", k=9, reranker=toy.engine())

    def killed(file: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("albef.writing.sync", killed)
        with pytest.raises(KeyboardInterrupt):
            search(index, first, "a fox", reranker=second)
    assert len({file.parent for file in files_in(index.folder)}) == 1
    encoded.clear()
    search(index, first, "a fox", reranker=second)
    assert len(encoded) == 9
    assert same(search(index, first, "a fox", k=9, reranker=toy.engine()), hits)


def test_two_searches_at_once(first: Engine, second: Engine, index: Index) -> None:
    """As threads: they share a process, and so no lock of files keeps them apart."""
    expected = search(index, first, "a fox", k=9, reranker=second)
    for file in files_in(index.folder):
        file.unlink()
    results: list[object] = []

    def run() -> None:
        try:
            results.append(search(index, first, "a fox", k=9, batch_size=2, reranker=second))
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(one, list) and same(one, expected) for one in results)
    assert len(results) == 4
    assert len(files_in(index.folder)) == 9


def test_an_index_is_made_again_with_its_kept_encodings_gone(
    first: Engine, second: Engine, index: Index, encoded: list[str]
) -> None:
    search(index, first, "a fox", reranker=second)
    places = list(index.paths)
    places[0].write_bytes(places[1].read_bytes())
    again = build_index(first, places, index.folder)
    assert files_in(again.folder) == []
    # A search that began before goes on, and what it keeps is right for the new index too.
    encoded.clear()
    search(index, first, "a fox", reranker=second)
    hits = search(load_index(index.folder), first, "a fox", k=9, reranker=second)
    assert len(encoded) == 9
    own = second.rank("a fox", places)
    assert [hit.similarity for hit in hits] == pytest.approx([hit.similarity for hit in own[:9]], abs=1e-5)


def test_what_cannot_re_rank(first: Engine, second: Engine, index: Index) -> None:
    for engine, trained in ((toy.engine("contrast"), "contrast"), (toy.engine("itm"), "itm")):
        with pytest.raises(UserError, match=f"was trained for {trained}, but re-ranking needs ITC and ITM"):
            search(index, first, "a fox", reranker=engine)
    with pytest.raises(UserError, match="Re-ranking reads a text, but the query is an image"):
        search(index, first, index.paths[0], reranker=second)
    with pytest.raises(UserError, match=r"query for the second model is empty"):
        search(index, first, "?!", reranker=second)
    assert not (index.folder / RERANKING_FOLDER).exists()
