"""Every tensor of CLIP has its published names and shapes, and finds its way back."""

import json
from pathlib import Path

import pytest
import torch

import toy_clip
from albef.config import SIZES
from albef.peers import clip_names
from albef.peers.clip import CLIP

NAMES = json.loads((Path(__file__).parent.parent / "golden" / "clip-names.json").read_text())


@pytest.mark.parametrize(
    ("size", "naming", "published"),
    [
        ("clip-vit-b-32", "openai", "clip/ViT-B-32"),
        ("clip-vit-b-16", "openai", "clip/ViT-B-16"),
        ("clip-vit-b-32", "hugging-face", "hf/clip-ViT-B-32"),
    ],
)
def test_names_and_shapes_are_the_published_ones(size: str, naming: str, published: str) -> None:
    with torch.device("meta"):
        state = clip_names.to_published(CLIP(SIZES[size]).state_dict(), clip_names.NAMINGS[naming])
    assert {name: list(tensor.shape) for name, tensor in state.items()} == NAMES[published]


def test_custom_text_names_begin_with_text() -> None:
    state = toy_clip.model().state_dict()
    plain, custom = (
        clip_names.to_published(state, naming) for naming in (clip_names.OPENAI, clip_names.CUSTOM_TEXT)
    )
    assert "text.token_embedding.weight" in custom
    assert "text.text_projection" in custom
    text = [name for name in custom if name.startswith("text.")]
    assert {name.removeprefix("text.") for name in custom} == set(plain)
    assert not any(
        name.startswith("visual") or name == "logit_scale" for name in plain if f"text.{name}" in text
    )


@pytest.mark.parametrize("naming", clip_names.NAMINGS.values(), ids=clip_names.NAMINGS)
def test_there_and_back_nothing_changes(naming: clip_names.Naming) -> None:
    state = toy_clip.model().state_dict()
    published = clip_names.to_published(state, naming)
    assert published["logit_scale"].shape == ()
    back = clip_names.from_published(published, state, naming)
    assert list(back) == list(state)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    assert sum(tensor.numel() for tensor in published.values()) == sum(t.numel() for t in state.values())
