"""Draws the image of a scene on a textured background that has a name."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from albef.data.pictograms.chance import generator
from albef.data.pictograms.scenes import BACKGROUNDS, Scene
from albef.data.pictograms.sprites import SpriteBank, load_sprites
from albef.data.pictograms.things import Thing


class Painter:
    """Draws scenes at one size. Caches scaled drawings and textures."""

    def __init__(self, image_size: int, bank: SpriteBank | None = None):
        self.image_size = image_size
        self._bank = bank or load_sprites()
        self._scaled: dict[tuple[str, str, int, int, bool], tuple[np.ndarray, np.ndarray]] = {}
        self._kept_bytes = 0  # of the scaled drawings
        self._textures = [_texture(background, image_size) for background in BACKGROUNDS]
        noise = generator("noise").normal(_NOISE_OFFSET, 5.0, (2 * image_size, 2 * image_size, 3))
        self._noise = noise.clip(0, 255).astype(np.uint8)

    def paint(self, scene: Scene) -> np.ndarray:
        """The image, uint8 [image_size, image_size, 3], RGB."""
        side, seed = self.image_size, scene.texture_seed
        bits = [seed >> shift & 0xFF for shift in range(0, 48, 8)]
        textures = self._textures[BACKGROUNDS.index(scene.background)]
        texture = textures[bits[0] % len(textures)]
        spare = texture.shape[0] - side + 1
        y, x = bits[1] * spare >> 8, bits[2] * spare >> 8
        image = texture[y : y + side, x : x + side].copy()
        for thing in scene.things:
            self._put(image, thing)
        y, x = bits[3] * side >> 8, bits[4] * side >> 8
        gain = 0.9 + 0.15 * bits[5] / 255
        noise = self._noise[y : y + side, x : x + side]
        painted = cv2.addWeighted(image, gain, noise, 1.0, -_NOISE_OFFSET)
        for see in _watchers:
            see(scene, painted)
        return painted

    def _put(self, image: np.ndarray, thing: Thing) -> None:
        side = round(thing.side * self.image_size)
        x, y = (min(round(start * self.image_size), self.image_size - side) for start in thing.box[:2])
        colour, behind = self._sprite(thing, side)
        place = image[y : y + side, x : x + side]
        # The colours are premultiplied by opacity, so the sum cannot exceed 255.
        np.add((place * behind >> 8).astype(np.uint8), colour, out=place)

    def _sprite(self, thing: Thing, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Colours times opacity, uint8 [side, side, 3], and what shines through, uint16 [side, side, 1]."""
        key = (thing.noun, thing.vendor, thing.variant, side, thing.flipped)
        if key not in self._scaled:
            if self._kept_bytes > _MOST_KEPT_BYTES:
                self._scaled.clear()
                self._kept_bytes = 0
            drawing = self._bank.images[thing.noun, thing.vendor][thing.variant].astype(np.float32)
            drawing[..., :3] *= drawing[..., 3:] / 255
            sprite = cv2.resize(drawing, (side, side), interpolation=cv2.INTER_AREA)
            if thing.flipped:
                sprite = sprite[:, ::-1]
            opacity = sprite[..., 3:] * (256 / 255)
            colour, behind = sprite[..., :3].astype(np.uint8), (256 - opacity).round().astype(np.uint16)
            self._scaled[key] = colour, behind
            self._kept_bytes += colour.nbytes + behind.nbytes
        return self._scaled[key]


_watchers: list[Callable[[Scene, np.ndarray], None]] = []


@contextlib.contextmanager
def watching(see: Callable[[Scene, np.ndarray], None]) -> Iterator[None]:
    """Calls `see` with each scene that is drawn meanwhile, by any painter of this process, and with its image."""
    _watchers.append(see)
    try:
        yield
    finally:
        _watchers.remove(see)


_NOISE_OFFSET = 16
_MOST_KEPT_BYTES = 64 * 2**20


@functools.cache
def _painter(image_size: int) -> Painter:
    return Painter(image_size)


def render(scene: Scene, image_size: int = 64, bank: SpriteBank | None = None) -> np.ndarray:
    """The image of a scene, uint8 [image_size, image_size, 3], RGB. For many, keep a `Painter`."""
    return (Painter(image_size, bank) if bank else _painter(image_size)).paint(scene)


@functools.cache
def _texture(background: str, image_size: int) -> np.ndarray:
    """Eight variants of a background, uint8 [8, side, side, 3] with a side of 1.5 images to cut from."""
    side = image_size * 3 // 2
    y, x = np.mgrid[0:side, 0:side] / image_size  # in images
    *colours, pattern = _LOOKS[background]
    variants = []
    for variant in range(8):
        rng = generator("texture", background, variant)
        share = np.asarray(pattern(x, y, rng), float)[..., None].clip(0, 1)
        ground, figure = (np.array(colour) + rng.normal(0, 5, 3) for colour in colours)
        variants.append((ground * (1 - share) + figure * share).clip(0, 255).astype(np.uint8))
    return np.stack(variants)


def _cloud(x: np.ndarray, rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth noise, 0–1, with about so many blobs a side."""
    coarse = rng.random((cells, cells)).astype(np.float32)
    return cv2.resize(coarse, (x.shape[1], x.shape[0]), interpolation=cv2.INTER_CUBIC)


def _blades(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    stalks = rng.random((x.shape[0] // 6 + 1, x.shape[1])).astype(np.float32)
    return cv2.resize(stalks, (x.shape[1], x.shape[0]), interpolation=cv2.INTER_LINEAR)


def _waves(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    bend = 0.04 * np.sin(2 * np.pi * (2 * x + rng.random()))
    return 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(5, 7) * (y + bend) + rng.random()))


def _ripples(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 0.6 * _waves(x, y * 0.6, rng) + 0.4 * _cloud(x, rng, 40)


def _stars(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sky = (rng.random((36, 36)) > 0.96).astype(np.float32)
    return 0.9 * cv2.resize(sky, (x.shape[1], x.shape[0]), interpolation=cv2.INTER_AREA)


def _bricks(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    row = 7 * y + rng.random()
    column = 3.5 * x + 0.5 * (np.floor(row) % 2) + rng.random()
    return ((row % 1 < 0.16) | (column % 1 < 0.08)) + 0.3 * (_cloud(x, rng, 12) - 0.5)


def _flakes(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 0.8 * _cloud(x, rng, 9)


def _grain(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    bend = 0.05 * np.sin(2 * np.pi * (0.7 * x + rng.random()))
    rings: np.ndarray = rng.uniform(7, 9) * (y + bend) + 2 * _cloud(x, rng, 4)
    return 0.5 + 0.5 * np.sin(2 * np.pi * rings)


def _stripes(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (rng.uniform(5, 6.5) * x + rng.random()) % 1 < 0.5


def _dots(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    per_side = rng.uniform(5, 6.5)
    return np.hypot((per_side * x + rng.random()) % 1 - 0.5, (per_side * y + rng.random()) % 1 - 0.5) < 0.3


def _checks(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    per_side = rng.uniform(5, 6.5)
    return (np.floor(per_side * x + rng.random()) + np.floor(per_side * y + rng.random())) % 2


def _shade(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 1.1 - y + 0.2 * _cloud(x, rng, 4)


def _speckles(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 0.5 * _cloud(x, rng, 24) + 0.5 * _cloud(x, rng, 8)


_LOOKS = {  # the colour where the pattern is 0, that where it is 1, the pattern
    "grass": ((96, 168, 64), (58, 128, 44), _blades),
    "sand": ((232, 208, 150), (208, 178, 118), _ripples),
    "night sky": ((22, 24, 66), (240, 236, 190), _stars),
    "bricks": ((176, 80, 58), (214, 196, 180), _bricks),
    "blue water": ((52, 122, 206), (120, 180, 236), _waves),
    "snow": ((240, 244, 250), (206, 222, 240), _flakes),
    "wood": ((146, 98, 56), (112, 70, 36), _grain),
    "pink stripes": ((248, 150, 190), (255, 222, 234), _stripes),
    "yellow dots": ((250, 222, 84), (255, 250, 214), _dots),
    "purple checks": ((130, 84, 176), (180, 148, 214), _checks),
    "sunset": ((250, 120, 60), (120, 60, 120), _shade),
    "gray stone": ((150, 152, 154), (112, 114, 118), _speckles),
}
