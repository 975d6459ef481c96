"""The settings of a model, as a frozen dataclass, and the named sizes. Defaults are those of the published ALBEF.

Comments are help texts, as in `config.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from albef.errors import UserError
from albef.setting_checks import ABOVE_0, BELOW_1, check_ranges, check_types, sized
from albef.sizes import OF_SIZE, system_of

TEMPERATURE_RANGE = (0.001, 0.5)  # training keeps the temperature within it, as published
Activation = Literal["gelu", "quick_gelu"]
Fit = Literal["stretch", "crop"]
SystemName = Literal["albef", "clip", "lxmert", "uniter", "oscar"]

ON_REGIONS: tuple[SystemName, ...] = ("lxmert", "oscar", "uniter")


@sized(OF_SIZE)
@dataclass(frozen=True)
class ModelConfig:
    """The model: its system, widths, depths and inputs. Defaults: the published ALBEF, size base."""

    # fills in the settings below that you do not set; a name begins with its system, except those of ALBEF
    size: Literal[
        "tiny",
        "small",
        "base",
        "clip-tiny",
        "clip-vit-b-32",
        "clip-vit-b-16",
        "clip-vit-l-14",
        "clip-vit-l-14-336",
        "lxmert-tiny",
        "lxmert-base",
        "uniter-tiny",
        "uniter-base",
        "uniter-large",
        "oscar-tiny",
        "oscar-base",
        "oscar-large",
        "oscar-plus-base",
        "oscar-plus-large",
    ] = "base"
    # the kind of model. albef and clip see the pixels of an image, lxmert, oscar and uniter the regions that a detector
    # found in it
    system: SystemName = "albef"
    image_size: int = 256  # side of the square image that the model sees, in pixels; a multiple of patch_size
    patch_size: int = 16  # side of a patch, in pixels; each patch becomes one image token
    image_width: int = 768  # width of the image encoder's tokens
    image_depth: int = 12  # number of layers of the image encoder
    image_heads: int = 12  # number of attention heads in each layer of the image encoder
    image_mlp_width: int = 3072  # hidden width of the MLP in each layer of the image encoder
    text_width: int = 768  # width of the tokens of the text encoder and the fusion encoder
    text_depth: int = 6  # number of layers of the text encoder
    fusion_depth: int = 6  # number of layers of the fusion encoder, where text tokens attend to image tokens
    text_heads: int = 12  # number of attention heads in each layer of the text encoder and the fusion encoder
    # hidden width of the MLP in each layer of the text encoder and the fusion encoder
    text_mlp_width: int = 3072
    # systems on regions: length of the features of a region, as the detector gives them
    region_width: int = 2048
    # systems on regions: number of classes of things that the detector tells apart; uniter: the background included
    num_objects: int = 1600
    num_attributes: int = 400  # lxmert: number of attributes, such as colours, that the detector tells apart
    # lxmert: never learn the embeddings of position 0 and token type 0; published: true
    freeze_first_rows: bool = False
    num_answers: int = 3129  # systems on regions: number of listed answers to questions
    # oscar: whether regions are normalised after their projection, as in OSCAR+
    region_norm: bool = False
    # oscar: classes of its contrast of true and polluted. 2: true or not. 3, as in OSCAR+: true, other tags or another
    # caption
    pollution_classes: int = 2
    pair_head_scale: int = 3  # oscar: hidden width of its head about two images, as a multiple of text_width
    feature_width: int = 256  # length of the features by which ITC compares images and texts
    # bert: the vocabulary of BERT. clip: the byte pairs of CLIP. trained: a vocabulary learned from the captions of the
    # run, of at most vocab_size word pieces
    vocabulary: Literal["bert", "clip", "trained"] = "bert"
    vocab_size: int = 30522  # number of word pieces in the vocabulary
    # number of position embeddings of the text encoder; no text can have more tokens
    max_positions: int = 512
    dropout: float = 0.1  # dropout rate in the text encoder and the fusion encoder
    # dropout rate of attention there (default: dropout). Published for OSCAR's questions and NLVR2: 0.1, and dropout 0.3
    attention_dropout: float | None = None
    # clip: the activation function of its MLPs. OpenAI's models have quick_gelu, most models of open_clip have gelu
    activation: Activation = "gelu"
    # temperature that similarities are divided by at the start; training learns it
    initial_temperature: float = 0.07
    # standard deviation of random initial weights (linear layers and embeddings); narrow models need more
    initial_std: float = 0.02
    # start the position embeddings of the image encoder as sines and cosines instead of noise; training learns them;
    # published: false
    sine_positions: bool = False
    # the fusion encoder sees the patches with their positions added once more, and no class token. So it must look at
    # the patches: the class token alone would tell what the image shows. Published: false (all tokens)
    fuse_placed_patches: bool = False
    max_tokens: int = 25  # longest text in tokens, [CLS] included; the rest of a longer text is cut off
    max_words: int = 30  # longest text in words; the rest of a longer text is cut off before tokenising
    append_sep: bool = False  # end texts with the token [SEP], as LAVIS does; published: false
    # how an image becomes square. stretch: the whole image, its proportions change. crop: its centre
    fit: Fit = "stretch"
    # convert an image to RGB after it was resized, not before. Palettes and transparent images then get other pixels.
    # Training converts first. Published for CLIP: true
    rgb_last: bool = False
    # mean of the pixels of each channel, subtracted from images; red, green, blue (from CLIP)
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    # standard deviation of the pixels of each channel, which divides images (from CLIP)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    # what becomes of transparent pixels. white: they become white. dropped: transparency is ignored, so hidden
    # colours appear (published)
    transparent: Literal["white", "dropped"] = "white"

    def __post_init__(self) -> None:
        check_types("model.", self)
        if self.system != system_of(self.size):
            names = ", ".join(name for name in OF_SIZE if system_of(name) == self.system)
            raise UserError(
                f"model.system is {self.system}, but model.size {self.size} is a size of {system_of(self.size)}: "
                f"set model.size to one of {names}."
            )
        sizes = ("image_size", "patch_size", "feature_width", "max_positions", "max_words")
        regions = ("region_width", "num_objects", "num_attributes", "num_answers")
        encoders = tuple(
            f"{part}_{what}" for part in ("image", "text") for what in ("width", "heads", "mlp_width")
        )
        check_ranges(
            "model",
            self,
            {
                (*sizes, *encoders, *regions, "image_depth"): (1, math.inf),
                ("text_depth", "fusion_depth"): (0, math.inf),
                ("pollution_classes",): (2, 3),
                ("pair_head_scale",): (1, 100),
                ("initial_std", "std"): (ABOVE_0, math.inf),
                ("initial_temperature",): TEMPERATURE_RANGE,
                ("dropout", "attention_dropout"): (0, BELOW_1),
                ("max_tokens",): (2 + self.append_sep, self.max_positions),
                # Far above any real model: a mistyped number would use up the memory of the machine.
                ("image_size", "patch_size"): (-math.inf, 100_000),
                ("image_depth", "text_depth", "fusion_depth"): (-math.inf, 1_000),
                (*encoders, *regions, "feature_width", "max_positions", "max_words"): (-math.inf, 1_000_000),
                ("vocab_size",): (6, 10_000_000),  # five special tokens and one word piece
            },
        )
        if self.image_size % self.patch_size:
            raise UserError(
                f"model.image_size {self.image_size} is not divisible by model.patch_size {self.patch_size}: "
                f"choose {self.image_size // self.patch_size * self.patch_size or self.patch_size} "
                f"or another multiple of the patch size."
            )
        for encoder, width, heads in (
            ("image", self.image_width, self.image_heads),
            ("text", self.text_width, self.text_heads),
        ):
            if width % heads:
                raise UserError(
                    f"model.{encoder}_width {width} is not divisible by model.{encoder}_heads {heads}: "
                    f"all heads have the same width, so change one of the two."
                )

    @property
    def sees_regions(self) -> bool:
        """Whether the model sees regions that a detector found, and no pixels."""
        return self.system in ON_REGIONS

    @property
    def dropout_of_attention(self) -> float:
        """The dropout rate of attention in the text encoder and the fusion encoder."""
        return self.dropout if self.attention_dropout is None else self.attention_dropout

    @property
    def grid(self) -> int:
        """Number of patches along one side of the image."""
        return self.image_size // self.patch_size


SIZES: dict[str, ModelConfig] = {name: ModelConfig(size=name) for name in OF_SIZE}  # type: ignore[arg-type]


# Model settings that the first releases did not have, with the values that models and runs of then were made with.
LATER: dict[str, object] = {
    "fuse_placed_patches": False,
    "transparent": "dropped",
    "system": "albef",
    "activation": "gelu",
    "fit": "stretch",
    "rgb_last": False,
    "region_width": 2048,
    "num_objects": 1600,
    "num_attributes": 400,
    "num_answers": 3129,
    "freeze_first_rows": False,
    "region_norm": False,
    "pollution_classes": 2,
    "pair_head_scale": 3,
    "attention_dropout": None,
}
