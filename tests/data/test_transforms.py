import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from albef.config import DataConfig
from albef.data import transforms
from albef.data.transforms import evaluation_transform, normalised, train_transform

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PLAIN = DataConfig(crop_scale=(1.0, 1.0), flip=False, randaugment=False)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def looked_up(pixels: np.ndarray) -> np.ndarray:
    """What each of the 256 values of a channel becomes, out of a table that NumPy computed in fp32."""
    scale = 1 / (255 * np.asarray(STD, np.float32))
    shift = np.asarray(MEAN, np.float32) * 255 * scale
    tables = np.arange(256, dtype=np.float32) * scale[:, None] - shift[:, None]
    return np.stack([table[channel] for table, channel in zip(tables, pixels, strict=True)])


def test_normalised_is_to_tensor_and_normalise():
    image = picture(9, 7).transpose(2, 0, 1)
    expected = (image / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    pixels = normalised(torch.from_numpy(image), MEAN, STD)
    assert pixels.dtype == torch.float32
    np.testing.assert_allclose(pixels, expected, atol=1e-6)


def test_every_value_of_a_pixel_is_normalised_to_the_last_bit_alike():
    every = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(16, 16), (3, 16, 16)).copy()
    batch = torch.from_numpy(every).expand(4, -1, -1, -1).contiguous()
    for pixels in normalised(batch, MEAN, STD):
        assert np.array_equal(pixels.numpy(), looked_up(every))


def test_what_is_normalised_stays_as_it_is():
    pixels = torch.randn(2, 3, 4, 4)
    assert normalised(pixels, MEAN, STD) is pixels


def test_evaluation_resize_is_pillows_antialiased_bicubic():
    image = picture(60, 200)
    resized = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(evaluation_transform(image, 16), resized.transpose(2, 0, 1))


@pytest.mark.parametrize(("height", "width"), [(375, 500), (300, 300), (512, 200), (257, 256), (600, 400)])
def test_smaller_pictures_are_means_of_areas(height, width):
    rng = np.random.default_rng(0)
    image = (picture(height, width) + rng.normal(0, 8, (height, width, 3))).clip(0, 255).astype(np.uint8)
    expected = cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA).astype(int)
    apart = np.abs(transforms._squeezed(image, 256).astype(int) - expected)
    assert apart.max() <= 1
    assert apart.mean() < 0.2  # of rounding


def test_nothing_happens_to_a_picture_that_fits():
    image = picture(16, 16)
    expected = image.transpose(2, 0, 1)
    assert np.array_equal(evaluation_transform(image, 16), expected)
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert np.array_equal(train_transform(image, PLAIN, 16, rng), expected)
    assert rng.bit_generator.state == before


def test_without_a_crop_the_whole_picture_is_squeezed():
    image = picture(40, 80)
    pixels = train_transform(image, PLAIN, 8, np.random.default_rng(0))
    means = image.reshape(8, 5, 8, 10, 3).mean(axis=(1, 3))
    assert np.abs(pixels - np.rint(means).transpose(2, 0, 1)).max() <= 1


@settings(deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32))
def test_views_of_any_picture_have_the_right_form_and_depend_on_the_generator_alone(height, width, seed):
    image = picture(height, width)
    before = image.copy()
    views = [train_transform(image, DataConfig(), 24, np.random.default_rng(seed)) for _ in range(2)]
    assert np.array_equal(*views)
    assert np.array_equal(image, before)
    assert views[0].shape == (3, 24, 24)
    assert views[0].dtype == np.uint8
    assert views[0].flags.c_contiguous


def test_half_of_the_views_are_mirrored():
    image = picture(8, 8)
    config = DataConfig(crop_scale=(1.0, 1.0), flip=True, randaugment=False)
    plain = image.transpose(2, 0, 1)
    rng = np.random.default_rng(0)
    views = [train_transform(image, config, 8, rng) for _ in range(400)]
    mirrored = [np.array_equal(view, plain[:, :, ::-1]) for view in views]
    assert 0.4 < np.mean(mirrored) < 0.6
    assert all(flip or np.array_equal(view, plain) for flip, view in zip(mirrored, views, strict=True))


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.1, 1), st.integers(0, 2**32))
def test_crops_lie_inside_and_keep_scale_and_ratio(height, width, smallest, seed):
    rng = np.random.default_rng(seed)
    top, left, crop_height, crop_width = transforms._crop(height, width, (smallest, 1.0), rng)
    assert 0 <= top <= height - crop_height
    assert 0 <= left <= width - crop_width
    assert crop_height > 0
    assert crop_width > 0
    if min(height, width) > 50:  # rounding matters in small ones
        assert 0.74 * 0.95 < crop_width / crop_height < 1.35 * 1.05
        if 3 / 4 < width / height < 4 / 3:
            assert crop_height * crop_width / (height * width) > smallest * 0.95


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("operation", transforms._OPERATIONS, ids=lambda operation: operation.__name__)
def test_each_operation_keeps_the_form_and_its_input(operation, sign):
    image = picture(40, 40)
    before = image.copy()
    changed = operation(image, sign)
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    assert np.array_equal(image, before)
    assert np.array_equal(changed, image) == (operation is transforms._identity)


def test_operations_do_what_their_names_say():
    image = picture(40, 40)
    dull = image // 3 + 40
    assert transforms._autocontrast(dull, 1).min(axis=(0, 1)).tolist() == [0, 0, 0]
    assert transforms._autocontrast(dull, 1).max(axis=(0, 1)).tolist() == [255, 255, 255]
    pillow = np.asarray(ImageOps.equalize(Image.fromarray(dull)))
    assert np.array_equal(transforms._equalize(dull, 1), pillow)
    bright = np.minimum(image * 1.36, 255).astype(np.uint8)
    assert np.array_equal(transforms._brighten(image, 1), bright)
    moved = transforms._translate_x(image, 1)
    assert np.array_equal(moved[:, 7:], image[:, :-7])
    assert (moved[:, :7] == 128).all()
    moved = transforms._translate_y(image, -1)
    assert np.array_equal(moved[:-7], image[7:])
    assert (moved[-7:] == 128).all()
    assert (transforms._rotate(image, 1)[0, 0] == 128).all()
    assert (transforms._shear_x(image, 1)[-1, :6] == 128).all()
    sharp = transforms._sharpen(image, 1)
    assert np.array_equal(sharp[0], image[0])
    assert sharp.std() > image.std()


def test_flat_pictures_survive_autocontrast_and_equalize():
    flat = np.full((10, 10, 3), 77, np.uint8)
    assert np.array_equal(transforms._autocontrast(flat, 1), flat)
    assert np.array_equal(transforms._equalize(flat, 1), flat)


def test_randaugment_changes_most_pictures():
    image = picture(24, 24)
    rng = np.random.default_rng(0)
    changed = [not np.array_equal(transforms._randaugment(image, rng), image) for _ in range(1000)]
    # Two operations, each applied in one of two cases, one in ten of them without effect.
    assert np.mean(changed) == pytest.approx(1 - 0.55**2, abs=0.05)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 24))
def test_a_crop_is_the_centre_in_its_own_proportions(height: int, width: int, size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    short = min(height, width)
    sides = int(size * width / short), int(size * height / short)
    resized = np.asarray(Image.fromarray(image).resize(sides, Image.Resampling.BICUBIC))
    left, top = (round((side - size) / 2) for side in sides)
    expected = resized[top : top + size, left : left + size].transpose(2, 0, 1)
    assert np.array_equal(evaluation_transform(image, size, "crop"), expected)


def test_a_strip_that_would_fill_the_memory_is_cut_first() -> None:
    strip = np.zeros((1, 100_000, 3), np.uint8)
    strip[:, 49_000:51_000] = 90
    assert (evaluation_transform(strip, 8, "crop") == 90).all()


def test_without_random_crops_training_sees_the_same_centre() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 20, 3), np.uint8)
    seen = train_transform(image, PLAIN, 8, np.random.default_rng(0), "crop")
    assert np.array_equal(seen, image[:, 6:14].transpose(2, 0, 1))
