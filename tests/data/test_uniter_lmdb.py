"""UNITER's databases of regions, as its published scripts write them."""

import json
import pickle
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import lz4.frame
import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from albef.data.images import BadImage
from albef.data.region_files import open_regions
from albef.data.uniter_lmdb import keys_of, opened, regions_in, unpacked
from albef.errors import UserError
from toy_region_files import mutated, packed_array, uniter_arrays, uniter_database, uniter_record

KEY = "coco_val2014_000000000042.npz"
IMAGE = Path("val2014/COCO_val2014_000000000042.jpg")


def database(folder: Path, record: bytes, name: str = "feat_th0.2_max100_min10") -> Path:
    folder.mkdir(exist_ok=True)
    return uniter_database(folder / name, {KEY: record, "__keys__": json.dumps([KEY]).encode()})


def read(record: bytes) -> Any:
    return regions_in(unpacked(memoryview(record), "here"), "here")


def test_records_are_in_the_published_bytes() -> None:
    start = b"\x84\xa7norm_bb\x85\xc4\x02nd\xc3\xc4\x04type\xa3<f2\xc4\x04kind\xc4\x00"
    start += b"\xc4\x05shape\x92\x05\x06\xc4\x04data\xc4\x3c"
    assert uniter_record(uniter_arrays(5)).startswith(start)


@pytest.mark.parametrize("compressed", ["", "lz4", "npz"])
def test_a_record_comes_back(tmp_path: Path, compressed: str) -> None:
    arrays = uniter_arrays()
    folder = database(tmp_path / "coco_val2014", uniter_record(arrays, compressed))
    for place in (tmp_path, folder.parent, folder, folder / "data.mdb"):
        found = pickle.loads(pickle.dumps(open_regions(str(place), 5))).of(IMAGE)
        assert np.array_equal(found.features, arrays["features"])
        assert found.features.dtype == np.float32
        boxes = arrays["norm_bb"].astype(np.float32)
        assert np.array_equal(found.boxes, np.concatenate([boxes, boxes[:, 4:5] * boxes[:, 5:]], 1))
        assert np.array_equal(found.object_confidences, arrays["conf"][:, 0])
        assert np.array_equal(found.classes, arrays["soft_labels"])
    assert not [file for file in tmp_path.rglob("*") if file.suffix == ".lock"]


@pytest.mark.parametrize(
    ("image", "key"),
    [
        ("COCO_train2014_000000000009", "coco_train2014_000000000009.npz"),
        ("dev-0-0-img0", "nlvr2_dev-0-0-img0.npz"),
        ("1000092795", "flickr30k_001000092795.npz"),
        ("2331541", "vg_000002331541.npz"),
        ("my photo", "my photo.npz"),
    ],
)
def test_images_have_their_published_keys(image: str, key: str) -> None:
    assert key in list(keys_of(image))


def test_names_that_no_key_can_be_are_not_found(tmp_path: Path) -> None:
    store = open_regions(str(database(tmp_path, uniter_record(uniter_arrays()))), 5)
    for name in ("x" * 600, "\udcff", "²", ".npz"):
        with pytest.raises(BadImage, match=r"has no regions: nothing in .* has its name"):
            store.of(Path(name + ".jpg"))


def test_numbers_of_regions_beside_the_database_count(tmp_path: Path) -> None:
    arrays = uniter_arrays(4)
    counts = tmp_path / "nbb_th0.2_max100_min10.json"
    folder = database(tmp_path, uniter_record(arrays))
    counts.write_text(json.dumps({KEY: 2}))
    assert np.array_equal(open_regions(str(folder), 5).of(IMAGE).features, arrays["features"][:2])
    counts.write_text(json.dumps({KEY: 5}))
    with pytest.raises(BadImage, match=r"has 4 regions, but the nbb file beside the database says 5"):
        open_regions(str(folder), 5).of(IMAGE)
    for wrong in ("[]", '{"a": 0}', '{"a": "1"}', "{", "[" * 100_000):
        counts.write_text(wrong)
        with pytest.raises(
            UserError, match=r"nbb_th0\.2_max100_min10\.json: cannot be read as numbers of regions"
        ):
            open_regions(str(folder), 5)


def test_an_image_in_two_databases_is_refused(tmp_path: Path) -> None:
    for name in ("feat_numbb36", "feat_th0.2_max100_min10"):
        database(tmp_path, uniter_record(uniter_arrays()), name)
    with pytest.raises(
        BadImage, match=r"has regions in .*feat_numbb36 and in .*feat_th0\.2_max100_min10; name one"
    ):
        open_regions(str(tmp_path), 5).of(IMAGE)
    assert len(open_regions(str(tmp_path / "feat_numbb36"), 5).of(IMAGE)) == 3


def changed(name: str, **fields: object) -> bytes:
    """A record with changed fields of an array. What is None is left out."""
    arrays = {key: packed_array(array) for key, array in uniter_arrays().items()}
    arrays[name] |= {field.encode(): value for field, value in fields.items()}
    arrays[name] = {field: value for field, value in arrays[name].items() if value is not None}
    return msgpack.packb(arrays, use_bin_type=True)


def test_an_array_without_kind_is_read() -> None:
    assert len(read(changed("features", kind=None))) == 3


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (b"", "the record has 0 bytes"),
        (b"\x04\x22\x4d\x18 no LZ4 frame", "the record cannot be decompressed"),
        (lz4.frame.compress(b"\xc1"), "the record cannot be read as msgpack"),
        (lz4.frame.compress(uniter_record(uniter_arrays()))[:-9], "the compressed record is cut short"),
        (lz4.frame.compress(bytes(2**26 + 1)), "holds more than 67,108,864 bytes"),
        (b"\xc1", "the record cannot be read as msgpack"),
        (b"\x91" * 5000, "the record cannot be read as msgpack"),
        (b"\xdd\xff\xff\xff\xff", "the record cannot be read as msgpack"),
        (b"\x81\x91\x01\x01", "the record cannot be read as msgpack"),
        (b"PK\x03\x04 half of an archive", "cannot be read as regions"),
        (msgpack.packb([1, 2]), "the record holds no map of arrays, but list"),
        (msgpack.packb({"features": 1}), "features is not an array of numbers"),
        (msgpack.packb({"labels": 1}), "has no array norm_bb"),
        (uniter_record({"norm_bb": uniter_arrays()["norm_bb"]}), "has no array features"),
        (changed("features", type="|O", kind=b"O"), "features is not an array of numbers"),
        (changed("features", type="<i8"), "features is not an array of numbers"),
        (changed("features", type=["<f2"]), "features is not an array of numbers"),
        (changed("features", shape=[3, 2**40]), "features is not an array of numbers"),
        (changed("features", shape=[-3, -5]), "features is not an array of numbers"),
        (changed("features", shape=[3, 5, 1]), "features is not an array of numbers"),
        (changed("features", shape=3), "features is not an array of numbers"),
        (changed("features", data=None), "features is not an array of numbers"),
        (changed("features", data="text"), "features is not an array of numbers"),
        (uniter_record(uniter_arrays() | {"conf": np.ones((2, 1), np.float16)}), "object_confidences is"),
        (uniter_record(uniter_arrays() | {"norm_bb": np.ones((3, 4), np.float16)}), "norm_bb is"),
        (uniter_record(uniter_arrays() | {"norm_bb": np.full((3, 6), 2, np.float16)}), "a box reaches out"),
        (
            uniter_record(uniter_arrays() | {"norm_bb": np.array([[0, 0, 1, 1, 1, np.nan]] * 3, "<f2")}),
            "norm_bb holds a number that is not finite",
        ),
        (
            uniter_record(uniter_arrays() | {"features": np.full((3, 5), np.inf, "<f2")}),
            "features holds a number that is not finite",
        ),
    ],
)
def test_a_record_that_is_not_what_it_says_is_named(record: bytes, sentence: str) -> None:
    with pytest.raises(BadImage, match=f"^here: .*{sentence}"):
        read(record)


def test_a_record_that_would_fill_the_memory_is_refused() -> None:
    arrays = uniter_arrays() | {"features": np.zeros((2**13, 2**13), np.float16)}
    with pytest.raises(BadImage, match="more than the regions of one image"):
        read(uniter_record(arrays, compressed="npz"))
    with pytest.raises(BadImage, match="the record has 67,108,865 bytes"):
        read(bytes(2**26 + 1))


def test_a_broken_record_names_database_and_key(tmp_path: Path) -> None:
    store = open_regions(str(database(tmp_path, b"\xc1")), 5)
    with pytest.raises(BadImage, match=rf"feat_th0\.2_max100_min10, {KEY}: the record cannot be read"):
        store.of(IMAGE)
    store = open_regions(str(database(tmp_path, uniter_record(uniter_arrays(width=4)), "feat_numbb36")), 5)
    with pytest.raises(BadImage, match=f"{KEY}: the features of its regions are 4 numbers wide"):
        store.of(IMAGE)


def test_what_is_no_database_of_regions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be opened as LMDB"):
        open_regions(str(tmp_path), 5)
    (tmp_path / "data.mdb").write_bytes(b"other" * 10_000)
    with pytest.raises(UserError, match="cannot be opened as LMDB"):
        open_regions(str(tmp_path), 5)
    (tmp_path / "txt2img.json").touch()
    with pytest.raises(UserError, match="is UNITER's database of texts"):
        open_regions(str(tmp_path), 5)
    with pytest.raises(UserError, match="this database is empty"):
        open_regions(str(uniter_database(tmp_path / "empty", {})), 5)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = database(tmp_path, uniter_record(uniter_arrays()))
    for package in ("lmdb", "lz4", "msgpack"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            with pytest.raises(UserError, match=r"pip install 'albef\[regions\]'"):
                open_regions(str(folder), 5)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_damaged_databases_are_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    file = tmp_path / "good" / "feat" / "data.mdb"
    if not file.exists():
        database(tmp_path / "good", uniter_record(uniter_arrays()), "feat")
    damaged = tmp_path / "damaged"
    damaged.mkdir(exist_ok=True)
    (damaged / "data.mdb").write_bytes(mutated(file.read_bytes(), data))
    try:
        with suppress(UserError):
            open_regions(str(damaged), 5).of(IMAGE)
    finally:
        with suppress(UserError):
            opened(damaged).close()
        opened.cache_clear()


@given(st.sampled_from(["", "lz4", "npz"]), st.data())
def test_mutated_records_are_refused_or_read(compressed: str, data: st.DataObject) -> None:
    record = mutated(uniter_record(uniter_arrays(), compressed), data)
    with suppress(BadImage):
        found = read(record)
        assert np.isfinite(found.features).all()
        assert found.boxes.shape == (len(found), 7)
