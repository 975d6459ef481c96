"""What people see of an image is what the model gets: a table of modes and formats, alike in every use."""

import dataclasses
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import toy
from albef.config import OFFICIAL, DataConfig, ModelConfig, UserError, official
from albef.data.images import BadImage, open_image
from albef.data.loader import ExampleSet
from albef.data.records import Record
from albef.data.text import Tokenizer
from albef.data.transforms import normalised
from albef.engine import Engine
from albef.evaluation.judged import shown
from albef.model.albef import ALBEF
from albef.model_directory import read_config, save_model
from albef.recipe import dump_config, load_recipe

SIDE = 16  # pixels
RAMP = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)  # every grey
COLOURS = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=2)
ALPHA = np.where(np.arange(SIDE) < 6, 0, np.where(np.arange(SIDE) < 12, 128, 255))[None].repeat(SIDE, 0)
ALPHA = ALPHA.astype(np.uint8)


def on_white(colours: np.ndarray, alpha: np.ndarray = ALPHA) -> np.ndarray:
    share = alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


def saved(array: np.ndarray, mode: str, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.frombytes(mode, (SIDE, SIDE), array.tobytes()).save(stream, kind, **options)
    return stream.getvalue()


def tiff(values: np.ndarray, order: str = "<", photometric: int = 1, extra: int | None = None) -> bytes:
    """An uncompressed TIFF of these numbers, as they are."""
    channels = values.shape[2] if values.ndim == 3 else 1
    sample_format = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    entries: list[tuple[int, list[int]]] = [
        (256, [SIDE]),
        (257, [SIDE]),
        (258, [values.dtype.itemsize * 8] * channels),
        (259, [1]),
        (262, [photometric]),
        (273, [8]),
        (277, [channels]),
        (278, [SIDE]),
        (279, [len(data)]),
        *([(338, [extra])] if extra is not None else []),
        (339, [sample_format] * channels),
    ]
    after = 8 + len(data)
    more_at = after + 2 + 12 * len(entries) + 4
    table, more = struct.pack(order + "H", len(entries)), b""
    for tag, numbers in entries:
        content = struct.pack(f"{order}{len(numbers)}H", *numbers)
        if len(content) > 4:
            more += content
            content = struct.pack(order + "I", more_at + len(more) - len(content))
        table += struct.pack(order + "HHI", tag, 3, len(numbers)) + content.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", after) + data + table + struct.pack(order + "I", 0) + more


def png(values: np.ndarray, bits: int, transparent: tuple[int, ...] = ()) -> bytes:
    """A PNG of these numbers of so many bits, those of one value transparent."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2] if values.ndim == 3 else 1]
    size = struct.pack(">IIBBBBB", SIDE, SIDE, bits, colour, 0, 0, 0)
    digits = "".join(f"{0:08b}" + "".join(f"{value:0{bits}b}" for value in row.ravel()) for row in values)
    pixels = chunk(b"IDAT", zlib.compress(int(digits, 2).to_bytes(len(digits) // 8, "big")))
    key = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + key + pixels + chunk(b"IEND", b"")


GREY = np.repeat(RAMP[..., None], 3, axis=2)
DEEP = RAMP.astype(np.uint16) * 257
RGBA = np.concatenate([COLOURS, ALPHA[..., None]], axis=2)
LA = np.stack([RAMP, ALPHA], axis=2)
SIGNS = np.where(RAMP[..., None] >= 128, 255, 0).repeat(3, 2)
RED, BLUE = (200, 30, 30), (30, 30, 200)
HALVES = np.where(np.arange(SIDE)[None, :, None] < SIDE // 2, RED, BLUE).repeat(SIDE, 0).astype(np.uint8)
HALF_WHITE = np.where((HALVES == RED).all(2, keepdims=True), 255, HALVES)
TWO = (np.arange(SIDE) >= SIDE // 2).astype(np.uint8)[None].repeat(SIDE, 0)


def palette(kind: str, **options: object) -> bytes:
    image = Image.frombytes("P", (SIDE, SIDE), TWO.tobytes())
    image.putpalette([*RED, *BLUE])
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


# What a file holds: its content, what people see, and what is there without alpha (None: the same).
Row = tuple[bytes, np.ndarray, np.ndarray | None]
LOSSY = 12  # the most that a value may be off in formats that lose something; of others 1
TABLE: dict[str, Row] = {
    **{f"L {kind}": (saved(RAMP, "L", kind), GREY, None) for kind in ("PNG", "BMP", "TIFF", "GIF", "PPM")},
    **{f"RGB {kind}": (saved(COLOURS, "RGB", kind), COLOURS, None) for kind in ("PNG", "BMP", "TIFF", "PPM")},
    "RGB WEBP": (saved(COLOURS, "RGB", "WEBP", lossless=True), COLOURS, None),
    "RGB JPEG2000": (saved(COLOURS, "RGB", "JPEG2000"), COLOURS, None),
    "L JPEG lossy": (saved(RAMP, "L", "JPEG", quality=100, subsampling=0), GREY, None),
    "RGB JPEG lossy": (saved(HALVES, "RGB", "JPEG", quality=100, subsampling=0), HALVES, None),
    "RGB AVIF lossy": (saved(HALVES, "RGB", "AVIF", quality=100, subsampling="4:4:4"), HALVES, None),
    "CMYK TIFF": (
        saved(np.concatenate([255 - COLOURS, COLOURS[..., :1] * 0], axis=2), "CMYK", "TIFF"),
        COLOURS,
        None,
    ),
    **{
        f"1 {kind}": (
            saved(np.packbits(RAMP >= 128, axis=1), "1", kind),
            SIGNS,
            None,
        )
        for kind in ("PNG", "BMP", "TIFF", "PPM")
    },
    **{f"P {kind}": (palette(kind), HALVES, None) for kind in ("PNG", "GIF", "BMP", "TIFF")},
    **{f"I;16 {kind}": (saved(DEEP, "I;16", kind), GREY, None) for kind in ("PNG", "TIFF", "JPEG2000")},
    "I;16 TIFF compressed": (saved(DEEP, "I;16", "TIFF", compression="tiff_lzw"), GREY, None),
    "I;16 PPM": (b"P5 16 16 65535\n" + DEEP.astype(">u2").tobytes(), GREY, None),
    **{f"I;16 TIFF {order}": (tiff(DEEP, order), GREY, None) for order in "<>"},
    "I;16 TIFF, white is 0": (tiff(65535 - DEEP, "<", 0), GREY, None),
    "L TIFF, white is 0": (tiff(255 - RAMP, "<", 0), GREY, None),
    **{
        f"RGB;16 TIFF {order}": (tiff(COLOURS.astype(np.uint16) * 257, order, 2), COLOURS, None)
        for order in "<>"
    },
    **{f"F TIFF {order}": (tiff((RAMP / 255).astype(np.float32), order), GREY, None) for order in "<>"},
    "F TIFF, white is 0": (tiff((1 - RAMP / 255).astype(np.float32), "<", 0), GREY, None),
    "F PPM": (b"Pf 16 16 -1\n" + (RAMP[::-1] / 255).astype("<f4").tobytes(), GREY, None),
    "RGBA PNG": (saved(RGBA, "RGBA", "PNG"), on_white(COLOURS), COLOURS),
    "RGBA TIFF": (saved(RGBA, "RGBA", "TIFF"), on_white(COLOURS), COLOURS),
    "RGBA WEBP": (
        saved(RGBA, "RGBA", "WEBP", lossless=True, exact=True),
        on_white(COLOURS),
        COLOURS,
    ),
    "RGBA JPEG2000": (saved(RGBA, "RGBA", "JPEG2000"), on_white(COLOURS), COLOURS),
    "RGBA;16 TIFF": (tiff(RGBA.astype(np.uint16) * 257, "<", 2, extra=2), on_white(COLOURS), COLOURS),
    "RGBX TIFF": (tiff(RGBA, "<", 2, extra=0), COLOURS, None),
    "RGBA AVIF lossy": (
        saved(np.dstack([HALVES, (1 - TWO) * 255]), "RGBA", "AVIF", quality=100, subsampling="4:4:4"),
        np.where(TWO[..., None], 255, HALVES),
        HALVES,
    ),
    "LA PNG": (saved(LA, "LA", "PNG"), on_white(GREY), GREY),
    "LA TIFF": (tiff(LA, "<", 1, extra=2), on_white(GREY), GREY),
    "tRNS P PNG": (palette("PNG", transparency=0), HALF_WHITE, HALVES),
    "tRNS P PNG in part": (
        palette("PNG", transparency=bytes([0, 128])),
        on_white(HALVES, np.where(TWO, 128, 0)),
        HALVES,
    ),
    "tRNS P GIF": (palette("GIF", transparency=0), HALF_WHITE, HALVES),
    "tRNS L PNG": (saved(RAMP, "L", "PNG", transparency=7), np.where(GREY == 7, 255, GREY), GREY),
    "tRNS RGB PNG": (saved(HALVES, "RGB", "PNG", transparency=RED), HALF_WHITE, HALVES),
    "tRNS I;16 PNG": (
        saved(DEEP, "I;16", "PNG", transparency=7 * 257),
        np.where(GREY == 7, 255, GREY),
        GREY,
    ),
}


for bits in (1, 2, 4):
    whole = 255 // (2**bits - 1)
    few = (GREY >> (8 - bits)).astype(np.uint8)
    TABLE[f"L;{bits} PNG"] = png(few[..., 0], bits), few * whole, None
    TABLE[f"tRNS L;{bits} PNG"] = (
        png(few[..., 0], bits, (1,)),
        np.where(few == 1, 255, few * whole),
        few * whole,
    )
RED_16 = tuple(value * 257 for value in RED)
TABLE |= {
    "RGB;16 PNG": (png(COLOURS.astype(int) * 257, 16), COLOURS, None),
    "RGBA;16 PNG": (png(RGBA.astype(int) * 257, 16), on_white(COLOURS), COLOURS),
    "LA;16 PNG": (png(LA.astype(int) * 257, 16), on_white(GREY), GREY),
    "tRNS RGB;16 PNG": (png(HALVES.astype(int) * 257, 16, RED_16), HALF_WHITE, HALVES),
}


def off(pixels: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(pixels.astype(float) - expected).max())


@pytest.mark.parametrize("row", TABLE)
def test_every_mode_of_every_format_is_what_people_see(row: str) -> None:
    data, seen, without = TABLE[row]
    allowed = LOSSY if "lossy" in row else 1
    assert off(open_image(data, obey_exif=True), seen) <= allowed
    if without is not None:
        dropped = open_image(data, obey_exif=True, transparent="dropped")
        assert off(dropped, without) <= allowed
    with Image.open(io.BytesIO(data)) as picture:  # from memory the same
        assert np.array_equal(open_image(picture, obey_exif=True), open_image(data, obey_exif=True))


REFUSED: dict[str, bytes] = {
    "unsigned 32": tiff(RAMP.astype(np.uint32) << 24),
    "signed 32": tiff(RAMP.astype(np.int32) << 23),
    "signed 16": tiff(RAMP.astype(np.int16) << 7),
    "signed 8": tiff(RAMP.astype(np.int8)),
    "floats to 255": tiff(RAMP.astype(np.float32)),
    "negative floats": tiff((RAMP / 255 - 0.5).astype(np.float32)),
    "no numbers": tiff(np.full((SIDE, SIDE), np.nan, np.float32)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_values_of_which_nobody_says_what_is_white_are_refused(what: str) -> None:
    with pytest.raises(BadImage, match="save it with 8 or 16 bits"):
        open_image(REFUSED[what], obey_exif=True)


ARRAYS = {
    "RGB": (COLOURS, COLOURS),
    "grey": (RAMP, GREY),
    "grey with an axis": (RAMP[..., None], GREY),
    "RGBA": (RGBA, on_white(COLOURS)),
}
NO_ARRAYS = {
    "float": COLOURS / 255,
    "sixteen bits": DEEP,
    "bool": RAMP > 7,
    "two channels": LA,
    "channels first": COLOURS.transpose(2, 0, 1),
    "a batch": COLOURS[None],
    "one axis": RAMP.ravel(),
    "empty": COLOURS[:0],
    "no axis": np.array(1, np.uint8),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_arrays_are_taken_as_what_they_are(what: str) -> None:
    array, seen = ARRAYS[what]
    assert off(open_image(array, obey_exif=True), seen) <= 1


@pytest.mark.parametrize("what", NO_ARRAYS)
def test_other_arrays_are_refused_with_type_and_shape(what: str) -> None:
    array = NO_ARRAYS[what]
    with pytest.raises(BadImage) as caught:
        open_image(array, obey_exif=True)
    assert f"{array.dtype}, {list(array.shape)}" in str(caught.value)
    assert "uint8" in str(caught.value)


@pytest.mark.parametrize("thing", [None, 7, ["a.png"], Image])
def test_other_things_are_refused_by_their_type(thing: object) -> None:
    with pytest.raises(BadImage, match=rf"is a {type(thing).__name__}\."):
        open_image(thing, obey_exif=True)  # type: ignore[arg-type]


def test_images_in_memory_are_turned_upright_as_files_are() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        stream = io.BytesIO()
        Image.fromarray(COLOURS[:8]).save(stream, kind, exif=exif)
        with Image.open(stream) as picture:
            upright = open_image(picture, obey_exif=True)
        assert upright.shape == (SIDE, 8, 3), kind
        assert np.array_equal(upright, open_image(stream.getvalue(), obey_exif=True)), kind
    with pytest.raises(BadImage, match="the image: cannot be read"):
        open_image(Image.open(io.BytesIO(TABLE["RGB BMP"][0][:-99])), obey_exif=True)
    with pytest.raises(BadImage, match="is empty"):
        open_image(Image.new("RGB", (0, 4)), obey_exif=True)


def engine(transparent: str) -> Engine:
    config = dataclasses.replace(toy.ENGINE_MODEL, transparent=transparent)
    return Engine(ALBEF(config), Tokenizer.train(toy.CAPTIONS, config.vocab_size), quiet=True)


class Files:
    """Every row of the table as a file."""

    couple = 1

    def __init__(self, folder: Path) -> None:
        self.files = [folder / f"{number}" for number in range(len(TABLE))]
        for file, (data, *_) in zip(self.files, TABLE.values(), strict=True):
            file.write_bytes(data)

    def __len__(self) -> int:
        return len(self.files)

    def record(self, index: int, epoch: int) -> Record:
        return Record(self.files[index], ("a fox",), index, None, str(index))


@pytest.mark.parametrize("transparent", ["white", "dropped"])
def test_training_evaluation_and_use_see_the_same(tmp_path: Path, transparent: str) -> None:
    used, source = engine(transparent), Files(tmp_path)
    data = DataConfig(crop_scale=(1.0, 1.0), flip=False, randaugment=False, obey_exif=False)
    examples = ExampleSet(source, used.prepare.words, data, used.config, 0)
    bad: dict[int, BadImage] = {}
    seen = [
        pixels
        for exif in (True, False)
        for batch in shown(used, source, False, bad, exif)
        for pixels in batch.visual
    ]
    assert not bad
    for index, (row, (content, white, without)) in enumerate(TABLE.items()):
        expected = white if transparent == "white" or without is None else without
        trained = examples.example(index, 0).seen
        assert off(trained.transpose(1, 2, 0), expected) <= (LOSSY if "lossy" in row else 1.1), row
        taken = normalised(torch.from_numpy(trained)[None], used.config.mean, used.config.std)[0]
        for other in (
            seen[index],
            seen[len(source) + index],
            *used.visual([source.files[index], content]),
        ):
            assert torch.equal(taken, other), row


def test_how_transparency_is_laid_down_is_stored_with_the_model(tmp_path: Path) -> None:
    for transparent in ("white", "dropped"):
        one = engine(transparent)
        save_model(tmp_path / transparent, one.model, one.tokenizer, "")
        assert read_config(tmp_path / transparent / "config.json")[0].transparent == transparent
    stored = json.loads((tmp_path / "white" / "config.json").read_text())
    for change in ({"transparent": "black"}, {"transparent": 1}):
        (tmp_path / "white" / "config.json").write_text(json.dumps(stored | change))
        with pytest.raises(UserError, match="white, dropped"):
            read_config(tmp_path / "white" / "config.json")
    del stored["transparent"]  # saved before
    (tmp_path / "white" / "config.json").write_text(json.dumps(stored))
    assert read_config(tmp_path / "white" / "config.json")[0].transparent == "dropped"


def test_runs_of_before_and_published_ones_go_on_without_alpha(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "".join(line for line in dump_config(toy.config()).splitlines(True) if "transparent" not in line)
    )
    assert load_recipe(file).model.transparent == "dropped"
    assert load_recipe(file, ["--model.transparent=white"]).model.transparent == "white"
    file.write_text(dump_config(toy.config()))
    assert load_recipe(file).model.transparent == "white"
    file.write_text("model: {size: tiny}")
    assert load_recipe(file).model.transparent == "white"
    assert load_recipe(file, ["--task.compat=official"]).model.transparent == "dropped"
    assert official(toy.config()).model.transparent == OFFICIAL["model.transparent"] == "dropped"
    assert ModelConfig().transparent == "white"
