"""Published checkpoints of OSCAR and OSCAR+, in and out: folders as pytorch-transformers wrote them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from albef.config import ModelConfig, TaskName, UserError
from albef.data.text import Tokenizer
from albef.disk import check_room
from albef.exchange.account import Row
from albef.exchange.choices import Choices
from albef.exchange.configs import (
    VOCABULARY_FILE,
    bert_config,
    bert_tokenizer,
    heads_of_layers,
    is_bert_s,
    not_ours,
    vocabulary_of,
)
from albef.exchange.converted import account_of_parts, card_of_regions, write_converted
from albef.exchange.fitting import check_fit, check_foundation, listed_answers
from albef.exchange.held import Held
from albef.exchange.pth import Published, write_pth
from albef.exchange.structure import Structure, numbers, rows
from albef.model_config import SIZES
from albef.model_directory import CONFIG_FILE, Trained
from albef.peers.bert_names import modern
from albef.peers.oscar import BOX_NUMBERS, OSCAR
from albef.peers.oscar_names import OSCAR as NAMING
from albef.peers.oscar_names import from_published, naming_of, to_published
from albef.writing import check_folder, whole_folder, write_json, write_whole

WEIGHTS = "pytorch_model.bin"
FILES = (WEIGHTS, CONFIG_FILE, VOCABULARY_FILE)
WORDS, REGIONS = "bert.embeddings.word_embeddings.weight", "bert.img_embedding.weight"
POSITIONS = "bert.embeddings.position_embeddings.weight"
NORM = "bert.LayerNorm.weight"  # of regions
PARTS = {
    "text_encoder": "text embeddings",
    "region_projection": "region embeddings",
    "region_norm": "region embeddings",
    "fusion_encoder": "encoder",
}


class Kind(NamedTuple):
    """A kind of published models."""

    what: str
    task: TaskName
    longest: int  # text in tokens, tags included, as it was trained with
    loss: str  # as config.json calls it


KINDS: dict[tuple[str, ...], Kind] = {
    ("mlm", "pollution"): Kind("pre-trained", "pretrain", 35, "sfmx"),
    ("itm",): Kind("retrieval", "retrieval", 70, "sfmx"),
    ("answers",): Kind("answers from a list", "vqa", 128, "bce"),
    ("nlvr",): Kind("texts about two images", "nlvr", 55, "ce"),
}


class OscarFile(NamedTuple):
    """What a published file holds."""

    config: ModelConfig
    heads: tuple[str, ...]
    state: dict[str, Tensor]  # as stored, with today's names of norms


def import_oscar(opened: Published, folder: Path, choices: Choices) -> tuple[Structure, list[Row]]:
    """Writes a model directory from a published OSCAR. Returns what it was, and what happened to its parts.

    The weights are written in fp32, one at a time. The config.json and the vocab.txt beside the file are read, if they
    are there. Raises `UserError` for shapes that do not fit together, for a configuration or a tokenizer of another
    model, and for choices that mean nothing to it.
    """
    file = opened.file
    choices.refuse(("image_size", "append_sep", "activation"), file, "an OSCAR")
    told = bert_config(file, "img_feature_dim", "OSCAR")
    found = oscar_of(opened.state, choices.heads, file, told)
    tokenizer, whose = bert_tokenizer(choices, file.parent if told else None, found.config.vocab_size, file)
    if not is_bert_s(tokenizer):
        found = found._replace(config=dataclasses.replace(found.config, vocabulary="trained"))
    answers = listed_answers(choices, found.config.num_answers if "answers" in found.heads else 0, file)
    kind = KINDS[found.heads]
    with torch.device("meta"):
        model = OSCAR(found.config, found.heads)
    write_converted(
        folder,
        model,
        tokenizer,
        card_of_regions(file, "oscar", kind.what),
        Trained(kind.task, file.name),
        lambda name: from_published(found.state, [name], found.config)[name],
        answers,
    )
    structure = Structure(f"OSCAR, {kind.what}", kind.task, found.heads, has_teacher=False)
    return structure, account(opened, found, whose, bool(told))


def write_oscar(folder: Path, held: Held) -> tuple[str, list[Row]]:
    """Writes a folder as the published scripts do. Returns which published model it is, and what was written.

    Raises `UserError` for a model with other heads, and for a folder that holds something else.
    """
    check_folder(folder, FILES)
    if held.heads not in KINDS:
        raise UserError(
            f"{folder}: the model was trained for {', '.join(held.heads)}, but no published OSCAR has these heads: they "
            f"have {', or '.join(' + '.join(known) for known in KINDS)}."
        )
    state = to_published(held.student, held.config)
    check_room(folder, sum(tensor.nbytes for name, tensor in state.items() if name not in NAMING.tied))
    with whole_folder(folder, FILES, hash_name=None) as temporary:
        write_pth(temporary / WEIGHTS, state, None)
        write_json(temporary / CONFIG_FILE, published_config(held.config, held.heads))
        write_whole(
            temporary / VOCABULARY_FILE, "\n".join(vocabulary_of(Tokenizer.load(held.tokenizer))) + "\n"
        )
    told = [Row("written", WEIGHTS, len(state), "")]
    return f"OSCAR, {KINDS[held.heads].what}", told + [Row("written", name, None, "") for name in FILES[1:]]


def published_config(config: ModelConfig, heads: tuple[str, ...]) -> dict[str, Any]:
    """The config.json that the published scripts read: BERT's settings, and OSCAR's beside them."""
    pairs = "nlvr" in heads
    return {
        "attention_probs_dropout_prob": config.dropout_of_attention,
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "hidden_size": config.text_width,
        "initializer_range": config.initial_std,
        "intermediate_size": config.text_mlp_width,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": config.max_positions,
        "num_attention_heads": config.text_heads,
        "num_hidden_layers": config.fusion_depth,
        "type_vocab_size": 2,
        "vocab_size": config.vocab_size,
        "finetuning_task": None,
        "num_labels": config.num_answers if "answers" in heads else 2,
        "output_attentions": False,
        "output_hidden_states": False,
        "pruned_heads": {},
        "torchscript": False,
        "img_feature_dim": config.region_width + BOX_NUMBERS,
        "img_feature_type": "faster_r-cnn",
        "use_img_layernorm": int(config.region_norm),
        "img_layer_norm_eps": 1e-12,
        "num_contrast_classes": config.pollution_classes,
        "loss_type": KINDS[heads].loss,
        "classifier": "mlp" if pairs else "linear",
        "cls_hidden_scale": config.pair_head_scale,
        "num_choice": 2,
    }


def oscar_of(
    published: Mapping[str, Tensor], heads: Sequence[int], file: Path, told: Mapping[str, Any]
) -> OscarFile:
    """The model in a state dict: its sizes from its shapes, its heads from its names, the rest from its config.json."""
    state = {modern(name): tensor for name, tensor in published.items()}
    check_foundation(state, (WORDS, REGIONS), file, "OSCAR")
    normed = NORM in state
    if bool(told.get("use_img_layernorm", normed)) != normed:
        raise UserError(
            f"{file}: the config.json beside it says use_img_layernorm: {told['use_img_layernorm']}, but {NORM} is "
            f"{'in it' if normed else 'missing'}. Take both files from the same checkpoint."
        )
    if str(told.get("img_feature_type")).startswith("dis_code"):
        raise not_ours("OSCAR", file, "img_feature_type", told["img_feature_type"])
    own_heads = heads_of(state, file)
    width, positions = max(state[WORDS].shape[1], 1), rows(state, POSITIONS)
    large = width == SIZES["oscar-large"].text_width
    config = ModelConfig(
        size=f"oscar-{'plus-' if normed else ''}{'large' if large else 'base'}",  # type: ignore[arg-type]
        text_width=width,
        fusion_depth=max(len(numbers(state, r"bert\.encoder\.layer\.(\d+)\.")), 1),
        text_heads=heads_of_layers(width, heads, told, file),
        text_mlp_width=rows(state, "bert.encoder.layer.0.intermediate.dense.weight"),
        vocab_size=len(state[WORDS]),
        max_positions=positions,
        max_tokens=min(KINDS[own_heads].longest, positions),
        region_width=max(state[REGIONS].shape[1] - BOX_NUMBERS, 1),
        region_norm=normed,
        **sizes_of_heads(state, own_heads, width),
    )
    with torch.device("meta"):
        own = OSCAR(config, own_heads).state_dict()
    check_fit(state, to_published(own, config), NAMING.tied, file, "OSCAR")
    return OscarFile(config, own_heads, state)


def sizes_of_heads(state: Mapping[str, Tensor], heads: tuple[str, ...], width: int) -> dict[str, Any]:
    """The settings that the shapes of the heads show."""
    if "pollution" in heads:
        return {"pollution_classes": min(max(rows(state, "cls.seq_relationship.weight"), 2), 3)}
    if "answers" in heads:
        return {"num_answers": rows(state, "classifier.weight")}
    if "nlvr" in heads:
        return {"pair_head_scale": min(max(rows(state, "classifier.0.weight") // width, 1), 100)}
    return {}


def heads_of(state: Mapping[str, Tensor], file: Path) -> tuple[str, ...]:
    """The heads of a state dict, by its names. A classifier of two classes is that of retrieval."""
    if "cls.predictions.bias" in state:
        return ("mlm", "pollution")
    if "classifier.weight" in state:
        return ("itm",) if rows(state, "classifier.weight") == 2 else ("answers",)
    if "classifier.0.weight" in state:
        return ("nlvr",)
    raise UserError(
        f"{file}: has no head of OSCAR's published models, only the encoder. Give a whole checkpoint."
    )


def account(opened: Published, found: OscarFile, whose: str, configured: bool) -> list[Row]:
    """A row for each part: loaded, ignored (with the reason), or assumed."""
    config = found.config
    with torch.device("meta"):
        own = OSCAR(config, found.heads).state_dict()
    naming = naming_of(config)
    told = account_of_parts(
        opened, found.state, {name: naming.parts(name) for name in own}, naming.tied, PARTS
    )
    by = f", as {CONFIG_FILE} says" if configured else ""
    told.append(Row("assumed", "heads", None, f"{config.text_heads} in each layer{by}"))
    told.append(Row("assumed", "tokenizer", None, whose))
    told.append(Row("assumed", "longest text", None, f"{config.max_tokens} tokens, tags included"))
    return told
