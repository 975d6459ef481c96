"""UNITER's published files: to a model directory, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from albef.config import ModelConfig, TaskName, UserError
from albef.exchange.account import Row
from albef.exchange.choices import Choices
from albef.exchange.configs import heads_of_layers
from albef.exchange.converted import account_of_parts, card_of_regions, write_converted
from albef.exchange.fitting import check_fit, check_foundation, listed_answers
from albef.exchange.pth import Published, write_pth
from albef.exchange.structure import Structure, numbers, rows
from albef.model_config import SIZES
from albef.model_directory import Trained
from albef.peers.bert_names import modern
from albef.peers.uniter import PRETRAINING, UNITER
from albef.peers.uniter_names import UNITER as NAMING
from albef.peers.uniter_names import from_published, to_published
from albef.peers.uniter_text import CasedTokenizer

WORDS, POSITIONS = "uniter.embeddings.word_embeddings.weight", "uniter.embeddings.position_embeddings.weight"
REGIONS = "uniter.img_embeddings.img_linear.weight"
PARTS = {
    "text_encoder": "text embeddings",
    "region_embedding": "region embeddings",
    "fusion_encoder": "encoder",
}
KINDS: dict[tuple[str, ...], tuple[str, TaskName]] = {
    PRETRAINING: ("pre-trained", "pretrain"),
    ("itm", "rank"): ("retrieval", "retrieval"),
    ("answers",): ("answers from a list", "vqa"),
    ("entailment",): ("entailment", "entailment"),
    ("triplet",): ("texts about two images, in one sequence", "nlvr"),
    ("paired",): ("texts about two images, in two sequences", "nlvr"),
    ("paired_attention",): ("texts about two images, with attention between them", "nlvr"),
}


class UniterFile(NamedTuple):
    """What a published file holds."""

    config: ModelConfig
    heads: tuple[str, ...]
    state: dict[str, Tensor]  # as stored, with today's names of norms


def import_uniter(opened: Published, folder: Path, choices: Choices) -> tuple[Structure, list[Row]]:
    """Writes a model directory from a published UNITER. Returns what it was, and what happened to its parts.

    The weights are written in fp32, one at a time. Raises `UserError` for shapes that do not fit together, without the
    vocabulary, and for choices that mean nothing to it.
    """
    file = opened.file
    choices.refuse(("image_size", "append_sep", "activation"), file, "a UNITER")
    found = uniter_of(opened.state, choices.heads, file)
    tokenizer = tokenizer_of(choices, found, file)
    answers = listed_answers(choices, found.config.num_answers if "answers" in found.heads else 0, file)
    what, task = KINDS[found.heads]
    with torch.device("meta"):
        model = UNITER(found.config, found.heads)
    write_converted(
        folder,
        model,
        tokenizer,
        card_of_regions(file, "uniter", what),
        Trained(task, file.name),
        lambda name: from_published(found.state, [name])[name],
        answers,
    )
    structure = Structure(f"UNITER, {what}", task, found.heads, has_teacher=False)
    return structure, account(opened, found, choices)


def write_uniter(
    file: Path, student: Mapping[str, Tensor], heads: tuple[str, ...]
) -> tuple[Structure, list[Row]]:
    """Writes a bare state dict under the published names. Returns which published model it is, and its parts.

    Raises `UserError` for a model with other heads, and for a file that exists.
    """
    if heads not in KINDS:
        raise UserError(
            f"{file}: the model was trained for {', '.join(heads)}, but no published UNITER has these heads: they have "
            f"{', or '.join(' + '.join(known) for known in KINDS)}."
        )
    what, task = KINDS[heads]
    state = to_published(student)
    write_pth(file, state, None)
    return Structure(f"UNITER, {what}", task, heads, has_teacher=False), [
        Row("written", "model", len(state), "")
    ]


def tokenizer_of(choices: Choices, found: UniterFile, file: Path) -> CasedTokenizer:
    """The tokenizer that was chosen: a `vocab.txt` or a `tokenizer.json`. Raises `UserError` without any."""
    if choices.tokenizer is None:
        raise UserError(
            f"{file}: is a UNITER, whose vocabulary is not part of this library. Give the vocab.txt of bert-base-cased "
            f"(--tokenizer vocab.txt)."
        )
    plain = choices.tokenizer.suffix == ".txt"
    read = CasedTokenizer.of_vocabulary if plain else CasedTokenizer.load
    tokenizer = read(choices.tokenizer)
    assert isinstance(tokenizer, CasedTokenizer)
    if tokenizer.vocab_size > found.config.vocab_size:
        raise UserError(
            f"{file}: has {found.config.vocab_size} word embeddings, but {choices.tokenizer} has "
            f"{tokenizer.vocab_size} tokens. Give the vocabulary that it was trained with."
        )
    return tokenizer


def uniter_of(published: Mapping[str, Tensor], heads: Sequence[int], file: Path) -> UniterFile:
    """The model in a state dict: its sizes from its shapes, its heads from its names."""
    state = {modern(name): tensor for name, tensor in published.items()}
    check_foundation(state, (WORDS, REGIONS), file, "UNITER")
    own_heads = heads_of(state, file)
    width, positions = max(state[WORDS].shape[1], 1), rows(state, POSITIONS)
    sizes: dict[str, Any] = {}
    if "objects" in own_heads:
        sizes["num_objects"] = rows(state, "region_classifier.net.3.bias")
    if "answers" in own_heads:
        sizes["num_answers"] = rows(state, "vqa_output.3.bias")
    size = "uniter-large" if width == SIZES["uniter-large"].text_width else "uniter-base"
    config = ModelConfig(
        size=size,  # type: ignore[arg-type]
        text_width=width,
        fusion_depth=max(len(numbers(state, r"uniter\.encoder\.layer\.(\d+)\.")), 1),
        text_heads=heads_of_layers(width, heads, {}, file),
        text_mlp_width=rows(state, "uniter.encoder.layer.0.intermediate.dense.weight"),
        vocab_size=len(state[WORDS]),
        max_positions=positions,
        max_tokens=min(62, positions),
        region_width=max(state[REGIONS].shape[1], 1),
        **sizes,
    )
    with torch.device("meta"):
        own = UNITER(config, own_heads).state_dict()
    check_fit(state, to_published(own), NAMING.tied, file, "UNITER")
    return UniterFile(config, own_heads, state)


def heads_of(state: Mapping[str, Tensor], file: Path) -> tuple[str, ...]:
    """The heads of a state dict, by its names."""
    if "cls.predictions.bias" in state:
        return PRETRAINING
    if "rank_output.weight" in state:
        return ("itm", "rank")
    if "vqa_output.3.bias" in state:
        return ("entailment",) if len(state["vqa_output.3.bias"]) == 3 else ("answers",)
    if "attn1.in_proj_weight" in state:
        return ("paired_attention",)
    if "nlvr2_output.weight" in state:
        wide = state["nlvr2_output.weight"].shape[-1] > state[WORDS].shape[1]
        return ("paired",) if wide else ("triplet",)
    raise UserError(
        f"{file}: has no head of UNITER's published models, only the encoder. Give a whole checkpoint."
    )


def account(opened: Published, found: UniterFile, choices: Choices) -> list[Row]:
    """A row for each part: loaded, ignored (with the reason), or assumed."""
    with torch.device("meta"):
        own = UNITER(found.config, found.heads).state_dict()
    names = {name: NAMING.parts(name) for name in own}
    told = account_of_parts(opened, found.state, names, NAMING.tied, PARTS)
    told.append(Row("assumed", "heads", None, f"{found.config.text_heads} in each layer"))
    told.append(Row("assumed", "tokenizer", None, str(choices.tokenizer)))
    return told
