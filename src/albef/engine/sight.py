"""How an engine sees images, by system: pixels, or regions that a detector found before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from albef.config import ModelConfig
from albef.data.collate import padded
from albef.data.images import BadImage, ImageInput, open_image, open_unconverted
from albef.data.regions import ImageRegions, Regions, RegionStore, Tags, batch_of_regions
from albef.data.transforms import evaluation_transform, normalised
from albef.data.words import Words


class Sight(Protocol):
    """What a model sees of images. `read` works on any thread."""

    def read(self, image: ImageInput) -> Any:
        """What is seen of one image. Raises `BadImage` for what cannot be seen."""

    def batch(self, read: Sequence[Any]) -> Any:
        """Several images together, on the CPU."""

    def placed(self, batch: Any, move: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Any:
        """A batch as the model takes it, in its precision. `move` brings a tensor to the model's device."""


class Pixels:
    """Images as pixels of the model's size."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config

    def read(self, image: ImageInput) -> UInt8[Tensor, "3 size size"]:
        """An image in the model's size, not normalised."""
        config = self.config
        if config.rgb_last:
            opened: np.ndarray | Image.Image = open_unconverted(image, obey_exif=True)
        else:
            opened = open_image(image, obey_exif=True, transparent=config.transparent)
        return torch.from_numpy(evaluation_transform(opened, config.image_size, config.fit))

    def batch(self, read: Sequence[Tensor]) -> UInt8[Tensor, "images 3 size size"]:
        """The images as one tensor."""
        return torch.stack(list(read))

    def placed(
        self, batch: Tensor, move: Callable[[Tensor], Tensor], dtype: torch.dtype
    ) -> Float[Tensor, "images 3 size size"]:
        """The images, normalised on the device: pixels travel as bytes."""
        return normalised(move(batch), self.config.mean, self.config.std).to(dtype)


class DetectedRegions:
    """Images as the regions that a store holds of them."""

    def __init__(self, store: RegionStore, words: Words) -> None:
        self.store, self.words = store, words

    def read(self, image: ImageInput) -> ImageRegions:
        """The regions of an image."""
        if isinstance(image, bytes):
            raise BadImage(
                "the contents of a file: have no regions, which are found by the file's name; give a path."
            )
        if isinstance(image, str | Path):
            return self.store.of(Path(image))
        return self.store.of(np.asarray(image))

    def batch(self, read: Sequence[ImageRegions]) -> Regions:
        """Regions and tags, padded to the most."""
        found = batch_of_regions(read)
        ids, mask = padded([self.words.encode_tags(one.tags) for one in read], self.words.tokenizer.pad_id)
        features, boxes, real = map(torch.from_numpy, (found.features, found.boxes, found.mask))
        return Regions(features, boxes, real, Tags(torch.from_numpy(ids), torch.from_numpy(mask)))

    def placed(self, batch: Regions, move: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Regions:
        """The regions on the device."""
        here = batch.moved(move)
        return here._replace(features=here.features.to(dtype), boxes=here.boxes.to(dtype))
