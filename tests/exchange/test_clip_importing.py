"""Which tokenizer an imported CLIP gets, and how its configuration names the vocabulary."""

import dataclasses
from pathlib import Path

import pytest

import toy_clip
from albef.config import UserError
from albef.exchange.clip_configs import NOTHING
from albef.exchange.clip_files import ClipFile
from albef.exchange.clip_importing import tokenizer_of
from albef.peers.clip_text import ClipTokenizer

PUBLISHED = ClipTokenizer.published()
TOLD = NOTHING._replace(source="config.json")


def found(vocab_size: int, folder: bool = False) -> ClipFile:
    config = dataclasses.replace(toy_clip.CONFIG, vocab_size=vocab_size)
    return ClipFile(config, "openai", TOLD if folder else NOTHING, {}, [])


def test_the_published_vocabulary_needs_no_file(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("another model's, in the same folder")
    tokenizer = tokenizer_of(found(PUBLISHED.vocab_size), tmp_path / "ViT-B-32.pt", None)
    assert tokenizer.merges == PUBLISHED.merges


def test_a_folder_s_own_tokenizer_is_taken_even_if_it_is_as_large(tmp_path: Path) -> None:
    (a, b), *rest = PUBLISHED.merges[:600]
    own = ClipTokenizer([*rest, (a, b)])
    own.save(tmp_path / "tokenizer.json", toy_clip.CONFIG)
    file = tmp_path / "model.safetensors"
    assert tokenizer_of(found(own.vocab_size, folder=True), file, None).merges == own.merges
    with pytest.raises(UserError, match=r"tokenizer\.json has 1,114 tokens; give the tokenizer"):
        tokenizer_of(found(PUBLISHED.vocab_size, folder=True), file, None)
    with pytest.raises(UserError, match=r"has 1,114 token embeddings, but the vocabulary of CLIP has 49,408"):
        tokenizer_of(found(own.vocab_size), file, None)
    assert tokenizer_of(found(own.vocab_size), file, tmp_path / "tokenizer.json").merges == own.merges
