"""Published files of LXMERT, in and out: of its own scripts, and of Hugging Face."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from albef.config import ModelConfig, TaskName, UserError
from albef.data.text import CLS, MASK, PAD, SEP, UNK
from albef.disk import check_room
from albef.exchange.account import Row
from albef.exchange.choices import Choices
from albef.exchange.clip_configs import TOKENIZER_CONFIG
from albef.exchange.configs import bert_config, bert_tokenizer, heads_of_layers, is_bert_s
from albef.exchange.converted import account_of_parts, card_of_regions, write_converted
from albef.exchange.fitting import check_fit, check_foundation, check_tied, listed_answers
from albef.exchange.held import Held
from albef.exchange.pth import Published, write_pth
from albef.exchange.stream import Place, write_tensors
from albef.exchange.structure import Structure, numbers, rows
from albef.model_directory import CONFIG_FILE, TOKENIZER_FILE, Trained
from albef.peers.lxmert import LXMERT
from albef.peers.lxmert_names import (
    HUGGING_FACE,
    NAMINGS,
    PRETRAINING,
    TIED,
    WORDS,
    Naming,
    bare,
    joined,
    published_parts,
    to_published,
)
from albef.writing import check_folder, whole_folder, write_json

REGIONS = "image_encoder.features.weight"
PARTS = {"text_encoder": "text encoder", "image_encoder": "region encoder", "fusion_encoder": "cross layers"}
KINDS: dict[tuple[str, ...], tuple[str, TaskName]] = {
    ("itm", "mlm", "regions", "answers"): ("pre-trained", "pretrain"),
    ("answers",): ("answers from a list", "vqa"),
    ("nlvr",): ("texts about two images", "nlvr"),
}

# Hugging Face's classes, by the heads that they have.
CLASSES: dict[tuple[str, ...], str] = {
    ("itm", "mlm", "regions", "answers"): "LxmertForPreTraining",
    ("answers",): "LxmertForQuestionAnswering",
}
FILES = ("model.safetensors", CONFIG_FILE, TOKENIZER_CONFIG, TOKENIZER_FILE)
TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": UNK,
    "sep_token": SEP,
    "pad_token": PAD,
    "cls_token": CLS,
    "mask_token": MASK,
}


class LxmertFile(NamedTuple):
    """What a published file holds."""

    config: ModelConfig
    heads: tuple[str, ...]
    naming: Naming
    state: dict[str, Tensor]  # as stored, without what several GPUs put into the names


def import_lxmert(opened: Published, folder: Path, choices: Choices) -> tuple[Structure, list[Row]]:
    """Writes a model directory from a published LXMERT. Returns what it was, and what happened to its parts.

    The weights are written in fp32, one at a time. Raises `UserError` for shapes that do not fit together, for a
    tokenizer with other tokens than the model, and for choices that mean nothing to it.
    """
    file = opened.file
    choices.refuse(("image_size", "append_sep", "activation"), file, "an LXMERT")
    told = bert_config(file, "x_layers", "LXMERT")
    found = lxmert_of(opened.state, choices.heads, file, told)
    tokenizer, whose = bert_tokenizer(choices, file.parent if told else None, found.config.vocab_size, file)
    if not is_bert_s(tokenizer):
        found = found._replace(config=dataclasses.replace(found.config, vocabulary="trained"))
    answers = listed_answers(choices, found.config.num_answers if "answers" in found.heads else 0, file)
    what, task = KINDS[found.heads]
    with torch.device("meta"):
        model = LXMERT(found.config, found.heads)
    write_converted(
        folder,
        model,
        tokenizer,
        card_of_regions(file, "lxmert", what),
        Trained(task, file.name),
        lambda name: joined(found.state, name, found.naming),
        answers,
    )
    structure = Structure(f"LXMERT, {what}", task, found.heads, has_teacher=False)
    return structure, account(opened, found, whose, bool(told))


def write_lxmert(
    file: Path, student: Mapping[str, Tensor], heads: tuple[str, ...]
) -> tuple[Structure, list[Row]]:
    """Writes a bare state dict under the published names. Returns which published model it is, and its parts.

    Raises `UserError` for a model with other heads, and for a file that exists.
    """
    if heads not in KINDS:
        raise UserError(
            f"{file}: the model was trained for {', '.join(heads)}, but no published LXMERT has these heads: they have "
            f"{', or '.join(' + '.join(known) for known in KINDS)}."
        )
    what, task = KINDS[heads]
    state, why = to_published(student), ""
    if what == "pre-trained":
        # The published script that goes on with a pre-training takes no other names.
        state = {f"module.{name}": tensor for name, tensor in state.items()}
        why = "their names begin with module., as its scripts expect"
    write_pth(file, state, None)
    return Structure(f"LXMERT, {what}", task, heads, has_teacher=False), [
        Row("written", "model", len(state), why)
    ]


def write_hugging_face(folder: Path, held: Held) -> tuple[str, list[Row]]:
    """Writes a folder that Hugging Face's classes read. Returns which published model it is, and what was written.

    Raises `UserError` for a model that has no class there, and for a folder that holds something else.
    """
    check_folder(folder, FILES)
    if held.heads not in CLASSES:
        raise UserError(
            f"{folder}: the model was trained for {', '.join(held.heads)}, but Hugging Face has classes for "
            f"{' and for '.join(' + '.join(known) for known in CLASSES)} alone; write it with --official FILE.pth."
        )
    state = to_published(held.student, HUGGING_FACE)
    state.pop(TIED, None)  # these classes tie it themselves
    places = {name: Place(torch.float32, tensor.shape) for name, tensor in state.items()}
    check_room(folder, sum(4 * tensor.numel() for tensor in state.values()))
    with whole_folder(folder, FILES, hash_name=None) as temporary:
        write_tensors(temporary / FILES[0], places, (tensor.float() for tensor in state.values()))
        write_json(temporary / CONFIG_FILE, hugging_face_config(held.config, held.heads))
        write_json(temporary / TOKENIZER_CONFIG, TOKENIZER)
        shutil.copyfile(held.tokenizer, temporary / TOKENIZER_FILE)
    told = [Row("written", FILES[0], len(state), "in fp32")]
    return f"LXMERT, {KINDS[held.heads][0]}", told + [Row("written", name, None, "") for name in FILES[1:]]


def hugging_face_config(config: ModelConfig, heads: tuple[str, ...]) -> dict[str, Any]:
    """The config.json that Hugging Face's classes read."""
    return {
        "architectures": [CLASSES[heads]],
        "model_type": "lxmert",
        "hidden_act": "gelu",
        "hidden_size": config.text_width,
        "intermediate_size": config.text_mlp_width,
        "num_attention_heads": config.text_heads,
        "l_layers": config.text_depth,
        "r_layers": config.image_depth,
        "x_layers": config.fusion_depth,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": 2,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        "initializer_range": config.initial_std,
        "visual_feat_dim": config.region_width,
        "visual_pos_dim": 4,
        "num_qa_labels": config.num_answers,
        "num_object_labels": config.num_objects,
        "num_attr_labels": config.num_attributes,
        "visual_loss_normalizer": 1 / 0.15,  # as published; the classes' own default is 6.67
    }


def lxmert_of(
    published: Mapping[str, Tensor], heads: Sequence[int], file: Path, told: Mapping[str, Any]
) -> LxmertFile:
    """The model in a state dict: its sizes from its shapes, its heads from its names, the rest from its config.json."""
    state = {bare(name): tensor for name, tensor in published.items()}
    naming = naming_of(state)
    words, regions = (published_parts(name, naming)[0] for name in (WORDS, REGIONS))
    check_foundation(state, (words, regions), file, "LXMERT")
    config, own_heads = described(state, naming, heads, file, told)
    with torch.device("meta"):
        own = LXMERT(config, own_heads).state_dict()
    tied = {TIED: words}
    check_fit(state, to_published(own, naming), tied, file, "LXMERT")
    check_tied(state, tied, file, "LXMERT")  # also where no head of ours reads it
    return LxmertFile(config, own_heads, naming, state)


def naming_of(state: Mapping[str, Tensor]) -> Naming:
    """How a state dict names its encoders."""
    named = (one for one in NAMINGS.values() if any(n.startswith(f"{one.encoders}encoder.") for n in state))
    return next(named, PRETRAINING)


def described(
    state: Mapping[str, Tensor],
    naming: Naming,
    heads: Sequence[int],
    file: Path,
    told: Mapping[str, Any],
) -> tuple[ModelConfig, tuple[str, ...]]:
    """The configuration and the heads of a state dict. `told`: what its config.json says."""

    def named(ours: str) -> str:
        return published_parts(ours, naming)[0]

    def depth(stack: str) -> int:
        return len(numbers(state, re.escape(f"{naming.encoders}encoder.{stack}.") + r"(\d+)\."))

    width = max(state[named(WORDS)].shape[1], 1)
    hidden = state.get(named("classifier.hidden.weight"))
    own_heads: tuple[str, ...] = ()
    if named("mlm_head.bias") in state:
        own_heads = ("itm", "mlm", "regions", "answers")
    elif hidden is not None and hidden.dim() == 2:
        own_heads = ("nlvr",) if hidden.shape[1] == 2 * width else ("answers",)
    if not own_heads:
        raise UserError(
            f"{file}: has no head of LXMERT's published models, only encoders. Give a whole checkpoint."
        )
    sizes: dict[str, Any] = {
        "region_width": max(state[named(REGIONS)].shape[1], 1),
        "num_objects": rows(state, named("region_head.objects.weight")),
        "num_attributes": rows(state, named("region_head.attributes.weight")),
        "num_answers": rows(state, named("classifier.out.weight")) if "answers" in own_heads else 1,
    }
    positions = rows(state, named("text_encoder.positions.weight"))
    config = ModelConfig(
        size="lxmert-base",
        text_width=width,
        text_depth=depth("layer"),
        image_depth=max(depth("r_layers"), 1),
        fusion_depth=max(depth("x_layers"), 1),
        text_heads=heads_of_layers(width, heads, told, file),
        text_mlp_width=rows(state, named("text_encoder.layers.0.mlp.up.weight")),
        vocab_size=len(state[named(WORDS)]),
        max_positions=positions,
        max_tokens=min(20, positions),
        **sizes,
    )
    return config, own_heads


def account(opened: Published, found: LxmertFile, whose: str, configured: bool) -> list[Row]:
    """A row for each part: loaded, ignored (with the reason), or assumed."""
    with torch.device("meta"):
        own = LXMERT(found.config, found.heads).state_dict()
    names = {name: published_parts(name, found.naming) for name in own}
    rows = account_of_parts(opened, found.state, names, (TIED,), PARTS)
    by = f", as {CONFIG_FILE} says" if configured else ""
    rows.append(Row("assumed", "heads", None, f"{found.config.text_heads} in each layer{by}"))
    return [*rows, Row("assumed", "tokenizer", None, whose)]
