"""Conversion to RGB after resizing, as CLIP was published."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toy
import toy_clip
from albef.data.images import BadImage, ImageInput, open_image, open_unconverted
from albef.data.transforms import evaluation_transform
from albef.engine import Engine


def palette() -> Image.Image:
    image = Image.fromarray(np.tile(np.array([0, 1], np.uint8), (8, 4)))
    image.putpalette([255, 0, 0, 0, 0, 255])
    return image


def with_alpha() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 4), np.uint8)
    return Image.fromarray(pixels)


def test_colours_of_a_palette_are_not_mixed() -> None:
    found = evaluation_transform(palette(), 5, "crop")
    assert set(np.unique(found)) == {0, 255}
    assert len(np.unique(evaluation_transform(palette().convert("RGB"), 5, "crop"))) > 2


def file_of(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("make", [palette, with_alpha])
@pytest.mark.parametrize("given", ["file", "bytes", "Pillow"])
def test_an_engine_that_converts_last_sees_the_published_pixels(
    make: object, given: str, tmp_path: Path
) -> None:
    assert callable(make)
    image = make()
    (tmp_path / "a.png").write_bytes(file_of(image))
    images: dict[str, ImageInput] = {
        "file": tmp_path / "a.png",
        "bytes": file_of(image),
        "Pillow": image,
    }
    first = toy_clip.engine()
    config = dataclasses.replace(first.config, rgb_last=True)
    last = Engine(toy_clip.model(config=config), first.tokenizer, quiet=True)
    published = evaluation_transform(image, config.image_size, "crop")
    assert np.array_equal(last.prepare.sight.read(images[given]).numpy(), published)
    assert not np.array_equal(first.prepare.sight.read(images[given]).numpy(), published)


def test_other_images_are_the_same_either_way(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for mode, shape in (("RGB", (9, 12, 3)), ("L", (9, 12))):
        image = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
        turned = Image.Exif()
        turned[0x0112] = 6
        image.save(tmp_path / f"{mode}.jpg", exif=turned)
        opened = open_unconverted(tmp_path / f"{mode}.jpg", obey_exif=True)
        assert np.array_equal(np.asarray(opened), open_image(tmp_path / f"{mode}.jpg", obey_exif=True))
        assert opened.size == (9, 12)


def test_it_is_turned_upright_in_its_own_mode(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    with_alpha().save(tmp_path / "a.png", exif=turned)
    opened = open_unconverted(tmp_path / "a.png", obey_exif=True)
    assert (opened.mode, opened.size) == ("RGBA", (9, 12))
    assert open_unconverted(tmp_path / "a.png", obey_exif=False).size == (12, 9)


def test_what_is_no_image_is_refused_as_ever(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(BadImage, match=r"a\.png"):
        open_unconverted(tmp_path / "a.png", obey_exif=True)
    assert toy.MODEL.rgb_last is False


@pytest.mark.parametrize("size", [(1, 200_000), (200_000, 1)])
def test_a_long_strip_takes_no_memory(size: tuple[int, int]) -> None:
    """Resized whole it would have 10 gigapixels."""
    found = evaluation_transform(Image.new("RGB", size, "white"), 224, "crop")
    assert found.shape == (3, 224, 224)
    assert found.min() == 255
