"""Every setting of a run, as frozen dataclasses whose defaults are the paper's values and the robust behaviour.

The comment above or beside a setting is its meaning, which `albef settings` prints.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

from albef.agreement import OFFICIAL as OFFICIAL
from albef.agreement import check_agreement
from albef.errors import UserError as UserError
from albef.setting_checks import ABOVE_0, BELOW_1, check_ranges, check_types, sized
from albef.sizes import OF_SIZE

TaskName = Literal["pretrain", "retrieval", "vqa", "entailment", "text_assignment", "nlvr", "grounding"]
TEMPERATURE_RANGE = (0.001, 0.5)  # within which training keeps it, as published
LARGEST_SEED = 2**63 - 1  # that torch's generator takes
LONGEST_TIMEOUT_SECONDS = 10**9
MOST_AT_ONCE = 1_024  # threads and processes


def is_drawn(source: str) -> bool:
    """Whether a `data.source` is the pictograms, of any task, and not a file or folder of the user's."""
    return source.partition(":")[0] == "pictograms"


@sized(OF_SIZE)
@dataclass(frozen=True)
class ModelConfig:
    """Widths and depths of the model, and what it expects of its input. Defaults: the published `base` model."""

    size: Literal["tiny", "small", "base"] = "base"  # fills in widths and depths that are not given
    image_size: int = 256  # pixels a side; a multiple of patch_size
    patch_size: int = 16  # pixels a side of a patch, which becomes one image token
    image_width: int = 768  # width of the image encoder's tokens
    image_depth: int = 12  # layers of the image encoder
    image_heads: int = 12  # attention heads of the image encoder
    image_mlp_width: int = 3072  # hidden width of the MLP in each layer of the image encoder
    text_width: int = 768  # width of the tokens of the text and fusion encoders
    text_depth: int = 6  # layers of the text encoder
    fusion_depth: int = 6  # layers of the fusion encoder, in which text tokens attend to image tokens
    text_heads: int = 12  # attention heads of the text and fusion encoders
    text_mlp_width: int = 3072  # hidden width of the MLP in each layer of the text and fusion encoders
    feature_width: int = 256  # width of the features by which images and texts are compared (ITC)
    # bert: BERT's vocabulary. trained: at most vocab_size word pieces, learnt from the captions of the run.
    vocabulary: Literal["bert", "trained"] = "bert"
    vocab_size: int = 30522  # word pieces in the vocabulary
    max_positions: int = 512  # position embeddings of the text encoder: tokens of the longest text
    dropout: float = 0.1  # of hidden states and attention probabilities in the text and fusion encoders
    initial_temperature: float = 0.07  # what similarities are divided by at the start; it is learnt
    # Standard deviation of the initial linear and embedding weights. Narrow models need more to pass a signal on.
    initial_std: float = 0.02
    # Image position embeddings start as 2-D sines and cosines instead of noise (published: noise). They are learnt.
    sine_positions: bool = False
    # The fusion encoder sees the image patches without the class token, and each patch with its position added again.
    # Published: all tokens. The class token tells what is in the image, so fusion need not look at the patches.
    fuse_placed_patches: bool = False
    max_tokens: int = 25  # longest text in tokens, [CLS] included; the rest is cut off
    max_words: int = 30  # longest text in words; the rest is cut off before tokenising
    # Texts end in [SEP]. Published texts don't; those of LAVIS's models do.
    append_sep: bool = False
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # of pixels, per channel (CLIP's)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)  # of pixels, per channel (CLIP's)
    # Transparent parts of an image become white, as people see them, or (published) show the colours that alpha hid.
    transparent: Literal["white", "dropped"] = "white"

    def __post_init__(self) -> None:
        check_types("model.", self)
        sizes = ("image_size", "patch_size", "feature_width", "max_positions", "max_words")
        encoders = tuple(
            f"{part}_{what}" for part in ("image", "text") for what in ("width", "heads", "mlp_width")
        )
        check_ranges(
            "model",
            self,
            {
                (*sizes, *encoders, "image_depth"): (1, math.inf),
                ("text_depth", "fusion_depth"): (0, math.inf),
                ("initial_std", "std"): (ABOVE_0, math.inf),
                ("initial_temperature",): TEMPERATURE_RANGE,
                ("dropout",): (0, BELOW_1),
                ("max_tokens",): (2 + self.append_sep, self.max_positions),
                # Far beyond what anybody builds; a number that slipped would take the memory of a machine.
                ("image_size", "patch_size"): (-math.inf, 100_000),
                ("image_depth", "text_depth", "fusion_depth"): (-math.inf, 1_000),
                (*encoders, "feature_width", "max_positions", "max_words"): (-math.inf, 1_000_000),
                ("vocab_size",): (6, 10_000_000),  # five special tokens and a piece
            },
        )
        if self.image_size % self.patch_size:
            raise UserError(
                f"model.image_size {self.image_size} is not divisible by model.patch_size {self.patch_size}: "
                f"choose {self.image_size // self.patch_size * self.patch_size or self.patch_size} "
                f"or another multiple of the patch."
            )
        for encoder, width, heads in (
            ("image", self.image_width, self.image_heads),
            ("text", self.text_width, self.text_heads),
        ):
            if width % heads:
                raise UserError(
                    f"model.{encoder}_width {width} is not divisible by model.{encoder}_heads {heads}: "
                    f"every head needs the same width, so change one of the two."
                )

    @property
    def grid(self) -> int:
        """Patches along one side of the picture."""
        return self.image_size // self.patch_size


SIZES: dict[str, ModelConfig] = {
    "tiny": ModelConfig("tiny"),
    "small": ModelConfig("small"),
    "base": ModelConfig(),
}


@dataclass(frozen=True)
class DataConfig:
    """Where image–text pairs come from and what is drawn from them. Defaults: the published pre-training."""

    # An annotation file, a folder of images with a .txt beside each, or the generated images "pictograms"
    # ("pictograms:vqa" and so on for other tasks).
    source: str = "pictograms"
    image_root: str = ""  # folder that image paths begin at (default: the folder of the annotation file)
    # Beginning that is removed from image paths first, such as the folder of the machine that they come from.
    strip_prefix: str = ""
    count: int = 20_000  # pictograms: image-text pairs in an epoch; every epoch draws new ones
    num_nouns: int = 24  # pictograms: how many different things are drawn, the easiest first
    # Annotation file or folder on which the finished model is evaluated. Pictograms need none.
    validation: str = ""
    # vqa: JSON list of the answers that the model chooses from (default: the most frequent training answers; of
    # pictograms: those of the first 20,000 questions).
    answer_list: str = ""
    # grounding: JSON file of proposed boxes, {"image number": [[x, y, w, h], …]}
    detections: str = ""
    caption_noise: float = 0.2  # pictograms: share of training captions that are as noisy as web text
    # pictograms: weights of the kinds of training image: single, pair, group, mixed (default: docs/pictograms.md)
    mix: dict[str, float] = field(default_factory=dict)
    twin_share: float = 0.5  # pictograms: share of neighbouring images that differ in one thing only
    twins_from_epoch: int = 0  # pictograms: first epoch that has such neighbours
    # pictograms: what neighbouring images may differ in
    twin_aspects: tuple[Literal["noun", "count", "size", "background", "location", "relation"], ...] = (
        "noun",
        "count",
        "size",
        "background",
        "location",
        "relation",
    )
    # Smallest and largest area of the random crop, as shares of the image; (1, 1) takes the whole image.
    crop_scale: tuple[float, float] = (0.2, 1.0)
    flip: bool = True  # mirror half of the training images; turn off where captions say left and right
    randaugment: bool = True  # two random changes of colours or geometry to each training image
    mlm_probability: float = 0.15  # share of tokens that are masked (MLM)
    # Never mask words such as "a" and "on", and mask at least one other word in every caption.
    mlm_content_only: bool = False
    # Training turns images as their EXIF says (published: False). Models in use always do, and so does evaluation,
    # except for grounding, whose boxes are those of the stored image.
    obey_exif: bool = True
    max_bad_fraction: float = 0.01  # share of unreadable images and empty captions at which training stops
    workers: int = 0  # data-loading processes for each training process; 0: load in the training process

    def __post_init__(self) -> None:
        check_types("data.", self)
        if not self.source:
            raise UserError(
                "data.source is empty: name an annotation file, a folder of pictures or pictograms."
            )
        ranges = {
            ("caption_noise", "twin_share", "mlm_probability", "max_bad_fraction"): (0, 1),
            ("crop_scale",): (ABOVE_0, 1),
            ("count", "num_nouns"): (1, math.inf),
            ("twins_from_epoch", "workers"): (0, math.inf),
            ("workers",): (-math.inf, MOST_AT_ONCE),
        }
        check_ranges("data", self, ranges)
        if self.crop_scale[0] > self.crop_scale[1]:
            raise UserError(f"data.crop_scale is {self.crop_scale}, but it must have the smaller one first.")
        if not self.twin_aspects:
            raise UserError("data.twin_aspects is empty: name at least one, or set data.twin_share to 0.")


@dataclass(frozen=True)
class TaskConfig:
    """What is learnt: the losses, the teacher and the queue."""

    name: TaskName = "pretrain"  # what the model is trained for
    # pretrain: the losses that are summed. Search and recall need itc. Other tasks have losses of their own.
    losses: tuple[Literal["itc", "itm", "mlm"], ...] = ("itc", "itm", "mlm")
    alpha: float = 0.4  # weight of the teacher's soft targets (momentum distillation)
    # Steps over which alpha grows from 0; -1: the first epoch, as published.
    alpha_ramp_steps: int = -1
    # The teacher gives soft targets. Its features are contrasted with in any case.
    distill: bool = True
    momentum: float = 0.995  # of the teacher: share of its weights that it keeps at each step
    queue_size: int = 65_536  # teacher features of past pairs that ITC contrasts with, besides the batch
    # pretrain, retrieval, grounding: share of the steps, at the beginning, that train with ITC alone
    align_first: float = 0.0
    # pretrain, retrieval, grounding: share of the later steps over which ITM negatives go from random to hard
    hardness_ramp: float = 0.0
    teacher_dropout: bool = False  # the teacher keeps dropout on (published: True)
    random_queue: bool = False  # the queue starts full of random unit vectors as negatives (published: True)
    mask_same_pairs: bool = True  # the same image or the same caption is never a negative (published: False)
    count_first_token_twice: bool = False  # in ranking answers (published: True)
    # ITC contrasts with the pairs of all processes and the queue (published: of the own process and the queue).
    gather_batch: bool = True
    # official: everything as published (docs/published.md); empty again where a recipe sets one of these by itself.
    compat: Literal["", "official"] = ""

    def __post_init__(self) -> None:
        check_types("task.", self)
        shares = ("alpha", "momentum", "align_first")
        ranges = {
            shares: (0, 1),
            ("alpha_ramp_steps",): (-1, math.inf),
            ("queue_size", "hardness_ramp"): (0, math.inf),
        }
        check_ranges("task", self, ranges)
        if not self.losses:
            raise UserError("task.losses is empty: name at least one of itc, itm, mlm.")


@dataclass(frozen=True)
class TrainConfig:
    """How it is learnt: optimizer, schedule, machine, records of the run."""

    seed: int = 42  # of everything random
    # Run or model directory whose weights training starts from (default: random weights).
    init: str = ""
    # Instead of init: file or folder with a ViT's weights (DeiT, DINOv2), for the image encoder.
    init_image: str = ""
    # Layers to take from init_image, in this order (default: all).
    init_image_layers: tuple[int, ...] = ()
    # Instead of init: file or folder with a BERT's weights, for the text and fusion encoders. A tokenizer.json or
    # vocab.txt in the folder becomes the vocabulary; otherwise model.vocabulary decides.
    init_text: str = ""
    # Layers to take from init_text, in this order (default: all). The first model.text_depth go to the text encoder,
    # the next model.fusion_depth to the fusion encoder.
    init_text_layers: tuple[int, ...] = ()
    steps: int = 100_000  # optimizer steps of the whole run
    batch_size: int = 512  # pairs in an optimizer step, over all processes
    # Pairs that a process computes at once; fewer need less memory (gradient accumulation). 0: its whole share.
    micro_batch_size: int = 0
    lr: float = 1e-4  # highest learning rate, reached after warmup_steps
    min_lr: float = 1e-5  # learning rate at the end of the cosine
    warmup_lr: float = 1e-5  # learning rate at the first step
    warmup_steps: int = 2000  # steps in which the learning rate rises from warmup_lr to lr
    # cosine: the learning rate changes at every step. published: once an epoch, after the warm-up.
    schedule: Literal["cosine", "published"] = "cosine"
    # muon learns more from few steps, and costs the same time whatever the batch size (docs/performance.md).
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = 0.02  # of AdamW and Muon, on matrices
    betas: tuple[float, float] = (0.9, 0.999)  # of AdamW
    decay_embeddings: bool = False  # weight decay on embeddings and the temperature too (published: True)
    temperature_lr_scale: float = 1.0  # learning rate of the temperature, as a multiple of the others'
    clip_norm: float = 1.0  # largest norm of the gradient; 0: no clipping, as published
    device: str = "auto"  # auto: a GPU if there is one; or as torch names it: cpu, cuda, cuda:1
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: measured when the run begins, and kept
    # fused: torch's attention. plain: two matrix products. auto: measured when the run begins, and kept.
    attention: Literal["auto", "fused", "plain"] = "auto"
    # Library for fp32 matrix products on a CPU. auto: measured when the run begins, and kept.
    linear: Literal["auto", "torch", "onednn"] = "auto"
    # Encoders whose activations are computed again in the backward pass: less memory, more time.
    checkpointing: tuple[Literal["image", "text", "fusion"], ...] = ()
    # Training processes on the CPU of this machine. Under torchrun its number of processes counts instead.
    processes: int = 1
    # Share weights, teacher and optimizer among the processes (FSDP2): each holds a slice of every tensor.
    shard: bool = False
    timeout_seconds: int = 600  # how long a process waits for another one that doesn't answer
    threads: int = 0  # CPU threads of each process; 0: its share of the cores
    log_every_steps: int = 20  # steps between two lines of the log
    checkpoint_every_steps: int = 1000  # steps between two checkpoints; there is one after the last step too
    keep_checkpoints: int = 2  # how many of the newest checkpoints are kept
    keep_every_steps: int = 0  # keep also each checkpoint whose step is a multiple of this; 0: no others

    def __post_init__(self) -> None:
        check_types("train.", self)
        if not self.device:
            raise UserError("train.device is empty: name one as torch does, or auto.")
        from_1 = ("steps", "batch_size", "processes", "log_every_steps")
        from_0 = ("seed", "micro_batch_size", "warmup_steps", "threads", "keep_every_steps")
        layers = ("init_image_layers", "init_text_layers")
        factors = ("lr", "min_lr", "warmup_lr", "weight_decay", "clip_norm", "temperature_lr_scale")
        ranges = {
            (*from_1, "checkpoint_every_steps", "keep_checkpoints"): (1, math.inf),
            (*from_0, *factors, *layers): (0, math.inf),
            ("betas",): (0, BELOW_1),
            ("seed",): (0, LARGEST_SEED),
            ("timeout_seconds",): (1, LONGEST_TIMEOUT_SECONDS),
            ("threads", "processes"): (-math.inf, MOST_AT_ONCE),
        }
        check_ranges("train", self, ranges)
        if self.optimizer == "muon" and self.shard:
            raise UserError(
                "train.shard cuts matrices into slices, but Muon needs them whole: set train.optimizer to adamw."
            )


@dataclass(frozen=True)
class EvaluateConfig:
    """What a run measures of its model at its end."""

    splits: tuple[str, ...] = ("test", "unseen_vendor")  # of pictograms (docs/pictograms.md)
    count: int = 500  # pictograms: test images
    seed: int = 1  # pictograms: random seed of the test images
    top_k: int = 64  # candidates that ITM re-ranks; for vqa: answers that are scored whole
    beams: int = 1  # vqa: beam width for free-form answers; 1: greedy
    # grounding: fusion layer of the published maps, from 0 (default: the third of six)
    layer: int | None = None

    def __post_init__(self) -> None:
        check_types("evaluate.", self)
        if not self.splits:
            raise UserError("evaluate.splits is empty: name at least one, such as test.")
        ranges = {
            ("count", "top_k", "beams"): (1, math.inf),
            ("layer",): (0, math.inf),
            ("seed",): (0, LARGEST_SEED),
        }
        check_ranges("evaluate", self, ranges)


@dataclass(frozen=True)
class Config:
    """A whole run. A recipe is this in YAML, with only what differs from the defaults."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        check_types("", self)
        check_agreement(self)


# Of the model's settings those that are younger than the first models: what older models and runs were made with.
LATER: dict[str, object] = {"fuse_placed_patches": False, "transparent": "dropped"}
SECTIONS = tuple(section.name for section in dataclasses.fields(Config))


def official(config: Config) -> Config:
    """The configuration with `task.compat` and all that it stands for (docs/published.md)."""
    sections = {name: getattr(config, name) for name in SECTIONS}
    for key, value in {**OFFICIAL, "task.compat": "official"}.items():
        section, name = key.split(".")
        sections[section] = dataclasses.replace(sections[section], **{name: value})
    return Config(**sections)
