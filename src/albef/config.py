"""Every setting of a run, as frozen dataclasses. Defaults are the paper's values, or the robust behaviour.

The comment above or beside a setting is its meaning: `albef settings` and docs/options.md show it. "Published" is the
behaviour of the code that was published with the paper.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

from albef.agreement import OFFICIAL as OFFICIAL
from albef.agreement import check_agreement
from albef.agreement import losses_of as losses_of
from albef.errors import UserError as UserError
from albef.model_config import LATER as LATER
from albef.model_config import SIZES as SIZES
from albef.model_config import TEMPERATURE_RANGE as TEMPERATURE_RANGE
from albef.model_config import ModelConfig as ModelConfig
from albef.setting_checks import ABOVE_0, BELOW_1, check_ranges, check_types

TaskName = Literal["pretrain", "retrieval", "vqa", "entailment", "text_assignment", "nlvr", "grounding"]
Distilled = Literal["itc", "mlm", "answer", "classification"]
DISTILLED: tuple[Distilled, ...] = ("itc", "mlm", "answer", "classification")
LARGEST_SEED = 2**63 - 1  # the largest that torch's generator takes
LONGEST_TIMEOUT_SECONDS = 10**9
MOST_AT_ONCE = 1_024  # threads and processes


def is_drawn(source: str) -> bool:
    """Whether a `data.source` is pictograms (of any task) rather than the user's own file or folder."""
    return source.partition(":")[0] == "pictograms"


@dataclass(frozen=True)
class DataConfig:
    """The data: where images and texts come from, and how they are augmented. Defaults: the published pre-training."""

    # training data: an annotation file, a folder of images with a .txt file beside each, or pictograms (generated
    # images; other tasks: pictograms:vqa, pictograms:retrieval, …)
    source: str = "pictograms"
    # folder that the image paths start from (default: the folder of the annotation file)
    image_root: str = ""
    # text to remove from the beginning of every image path, such as a folder of another machine
    strip_prefix: str = ""
    count: int = 20_000  # pictograms: number of image–text pairs in an epoch; every epoch has new ones
    num_nouns: int = 24  # pictograms: number of different things in the images, the easiest first
    validation: str = ""  # annotation file or folder to measure the trained model on; pictograms need none
    # vqa: JSON list of the answers that the model chooses from (default: the 3,192 most frequent training answers, of
    # pictograms those of the first 20,000 questions)
    answer_list: str = ""
    # grounding: JSON file of proposed boxes in pixels, {"image number": [[x, y, width, height], …]}
    detections: str = ""
    # lxmert, oscar, uniter: file or folder of regions (docs/data.md; default: an .npz beside each image)
    regions: str = ""
    # pictograms: share of training captions that are as wrong as captions on the web
    caption_noise: float = 0.2
    # pictograms: weight of each kind of training image, such as {single: 1, pair: 2}; kinds are single, pair, group
    # and mixed (default: docs/pictograms.md)
    mix: dict[str, float] = field(default_factory=dict)
    # pictograms: share of training images that come in twins, two images that differ in one thing
    twin_share: float = 0.5
    twins_from_epoch: int = 0  # pictograms: first epoch with twins
    # pictograms: what twins may differ in
    twin_aspects: tuple[Literal["noun", "count", "size", "background", "location", "relation"], ...] = (
        "noun",
        "count",
        "size",
        "background",
        "location",
        "relation",
    )
    # smallest and largest area of the random crop, as shares of the image; [1, 1]: no crop
    crop_scale: tuple[float, float] = (0.2, 1.0)
    flip: bool = True  # mirror half of the training images; set false if captions say left and right
    randaugment: bool = True  # change every training image by two random operations on colour or geometry
    mlm_probability: float = 0.15  # share of tokens that are masked for MLM
    # mask at least one word per caption, and never words such as "a" and "on"; published: false
    mlm_content_only: bool = False
    # turn training images as their EXIF data say; published: false. Evaluation and use always turn them, except
    # grounding, whose boxes belong to the stored image
    obey_exif: bool = True
    max_bad_fraction: float = 0.01  # stop the run if more than this share of images and captions is unusable
    workers: int = 0  # number of data-loading processes per training process; 0: load in the training process

    def __post_init__(self) -> None:
        check_types("data.", self)
        if not self.source:
            raise UserError(
                "data.source is empty: name an annotation file, a folder of images, or pictograms."
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
            raise UserError(f"data.crop_scale is {self.crop_scale}, but the smaller share must come first.")
        if not self.twin_aspects:
            raise UserError(
                "data.twin_aspects is empty: name at least one aspect, or set data.twin_share to 0."
            )


@dataclass(frozen=True)
class TaskConfig:
    """What is learned: the losses, the teacher and the queue."""

    name: TaskName = "pretrain"  # what the model is trained for
    # pretrain, retrieval and grounding of albef: the losses that are added up. Retrieval and grounding have no mlm.
    # Without itc the model has no features to search by. Other tasks and systems have their own losses
    losses: tuple[Literal["itc", "itm", "mlm"], ...] = ("itc", "itm", "mlm")
    alpha: float = 0.4  # weight of the teacher's soft targets against the true ones, from 0 to 1
    # number of steps over which alpha grows from 0 to its value; -1: the first epoch, as published
    alpha_ramp_steps: int = -1
    # the losses that learn from the teacher's soft targets too, of those that the task has; []: none. ITC compares with
    # the teacher's features in any case. vqa has the loss answer, entailment and nlvr have classification. Earlier
    # releases wrote true for all of them and false for none
    distill: tuple[Distilled, ...] = DISTILLED
    # share of its weights that the teacher keeps at each step; the rest comes from the student
    momentum: float = 0.995
    queue_size: int = 65_536  # number of past pairs whose teacher features ITC uses as further negatives
    # pretrain, retrieval, grounding: share of the steps at the start that train ITC alone
    align_first: float = 0.0
    # pretrain, retrieval, grounding: how hard the negatives of ITM are. 1: drawn by their similarity, as published.
    # 0: all alike, at random. Without the loss itc they are always random
    hardness: float = 1.0
    # pretrain, retrieval, grounding: share of the remaining steps over which the hardness grows from 0 to its value
    hardness_ramp: float = 0.0
    teacher_dropout: bool = False  # use dropout in the teacher; published: true
    # start with a queue full of random features, which count as negatives; published: true
    random_queue: bool = False
    # never use the same image or the same caption as a negative; published: false
    mask_same_pairs: bool = True
    # vqa: score answers with their first token counted twice; published: true
    count_first_token_twice: bool = False
    # retrieval of uniter: number of negative images and texts of each pair, the hardest of the batch as the model itself
    # scores them; published: 31. 0: one image and one text, at random
    hard_negatives: int = 0
    # nlvr of uniter: how the model reads a text about two images. triplet: as one sequence with both. paired: as two
    # sequences, one with each. With paired_attention, as in the published recipe, these two attend to each other
    two_images: Literal["triplet", "paired", "paired_attention"] = "paired_attention"
    # ITC compares with the pairs of all processes and the queue. Published: false (the pairs of its own process and
    # the queue)
    gather_batch: bool = True
    # official: compute everything as published (docs/published.md). It becomes empty if you set one of those settings
    # yourself
    compat: Literal["", "official"] = ""

    def __post_init__(self) -> None:
        check_types("task.", self)
        shares = ("alpha", "momentum", "align_first")
        ranges = {
            shares: (0, 1),
            ("alpha_ramp_steps",): (-1, math.inf),
            ("queue_size", "hardness", "hardness_ramp", "hard_negatives"): (0, math.inf),
        }
        check_ranges("task", self, ranges)
        if not self.losses:
            raise UserError("task.losses is empty: name at least one of itc, itm and mlm.")


@dataclass(frozen=True)
class TrainConfig:
    """How it is learned: initial weights, optimizer, schedule, device, log and checkpoints."""

    seed: int = 42  # random seed of the training: initial weights, data, dropout, negatives
    init: str = ""  # run or model to start from (default: random weights)
    # weights of a ViT (DeiT, DINOv2) for the image encoder, a file or folder, instead of init
    # (docs/initial-weights.md)
    init_image: str = ""
    # layers of init_image to take, in this order, counted from 0 (default: all)
    init_image_layers: tuple[int, ...] = ()
    # weights of a BERT for the text encoder and the fusion encoder, a file or folder, instead of init. A
    # tokenizer.json or vocab.txt in the folder becomes the vocabulary
    init_text: str = ""
    # layers of init_text to take, in this order, counted from 0 (default: all). The first model.text_depth go to the
    # text encoder, the next model.fusion_depth to the fusion encoder
    init_text_layers: tuple[int, ...] = ()
    steps: int = 100_000  # number of optimizer steps of the whole training
    batch_size: int = 512  # number of pairs in an optimizer step, over all processes
    # number of pairs that a process computes at once (gradient accumulation); fewer need less memory; 0: its whole
    # share of the batch
    micro_batch_size: int = 0
    lr: float = 1e-4  # highest learning rate, reached after warmup_steps
    min_lr: float = 1e-5  # learning rate at the last step
    warmup_lr: float = 1e-5  # learning rate at the first step
    warmup_steps: int = 2000  # number of steps over which the learning rate rises from warmup_lr to lr
    # cosine: the learning rate changes at every step. published: it changes once per epoch. open_clip: as cosine, but
    # the warm-up begins at lr / warmup_steps, and the end is 0. With linear, as in
    # BERT, it rises from 0 to lr and falls straight to 0
    schedule: Literal["cosine", "published", "open_clip", "linear"] = "cosine"
    # adamw; muon: learns more in few steps, but each step takes longer (docs/performance.md); bertadam: as LXMERT was
    # published, adamw without bias correction, and everything decays
    optimizer: Literal["adamw", "muon", "bertadam"] = "adamw"
    weight_decay: float = 0.02  # weight decay of weight matrices, for all optimizers; bertadam: of everything
    betas: tuple[float, float] = (0.9, 0.999)  # the two betas of AdamW
    eps: float = 1e-8  # the number that AdamW adds to its denominator; published for CLIP: 1e-6
    # apply weight decay to embeddings and the temperature too; published: true
    decay_embeddings: bool = False
    temperature_lr_scale: float = 1.0  # learning rate of the temperature, as a multiple of lr
    # learning rate of the head of answers from a list or of classes, as a multiple of lr; published for UNITER's
    # questions: 10
    head_lr_scale: float = 1.0
    # largest norm of the gradient, which is scaled down to it; 0: no clipping, as published
    clip_norm: float = 1.0
    # device to train on, as torch names it: cpu, cuda, cuda:1; auto: a GPU if there is one
    device: str = "auto"
    # fp32 or bf16; auto: the faster one, measured when the run begins and then kept
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    # fused: torch's own attention. plain: two matrix products. auto: the faster one, measured when the run begins and
    # then kept
    attention: Literal["auto", "fused", "plain"] = "auto"
    # library for fp32 matrix products on a CPU; auto: the faster one, measured when the run begins and then kept
    linear: Literal["auto", "torch", "onednn"] = "auto"
    # on a GPU, compile the step into one graph: the first steps take minutes, the later ones less time
    compile: bool = False
    # on a GPU, multiply fp32 numbers as TF32, which is faster and keeps 10 of 23 binary digits
    tf32: bool = False
    # use only algorithms that repeat their results bit for bit on a GPU, so that a resumed run equals an uninterrupted
    # one; slower
    deterministic: bool = False
    # encoders that recompute their activations in the backward pass, which needs less memory and more time
    checkpointing: tuple[Literal["image", "text", "fusion"], ...] = ()
    # number of training processes on the CPU of this machine; a GPU has one, and torchrun sets its own number
    processes: int = 1
    # split weights, teacher and optimizer among the processes (FSDP2), so that each needs less memory
    shard: bool = False
    timeout_seconds: int = 600  # seconds that a process waits for another one before the run fails
    threads: int = 0  # number of CPU threads of each process; 0: its share of the cores
    log_every_steps: int = 20  # number of steps between two lines of the log
    checkpoint_every_steps: int = 1000  # number of steps between two checkpoints; the last step has one too
    keep_checkpoints: int = 2  # number of newest checkpoints to keep
    keep_every_steps: int = 0  # also keep every checkpoint whose step is a multiple of this; 0: none

    def __post_init__(self) -> None:
        check_types("train.", self)
        if not self.device:
            raise UserError("train.device is empty: name a device, such as cpu or cuda, or auto.")
        from_1 = ("steps", "batch_size", "processes", "log_every_steps")
        from_0 = ("seed", "micro_batch_size", "warmup_steps", "threads", "keep_every_steps")
        layers = ("init_image_layers", "init_text_layers")
        factors = ("lr", "min_lr", "warmup_lr", "weight_decay", "clip_norm")
        scales = ("temperature_lr_scale", "head_lr_scale")
        ranges = {
            (*from_1, "checkpoint_every_steps", "keep_checkpoints"): (1, math.inf),
            (*from_0, *factors, *scales, *layers): (0, math.inf),
            ("betas",): (0, BELOW_1),
            ("eps",): (ABOVE_0, 1),
            ("seed",): (0, LARGEST_SEED),
            ("timeout_seconds",): (1, LONGEST_TIMEOUT_SECONDS),
            ("threads", "processes"): (-math.inf, MOST_AT_ONCE),
        }
        check_ranges("train", self, ranges)
        if self.optimizer == "muon" and self.shard:
            raise UserError(
                "train.shard splits matrices, but Muon needs them whole: set train.optimizer to adamw."
            )


@dataclass(frozen=True)
class EvaluateConfig:
    """What is measured at the end of the training."""

    splits: tuple[str, ...] = ("test", "unseen_vendor")  # pictograms: splits to measure (docs/pictograms.md)
    count: int = 500  # pictograms: number of test images
    seed: int = 1  # pictograms: random seed of the test images
    # number of candidates that ITM re-ranks, the best by ITC; vqa: number of answers that are scored in full
    top_k: int = 64
    gallery: int = 0  # number of images to rank, the first ones, with their texts; 0: all
    beams: int = 1  # vqa: beam width for free-form answers; 1: greedy
    # grounding: fusion layer of the published maps, counted from 0 (default: the third of six)
    layer: int | None = None

    @property
    def num_ranked(self) -> int:
        """How many images of pictograms are ranked."""
        return min(self.count, self.gallery or self.count)

    def __post_init__(self) -> None:
        check_types("evaluate.", self)
        if not self.splits:
            raise UserError("evaluate.splits is empty: name at least one split, such as test.")
        ranges = {
            ("count", "top_k", "beams"): (1, math.inf),
            ("layer", "gallery"): (0, math.inf),
            ("seed",): (0, LARGEST_SEED),
        }
        check_ranges("evaluate", self, ranges)


@dataclass(frozen=True)
class Config:
    """All settings of a run. A recipe is a YAML file with those that differ from the defaults."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        check_types("", self)
        check_agreement(self)


SECTIONS = tuple(section.name for section in dataclasses.fields(Config))


def official(config: Config) -> Config:
    """The configuration with the published behaviour: `task.compat` and its settings (docs/published.md)."""
    sections = {name: getattr(config, name) for name in SECTIONS}
    for key, value in {**OFFICIAL, "task.compat": "official"}.items():
        section, name = key.split(".")
        sections[section] = dataclasses.replace(sections[section], **{name: value})
    return Config(**sections)
