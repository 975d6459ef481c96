"""The systems: how each is built, what it is trained for, and how it reads texts. One entry a system."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from torch import Tensor

from albef.config import Config, ModelConfig, TaskName, UserError
from albef.data.region_files import open_regions
from albef.data.regions import LabelledRegions, Labels, RegionStore
from albef.data.text import Tokenizer, clean_caption
from albef.data.words import BertWords, UncleanedWords, Words
from albef.model import checkpoints
from albef.model.albef import ALBEF
from albef.model.verbs import VisionLanguageModel
from albef.model_config import SystemName
from albef.peers import (
    clip_names,
    lxmert_names,
    lxmert_task,
    oscar_names,
    oscar_task,
    uniter_names,
    uniter_task,
)
from albef.peers.clip import CLIP
from albef.peers.clip_task import ClipTask
from albef.peers.clip_text import ClipTokenizer, ClipWords, clean_text
from albef.peers.lxmert import LXMERT
from albef.peers.oscar import OSCAR
from albef.peers.uniter import PRETRAINING, UNITER
from albef.peers.uniter_text import CasedTokenizer, UniterWords
from albef.tasks.base import Task
from albef.tasks.classes import NLVR, Entailment
from albef.tasks.pretrain import Pretrain
from albef.tasks.retrieval import Retrieval
from albef.tasks.text_assignment import TextAssignment
from albef.tasks.vqa import VQA


class System(NamedTuple):
    """What a system is made of."""

    title: str
    paper: str  # where it is described
    model: Callable[[ModelConfig, tuple[str, ...]], VisionLanguageModel]
    heads: tuple[str, ...]  # those of ITC and of ITM if it has them, or all heads of pre-training
    tasks: Mapping[TaskName, Callable[[Config], Task]]
    tokenizer: Any  # the class of its tokenizers: `load` from a file, or `train` on texts
    words: Callable[[Any, ModelConfig], Words]  # of a tokenizer
    clean: Callable[[str, ModelConfig], str]  # a caption, as its words clean it
    vocabularies: Mapping[str, Callable[[], Any]]  # the tokenizers that come with this library
    sees: Literal["pixels", "regions"]  # of an image
    published: Callable[
        [Mapping[str, Tensor], ModelConfig], dict[str, Tensor]
    ]  # weights under published names
    labels: Labels = Labels(())  # of regions, that its pre-training learns


SYSTEMS: dict[SystemName, System] = {
    "albef": System(
        title="ALBEF",
        paper='Li et al., "Align before Fuse: Vision and Language Representation Learning with Momentum Distillation",\n'
        "NeurIPS 2021",
        model=ALBEF,
        heads=("contrast", "itm"),
        tasks={
            "pretrain": Pretrain,
            "retrieval": Retrieval,
            "grounding": Retrieval,  # the same objectives, evaluated differently
            "vqa": VQA,
            "entailment": Entailment,
            "text_assignment": TextAssignment,
            "nlvr": NLVR,
        },
        tokenizer=Tokenizer,
        words=BertWords,
        clean=lambda text, config: clean_caption(text, config.max_words),
        vocabularies={"bert": Tokenizer.bert},
        sees="pixels",
        published=checkpoints.to_published,
    ),
    "clip": System(
        title="CLIP",
        paper='Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021',
        model=CLIP,
        heads=("contrast",),
        tasks={"pretrain": ClipTask, "retrieval": ClipTask},
        tokenizer=ClipTokenizer,
        words=ClipWords,
        clean=lambda text, config: clean_text(text),
        vocabularies={"clip": ClipTokenizer.published},
        sees="pixels",
        published=lambda state, config: clip_names.to_published(state),
    ),
    "lxmert": System(
        title="LXMERT",
        paper='Tan and Bansal, "LXMERT: Learning Cross-Modality Encoder Representations from Transformers", EMNLP 2019',
        model=LXMERT,
        heads=("itm", "mlm", "regions", "answers"),
        tasks={
            "pretrain": lxmert_task.LxmertPretrain,
            "retrieval": lxmert_task.LxmertRetrieval,
            "vqa": lxmert_task.LxmertVQA,
            "nlvr": lxmert_task.LxmertNLVR,
        },
        tokenizer=Tokenizer,
        words=UncleanedWords,
        clean=lambda text, config: text.strip(),
        vocabularies={"bert": Tokenizer.bert},
        sees="regions",
        published=lambda state, config: lxmert_names.to_published(state),
        labels=Labels(("object_ids", "object_confidences", "attribute_ids", "attribute_confidences")),
    ),
    "uniter": System(
        title="UNITER",
        paper='Chen et al., "UNITER: UNiversal Image-TExt Representation Learning", ECCV 2020',
        model=UNITER,
        heads=PRETRAINING,
        tasks={
            "pretrain": uniter_task.UniterPretrain,
            "retrieval": uniter_task.UniterRetrieval,
            "vqa": uniter_task.UniterVQA,
            "entailment": uniter_task.UniterEntailment,
            "nlvr": uniter_task.UniterNLVR,
        },
        tokenizer=CasedTokenizer,
        words=UniterWords,
        clean=lambda text, config: text.strip(),
        vocabularies={},
        sees="regions",
        published=lambda state, config: uniter_names.to_published(state),
        labels=Labels(("classes",), needed=False),
    ),
    "oscar": System(
        title="OSCAR",
        paper='Li et al., "Oscar: Object-Semantics Aligned Pre-training for Vision-Language Tasks", ECCV 2020;\n'
        'of OSCAR+: Zhang et al., "VinVL: Revisiting Visual Representations in Vision-Language Models", CVPR 2021',
        model=OSCAR,
        heads=("mlm", "pollution"),
        tasks={
            "pretrain": oscar_task.OscarPretrain,
            "retrieval": oscar_task.OscarRetrieval,
            "vqa": oscar_task.OscarVQA,
            "nlvr": oscar_task.OscarNLVR,
        },
        tokenizer=Tokenizer,
        words=UncleanedWords,
        clean=lambda text, config: text.strip(),
        vocabularies={"bert": Tokenizer.bert},
        sees="regions",
        published=oscar_names.to_published,
        labels=Labels(("tags",)),
    ),
}


def build_task(config: Config) -> Task:
    """A task with initial weights: a student to train, and a teacher that follows it if the system has one."""
    check_system(config)
    task = SYSTEMS[config.model.system].tasks[config.task.name](config)
    task.student.checkpoint(config.train.checkpointing)
    return task


def check_system(config: Config) -> None:
    """Raises `UserError` for a task or a setting that the system does not have."""
    model, task = config.model, config.task.name
    system = SYSTEMS[model.system]
    if task not in system.tasks:
        raise UserError(
            f"task.name is {task}, but a model of system {model.system} has no part for it: choose one of "
            f"{', '.join(system.tasks)}, or a model of another system."
        )
    if config.data.regions and system.sees != "regions":
        raise UserError(
            f"data.regions is set, but a model of system {model.system} sees pixels: leave it out."
        )
    if model.vocabulary not in (*system.vocabularies, "trained"):
        raise UserError(
            f"model.vocabulary is {model.vocabulary}, but a model of system {model.system} reads other tokens: choose "
            f"one of {', '.join([*system.vocabularies, 'trained'])}."
        )
    if model.system != "clip" and model.activation != "gelu":
        raise UserError(
            f"model.activation is {model.activation}, but a model of system {model.system} always has gelu: "
            f"leave it out."
        )
    if model.system != "albef" and (config.train.init_image or config.train.init_text):
        raise UserError(
            f"train.init_image and train.init_text are for models of system albef, but this one is {model.system}: "
            f"start from a whole model with train.init."
        )


def regions_for(config: Config) -> RegionStore | None:
    """Where the regions of a run's images are, with the labels that its task learns. None if its system sees pixels."""
    if SYSTEMS[config.model.system].sees == "pixels":
        return None
    regions = open_regions(config.data.regions, config.model.region_width)
    labels = SYSTEMS[config.model.system].labels
    return LabelledRegions(regions, labels, config.model) if config.task.name == "pretrain" else regions


def words_of(config: ModelConfig, tokenizer: Any) -> Words:
    """The words of a model with this configuration and tokenizer."""
    return SYSTEMS[config.system].words(tokenizer, config)
