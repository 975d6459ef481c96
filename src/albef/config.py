"""Every setting of a run, as frozen dataclasses whose defaults are the paper's values and the robust behaviour."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from albef.agreement import OFFICIAL as OFFICIAL
from albef.agreement import check_agreement
from albef.errors import UserError as UserError
from albef.setting_checks import ABOVE_0, BELOW_1, check_ranges, check_types, sized

TaskName = Literal["pretrain", "retrieval", "vqa", "entailment", "text_assignment", "nlvr", "grounding"]
TEMPERATURE_RANGE = (0.001, 0.5)  # within which training keeps it, as published
LARGEST_SEED = 2**63 - 1  # that torch's generator takes
LONGEST_TIMEOUT_SECONDS = 10**9


def is_drawn(source: str) -> bool:
    """Whether a `data.source` is the pictograms, of any task, and not a file or folder of the user's."""
    return source.partition(":")[0] == "pictograms"


# What the other sizes have that `base` has not.
OF_SIZE: dict[str, dict[str, Any]] = {
    "tiny": dict(
        image_size=48,
        patch_size=12,
        image_width=96,
        image_depth=4,
        image_heads=3,
        image_mlp_width=384,
        text_width=96,
        text_depth=2,
        fusion_depth=2,
        text_heads=3,
        text_mlp_width=384,
        feature_width=64,
        vocabulary="trained",
        vocab_size=512,
        max_positions=64,
        dropout=0.0,
        initial_std=0.1,
        sine_positions=True,
    ),
    "small": dict(
        image_width=384,
        image_heads=6,
        image_mlp_width=1536,
        text_width=384,
        text_heads=6,
        text_mlp_width=1536,
    ),
    "base": {},
}


@sized(OF_SIZE)
@dataclass(frozen=True)
class ModelConfig:
    """Widths and depths of the model, and what it expects of its input. Defaults: the published `base` model."""

    size: Literal["tiny", "small", "base"] = "base"  # whose sizes hold unless they are given
    image_size: int = 256  # pixels a side; a multiple of the patch
    patch_size: int = 16  # pixels a side of what becomes one image token
    image_width: int = 768  # of the image encoder's tokens
    image_depth: int = 12  # its layers
    image_heads: int = 12
    image_mlp_width: int = 3072  # of the hidden layer in each of its layers
    text_width: int = 768  # of the tokens of text and fusion encoder
    text_depth: int = 6  # layers of text alone
    fusion_depth: int = 6  # layers in which the text sees the picture
    text_heads: int = 12
    text_mlp_width: int = 3072
    feature_width: int = 256  # of what pictures and texts are compared by
    # "trained": a vocabulary of at most `vocab_size` pieces is learnt from the run's own captions.
    vocabulary: Literal["bert", "trained"] = "bert"
    vocab_size: int = 30522
    max_positions: int = 512  # tokens of the longest text that there are position embeddings for
    dropout: float = 0.1  # text and fusion encoder: hidden states and attention probabilities
    initial_temperature: float = 0.07  # that similarities are divided by; it is learnt
    # Of linear and embedding weights; narrow models need more to pass any signal on.
    initial_std: float = 0.02
    # Learnt position embeddings start as 2-D sines and cosines of the patch's place instead of noise (published).
    sine_positions: bool = False
    # Fusion sees a picture's patches alone, each with its position once more. Published: all tokens, of which the class
    # token says what is in the picture without any looking, and the patches hardly where they are.
    fuse_placed_patches: bool = False
    max_tokens: int = 25  # that a text is cut after, including [CLS]
    max_words: int = 30  # that a text is cut after before it is tokenised
    # The published text is `[CLS] tokens`; LAVIS's models were trained with a closing [SEP].
    append_sep: bool = False
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, as published
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    # What a picture's transparent parts are: white, as people see them, or the colours that alpha hid (published).
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

    # Or an annotation file of the task, or a folder of pictures with a .txt beside each. "pictograms:vqa" and so on
    # are the embedded versions of the other tasks.
    source: str = "pictograms"
    image_root: str = ""  # put before relative picture paths; empty: the annotation file's folder
    # Taken away from the beginning of picture paths before that, such as a folder of the machine they are from.
    strip_prefix: str = ""
    count: int = 20_000  # pictograms: pairs in an epoch (every epoch draws new scenes)
    num_nouns: int = 24  # pictograms: different things that are drawn, the easiest first
    # An annotation file or folder that the finished model is evaluated on; pictograms need none.
    validation: str = ""
    # vqa: a JSON list of the answers to rank; empty: the most frequent ones of the training data (of pictograms: of the
    # first 20,000 questions).
    answer_list: str = ""
    # grounding: a JSON file of the boxes to choose from, {"image number": [[x, y, w, h], …]}
    detections: str = ""
    caption_noise: float = 0.2  # pictograms: share of training captions that are like noisy web text
    # pictograms: weights of the kinds of training scene: single, pair, group, mixed; empty: as in docs/pictograms.md
    mix: dict[str, float] = field(default_factory=dict)
    twin_share: float = 0.5  # pictograms: share of neighbouring scenes that differ in one thing only
    twins_from_epoch: int = 0  # pictograms: until then neighbours have nothing to do with each other
    # pictograms: what neighbours may differ in
    twin_aspects: tuple[Literal["noun", "count", "size", "background", "location", "relation"], ...] = (
        "noun",
        "count",
        "size",
        "background",
        "location",
        "relation",
    )
    # Area of the random crop; (1, 1): no crop, the whole picture.
    crop_scale: tuple[float, float] = (0.2, 1.0)
    flip: bool = True  # mirror half of the pictures; wrong where captions say left and right
    randaugment: bool = True  # two random changes of colours or geometry to each picture, as published
    mlm_probability: float = 0.15  # of a token to be masked
    # Words such as "a" and "on" are never masked, and of the others one at least in every caption.
    mlm_content_only: bool = False
    # Training turns pictures as their EXIF says; published: False. Models in use always turn them, and so does
    # evaluation, except that of grounding, whose boxes are of pictures as stored.
    obey_exif: bool = True
    max_bad_fraction: float = 0.01  # unreadable pictures and empty captions that a run tolerates
    workers: int = 0  # data-loading processes per training process

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
        }
        check_ranges("data", self, ranges)
        if self.crop_scale[0] > self.crop_scale[1]:
            raise UserError(f"data.crop_scale is {self.crop_scale}, but it must have the smaller one first.")
        if not self.twin_aspects:
            raise UserError("data.twin_aspects is empty: name at least one, or set data.twin_share to 0.")


@dataclass(frozen=True)
class TaskConfig:
    """What is learnt: the losses, the teacher and the queue."""

    name: TaskName = "pretrain"
    # pretrain: contrast, matching, masked words, or fewer (search and recall need itc); other tasks have each its own.
    losses: tuple[Literal["itc", "itm", "mlm"], ...] = ("itc", "itm", "mlm")
    alpha: float = 0.4  # weight of the teacher's soft targets (momentum distillation)
    # alpha grows from 0 over so many steps; -1: over the first epoch, as published
    alpha_ramp_steps: int = -1
    # Whether the teacher gives soft targets at all; its features are what the contrast is with in any case.
    distill: bool = True
    momentum: float = 0.995  # share of itself that the teacher keeps in a step
    queue_size: int = 65_536  # teacher features of past pairs that the contrast is with besides the batch
    # pretrain, retrieval and grounding, as the next one:
    align_first: float = 0.0  # share of the steps with the contrastive loss alone
    hardness_ramp: float = 0.0  # share of the fusion's steps over which ITM negatives go from uniform to hard
    # Published quirks; `compat: official` sets them all (docs/published.md).
    teacher_dropout: bool = False  # the teacher keeps dropout on
    random_queue: bool = False  # the queue starts full of random unit vectors that count as negatives
    mask_same_pairs: bool = True  # the same picture or the same caption is never a negative
    count_first_token_twice: bool = False  # in the ranking of answers
    # The contrast is with the pairs of all processes and the queue; published: of the own process and the queue.
    gather_batch: bool = True
    # "official": all settings of `OFFICIAL`; empty again where a recipe gives one of them by itself.
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

    seed: int = 42  # of all that is drawn at random
    # A run or model directory whose weights the student starts from; empty: random weights.
    init: str = ""
    # Instead of `init`: a file or folder with a ViT's (DeiT's, DINOv2's) weights, for the image encoder.
    init_image: str = ""
    # Blocks of it to take, in this order; empty: all.
    init_image_layers: tuple[int, ...] = ()
    # Instead of `init`: a file or folder with a BERT's weights, for the text and fusion encoders. A tokenizer.json or
    # vocab.txt in the folder becomes the vocabulary, else `model.vocabulary` decides.
    init_text: str = ""
    # Layers of it to take, in this order (empty: all): the first `model.text_depth` for the text encoder, the next
    # `model.fusion_depth` for the fusion encoder.
    init_text_layers: tuple[int, ...] = ()
    steps: int = 100_000  # of the optimizer, in the whole run
    batch_size: int = 512  # pairs in an optimizer step, over all processes
    # Pairs that a process computes at once, to save memory: gradients of the parts are added up. 0: all of its share.
    micro_batch_size: int = 0
    # The learning rate rises from `warmup_lr` to `lr` over `warmup_steps`, then falls as a cosine to `min_lr`.
    lr: float = 1e-4
    min_lr: float = 1e-5
    warmup_lr: float = 1e-5
    warmup_steps: int = 2000
    # By step, or in epochs after hundreds of warm-up steps.
    schedule: Literal["cosine", "published"] = "cosine"
    # Muon learns more from few steps (docs/performance.md) and costs the same time for any size of the batch.
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = 0.02
    betas: tuple[float, float] = (0.9, 0.999)  # AdamW's
    decay_embeddings: bool = False  # published: True, which decays the temperature too
    temperature_lr_scale: float = 1.0  # the temperature's learning rate as a multiple of the others'
    clip_norm: float = 1.0  # length that a gradient is cut to; 0: never clip, as published
    device: str = "auto"  # auto: a GPU if there is one; or as torch names it: cpu, cuda, cuda:1
    # "auto" of the next three: measured on this machine when the run begins, and kept.
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    attention: Literal["auto", "fused", "plain"] = "auto"  # fused: torch's; plain: as products
    linear: Literal["auto", "torch", "onednn"] = "auto"  # whose fp32 products on a CPU
    # Encoders whose activations are computed again in the backward pass instead of kept: less memory, more time.
    checkpointing: tuple[Literal["image", "text", "fusion"], ...] = ()
    processes: int = 1  # training processes on this machine's CPU; under torchrun its number counts instead
    # Weights, teacher and optimizer are cut over the processes (FSDP2), each of which holds a slice of every tensor.
    shard: bool = False
    timeout_seconds: int = 600  # that a process waits for another one that doesn't answer
    threads: int = 0  # CPU threads of each process; 0: the cores shared out
    log_every_steps: int = 20
    checkpoint_every_steps: int = 1000  # and after the last step
    keep_checkpoints: int = 2  # the last so many
    keep_every_steps: int = 0  # and each whose step is a multiple of this; 0: no others

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
    count: int = 500  # pictures in a gallery
    seed: int = 1  # of its scenes
    top_k: int = 64  # candidates of the contrastive ranking that ITM re-ranks; answers that are scored whole
    beams: int = 1  # vqa: of the search for answers that the model writes itself; 1: greedy
    # grounding: fusion layer of the published map, from 0; null: that of the paper (2 of 6), or in the same place
    layer: int | None = None

    def __post_init__(self) -> None:
        check_types("evaluate.", self)
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
