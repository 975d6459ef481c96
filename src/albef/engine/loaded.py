"""A loaded model directory: what the model can do, its device, its encoders and its matching."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
import xxhash
from jaxtyping import Bool, Float, Float32, Int, Shaped
from torch import Tensor

from albef import distributed
from albef.config import UserError
from albef.data.images import BadImage, ImageInput
from albef.data.region_files import open_regions
from albef.data.words import AnyTokenizer
from albef.engine.preparing import Preparing, texts_of, things
from albef.engine.sight import DetectedRegions, Pixels, Sight
from albef.errors import Caution
from albef.manifest import MANIFEST_FILE, verify
from albef.model import kernels
from albef.model.verbs import Encoding, Memory, VisionLanguageModel
from albef.model_directory import (
    ANSWERS_FILE,
    CONFIG_FILE,
    FILES,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Trained,
    find_model,
    read_answers,
    read_config,
    read_trained,
    read_weights,
)
from albef.progress import track
from albef.ranker import probability
from albef.systems import SYSTEMS

IMAGES_AT_ONCE, TEXTS_AT_ONCE = 64, 256  # in one pass through their encoder
MEMORY_BYTES = 256 * 2**20  # for the images' keys and values in one pass
MAX_PAIRS = 1024  # in one pass

T = TypeVar("T")


class LoadedModel:
    """A model with its tokenizer on a device. It encodes images and texts, and says which match.

    It computes in the precision of the weights (fp32 after loading). With `bf16` it uses autocast: faster if the device
    has bf16 arithmetic, and scores change slightly. There are no gradients, and the model is in evaluation mode.
    `prepare` turns images and texts into tensors, on any thread. `quiet` hides progress bars, which only terminals show.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        tokenizer: AnyTokenizer,
        name: str = "",
        quiet: bool = False,
        bf16: bool = False,
        regions: str = "",
    ) -> None:
        self.model, self.tokenizer, self.config = model.eval(), tokenizer, model.config
        if bf16:
            self.fingerprint = fingerprint_of(model)  # of the weights as they were saved
            self.model = kernels.in_bf16(model)
        words = SYSTEMS[model.config.system].words(tokenizer, model.config)
        sight: Sight = Pixels(self.config)
        if regions and not self.config.sees_regions:
            raise UserError(
                f"Regions were named ({regions}), but a model of system {self.config.system} sees pixels: leave them "
                f"out."
            )
        if self.config.sees_regions:
            sight = DetectedRegions(open_regions(regions, self.config.region_width), words)
        self.prepare = Preparing(model.config, words, sight)
        self.name = name  # what `load` takes to load it again; empty for a model in memory
        self.quiet, self.bf16 = quiet, bf16
        self.answers: list[str] = []  # the default candidates for questions
        self.trained: Trained | None = None  # None: not known

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: str = "auto",
        quiet: bool = False,
        bf16: bool = False,
        regions: str = "",
    ) -> Self:
        """Loads a model from a folder (a model directory, or a run that has one) or from a Hugging Face hub id.

        `device` "auto" takes a GPU if there is one. `regions` is where the regions of images are, for a model that sees
        regions, as `data.regions` names it; empty: an .npz beside each image.

        Raises `UserError` if a file is missing or unreadable, if the weights do not fit the configuration, or if the
        format is newer than this albef. Raises `Damaged` if a file does not match the manifest.
        """
        folder, name = find_model(source)
        for file in (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE):
            if not (folder / file).is_file():
                raise UserError(f"{folder}: has no {file}. A model directory holds {', '.join(FILES[:3])}.")
        if (folder / MANIFEST_FILE).is_file():  # the card is not checked: people edit it
            # The other files are text that people may edit. Errors in them are reported below.
            verify(folder, (WEIGHTS_FILE, TOKENIZER_FILE))
        config, heads = read_config(folder / CONFIG_FILE)
        system = SYSTEMS[config.system]
        tokenizer = system.tokenizer.load(folder / TOKENIZER_FILE)
        if tokenizer.vocab_size > config.vocab_size:
            raise UserError(
                f"{folder / TOKENIZER_FILE}: has {tokenizer.vocab_size} tokens, but the model has only "
                f"{config.vocab_size}. Use the tokenizer that was saved with the model."
            )
        with torch.device("meta"):  # skips the initial weights
            model = system.model(config, heads)
        model.load_state_dict(read_weights(folder / WEIGHTS_FILE, model.state_dict()), assign=True)
        place = choose_device(device)
        engine = cls(model.requires_grad_(False), tokenizer, name, quiet, bf16, regions)
        engine.model.to(place)
        engine.trained = read_trained(folder / CONFIG_FILE)
        if (folder / ANSWERS_FILE).is_file():
            engine.answers = read_answers(folder / ANSWERS_FILE)
        return engine

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return next(self.model.parameters()).dtype

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """A context without gradients, in the engine's precision."""
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            yield

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights. It tells whether something was computed by this model."""
        return fingerprint_of(self.model)

    @property
    def temperature(self) -> float:
        """The temperature that similarities are divided by."""
        return float(self.model.temperature.detach())

    @property
    def trained_for(self) -> str:
        """The model's heads, in words for messages."""
        return ", ".join(self.model.heads)

    @property
    def can_contrast(self) -> bool:
        """Whether images and texts can be compared by their features (ITC)."""
        return self.model.can_contrast

    @property
    def can_match(self) -> bool:
        """Whether the model has image–text matching (ITM)."""
        return self.model.can_match

    def track(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        """The items, with a progress bar on a terminal."""
        yield from track(items, label, total, self.quiet)

    def visual(self, images: Sequence[ImageInput]) -> Any:
        """Images as the model takes them, on its device. Raises `BadImage` for what it cannot see."""
        sight = self.prepare.sight
        return self.placed_visual(sight.batch([sight.read(image) for image in images]))

    def placed_visual(self, batch: Any) -> Any:
        """What is seen of images, on the model's device and in its precision."""
        return self.prepare.sight.placed(batch, self.here, self.dtype)

    @property
    def decoding_threads(self) -> int:
        """How many threads decode images: on a CPU, whose cores compute, one; for a GPU those of this process."""
        if self.device.type == "cpu":
            return 1
        return max(1, distributed.cores() // distributed.local_world_size())

    def here(self, tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """A tensor of the host on the model's device; a GPU copies it while the host goes on."""
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def kept_images(self, tokens: Float[Tensor, "images places width"]) -> Encoding:
        """The encoding of images of which only the tokens were kept."""
        here = tokens.to(self.device, self.dtype)
        return Encoding(here, None, here[:, 0])

    def image_encodings(
        self,
        images: Sequence[ImageInput],
        batch_size: int = IMAGES_AT_ONCE,
        bad: dict[int, BadImage] | None = None,
    ) -> Iterator[Encoding]:
        """Tokens and features of the images in their order, batch by batch. `bad` is that of `visual_batches`."""
        for batch in self.prepare.visual_batches(images, batch_size, bad, self.decoding_threads):
            visual = self.placed_visual(batch)
            with self.computing():
                encoding = self.model.encode_image(visual)
            yield encoding

    def image_memory(self, encoding: Encoding, rows: slice) -> Memory:
        """Keys and values of some of the images for the fusion layers: 9.5 MB an image at base size."""
        with self.computing():
            memory: Memory = self.model.image_memory(encoding.of(rows))
        return memory

    def text_tokens(
        self, texts: Sequence[str]
    ) -> tuple[Int[Tensor, "texts length"], Bool[Tensor, "texts length"]]:
        """Ids of the cleaned texts, padded to the longest, and a mask of the real ones, on the model's device."""
        ids, mask = self.prepare.text_tokens(texts)
        return self.here(ids), self.here(mask)

    def text_encodings(self, texts: Sequence[str], batch_size: int = TEXTS_AT_ONCE) -> Iterator[Encoding]:
        """Tokens (before fusion), masks and features of the texts in their order, batch by batch."""
        for start in range(0, len(texts), batch_size):
            with self.computing():
                encoding = self.model.encode_text(*self.text_tokens(texts[start : start + batch_size]))
            yield encoding

    def encode_images(
        self,
        images: Iterable[ImageInput],
        batch_size: int = IMAGES_AT_ONCE,
        bad: dict[int, BadImage] | None = None,
    ) -> np.ndarray:
        """Features of the images, float32 [N, F], at unit length. Files are turned as their EXIF data say.

        Raises `BadImage` for something that is not an image. With `bad` it is noted there instead, and gets no row.
        """
        given = things(images, "images")
        batches = self.image_encodings(given, batch_size, bad)
        return self._features(batches, "reading images", -(-len(given) // batch_size))

    def encode_texts(self, texts: Iterable[str], batch_size: int = TEXTS_AT_ONCE) -> np.ndarray:
        """Features of the texts, float32 [N, F], at unit length. Their product with image features is the similarity.

        Warns about texts that are empty after cleaning, which all have the same, meaningless feature, and about texts
        that are longer than the model reads.
        """
        given = texts_of(texts, "texts")
        self.warn_about(given)
        return self.text_features(given, batch_size)

    def text_features(self, texts: Sequence[str], batch_size: int = TEXTS_AT_ONCE) -> np.ndarray:
        """As `encode_texts`, without its warnings: for data sets, whose long texts are cut as published."""
        batches = self.text_encodings(texts, batch_size)
        return self._features(batches, "reading texts", -(-len(texts) // batch_size))

    def warn_about(self, texts: Sequence[str]) -> None:
        """Warns about texts that are empty after cleaning, or longer than the model reads."""
        self.prepare.warn_of_cut(texts)
        empty = [text for text in texts if not self.prepare.cleaned(text)]
        if empty:
            warnings.warn(
                f"{len(empty)} of {len(texts)} texts have no words, such as {empty[0]!r}: their results mean nothing.",
                Caution,
                stacklevel=3,
            )

    def _features(self, batches: Iterator[Encoding], label: str, total: int) -> np.ndarray:
        self.must_contrast()
        found = [torch.zeros(0, self.config.feature_width, device=self.device)]
        found += [encoding.feature.float() for encoding in self.track(batches, label, total)]
        features: np.ndarray = (
            torch.cat(found).cpu().numpy()
        )  # at the end: before, a GPU would wait for the host
        return features

    def must_contrast(self) -> None:
        """Raises `UserError` for a model without features that can be compared."""
        if not self.can_contrast:
            raise UserError(
                f"This model was trained for {self.trained_for}. It has no features to compare images with texts: use "
                "a model trained with ITC."
            )

    def match(
        self, images: Iterable[ImageInput], texts: Iterable[str], batch_size: int = 64
    ) -> Float32[np.ndarray, " pairs"]:
        """Probability that text n describes image n, float32 [N].

        Raises `UserError` if there are not as many texts as images, for a text without words, and for a model without
        ITM.
        """
        self.must_match()
        given, said = things(images, "images"), texts_of(texts, "texts")
        if len(given) != len(said):
            raise UserError(
                f"{len(given)} images and {len(said)} texts do not form pairs. Give as many texts as images."
            )
        for number, one in enumerate(said):
            self.prepare.check_says_something(one, f"text {number}")
        found = [np.zeros(0, np.float32)]
        encodings = zip(
            self.image_encodings(given, batch_size), self.text_encodings(said, batch_size), strict=True
        )
        for image, text in encodings:
            assert text.mask is not None
            with self.computing():
                memory = self.model.image_memory(image)
            found.append(probability(self.match_logits(text.tokens, text.mask, memory)))
        return np.concatenate(found)

    def match_logits(
        self,
        tokens: Float[Tensor, "pairs length width"],
        mask: Bool[Tensor, "pairs length"],
        memory: Memory,
        image_index: Int[Tensor, " pairs"] | None = None,
    ) -> np.ndarray:
        """Log-odds that each text matches its image, float32 [pairs]: logit of "match" minus "no match"."""
        self.must_match()
        with self.computing():
            odds: np.ndarray = log_odds(self.model.match(tokens, mask, memory, image_index)).cpu().numpy()
        return odds

    def must_match(self) -> None:
        """Raises `UserError` for a model without ITM."""
        if not self.can_match:
            raise UserError(
                f"This model was trained for {self.trained_for}, without image–text matching: use a model with ITM."
            )

    @cached_property
    def pairs_at_once(self) -> int:
        """How many pairs with different images are matched in one pass, so that memory stays within `MEMORY_BYTES`."""
        visual = self.placed_visual(self.model.sample_visual(1, torch.Generator()))
        with self.computing():
            bytes_per_image = self.model.image_memory(self.model.encode_image(visual)).bytes_per_image
        return max(1, min(MAX_PAIRS, MEMORY_BYTES // bytes_per_image))

    def match_images(self, text: Encoding, images: Encoding) -> Float32[np.ndarray, " images"]:
        """Log-odds that one encoded text matches each of the encoded images."""
        assert text.mask is not None
        found, at_once = [], self.pairs_at_once
        for start in range(0, len(images.tokens), at_once):
            memory = self.image_memory(images, slice(start, start + at_once))
            shape = len(memory), -1, -1
            found.append(self.match_logits(text.tokens.expand(shape), text.mask.expand(shape[:2]), memory))
        return np.concatenate(found)


def fingerprint_of(model: VisionLanguageModel) -> str:
    """A hash of a model's weights."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def log_odds(logits: Float[Tensor, "pairs 2"]) -> Float32[Tensor, " pairs"]:
    """Log-odds of a match, logit of "match" minus that of "no match"."""
    no, yes = logits.float().unbind(1)
    return yes - no


def choose_device(name: str) -> torch.device:
    """The device of that name. "auto" takes a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()  # fails on a device that cannot compute
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"Device {name!r} can't be used here ({reason}). Try auto.") from None
    return torch.device(name)
