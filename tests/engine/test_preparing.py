"""Images are decoded by several threads ahead of a GPU; what comes out is what one thread makes."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from albef.data.images import BadImage
from albef.engine import Engine, loaded, preparing
from albef.engine.preparing import made_ahead


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded.LoadedModel, "decoding_threads", 4)


def files(folder: Path, count: int) -> list[Path]:
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        found.append(folder / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(found[-1])
    return found


def test_things_are_made_in_order_and_only_so_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "MADE_AHEAD", 3)
    taken: list[int] = []

    def given() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    made = made_ahead(lambda number: number * number, given(), threads=4)
    for number in range(20):
        assert next(made) == number * number
        assert len(taken) <= number + 4
    assert list(made) == []


def test_an_error_comes_in_its_turn_and_whoever_stops_leaves_nothing_behind() -> None:
    def inverse(number: int) -> float:
        return 1 / number

    before = threading.active_count()
    made = made_ahead(inverse, [1, 2, 0, 4], threads=2)
    assert (next(made), next(made)) == (1, 0.5)
    with pytest.raises(ZeroDivisionError):
        next(made)
    stopped = made_ahead(inverse, [1, 2, 3, 4], threads=2)
    next(stopped)
    stopped.close()
    assert threading.active_count() == before


@pytest.mark.usefixtures("four_threads")
def test_two_images_are_decoded_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    both, pixels = threading.Barrier(2, timeout=60), engine.prepare.sight.read
    monkeypatch.setattr(engine.prepare.sight, "read", lambda image: both.wait() >= 0 and pixels(image))
    assert engine.encode_images(files(tmp_path, 4)).shape[0] == 4


def test_threads_change_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = files(tmp_path, 9)
    given[4].write_bytes(b"no image")
    found, noted = [], []
    for threads in (1, 4):
        monkeypatch.setattr(loaded.LoadedModel, "decoding_threads", threads)
        bad: dict[int, BadImage] = {}
        found.append(engine.encode_images(given, batch_size=2, bad=bad))
        noted.append({number: str(error) for number, error in bad.items()})
        with pytest.raises(BadImage, match=r"4\.png"):
            engine.encode_images(given)
    assert np.array_equal(*found)
    assert noted[0] == noted[1]
    assert list(noted[0]) == [4]


@pytest.mark.usefixtures("four_threads")
def test_the_same_pillow_image_may_be_given_many_times(engine: Engine) -> None:
    """Pillow decodes one when it is first looked at, which two threads must not do at once."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    expected = engine.encode_images([pixels])[0]
    for _ in range(5):
        lazy = Image.open(io.BytesIO(content.getvalue()))
        for feature in engine.encode_images([lazy] * 8):
            np.testing.assert_allclose(feature, expected, atol=1e-6)
