"""CLIP's encoders, initial weights, schedule and groups of weight decay."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import toy_clip
from albef.config import SIZES, TrainConfig
from albef.model import layers
from albef.model_config import ModelConfig
from albef.peers import clip_names
from albef.peers.clip import CLIP, quick_gelu, resize_positions
from albef.train.optim import build_optimizer, is_decayed, lr_at

words = st.lists(st.integers(1, toy_clip.START - 1), max_size=6)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("clip-vit-b-32", 151_277_313),
        ("clip-vit-b-16", 149_620_737),
        ("clip-vit-l-14", 427_616_513),
        ("clip-vit-l-14-336", 427_944_193),
    ],
)
def test_the_published_sizes(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = CLIP(SIZES[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_features_have_unit_length_and_follow_from_the_tokens() -> None:
    model = toy_clip.model()
    image, text = model.encode_image(toy_clip.pixels(3)), model.encode_text(toy_clip.texts([1, 2], [3]))
    assert text.mask is not None
    raw = model.image_features(image.tokens), model.text_features(text.tokens, text.mask)
    for encoding, features in zip((image, text), raw, strict=True):
        torch.testing.assert_close(encoding.feature.norm(dim=1), torch.ones(len(features)))
        torch.testing.assert_close(encoding.feature * features.norm(dim=1, keepdim=True), features)


@given(words, words)
def test_what_follows_the_first_end_token_is_not_read(text: list[int], after: list[int]) -> None:
    model = toy_clip.model()
    alone, followed = toy_clip.texts(text), toy_clip.texts([*text, toy_clip.END, *after])[:, :10]
    one, other = model.encode_text(alone), model.encode_text(followed)
    torch.testing.assert_close(one.feature, other.feature)
    assert other.mask is not None
    assert other.mask.sum() == alone.shape[1]


def test_a_token_sees_only_what_stands_before_it() -> None:
    model, ids = toy_clip.model(), toy_clip.texts([1, 2, 3, 4])
    changed = ids.clone()
    changed[0, 3] = 7
    before, after = model.encode_text(ids).tokens[0], model.encode_text(changed).tokens[0]
    assert torch.equal(before[:3], after[:3])
    assert not torch.isclose(before[3:], after[3:]).all(1).any()


def test_a_text_does_not_depend_on_the_others_of_its_batch() -> None:
    model, short, long = toy_clip.model(), [1, 2], [3, 4, 5, 6, 7]
    together = model.encode_text(toy_clip.texts(short, long)).feature
    alone = [model.encode_text(toy_clip.texts(text)).feature for text in (short, long)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_off_the_cpu_features_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """There padding passes through the layers, and attention leaves it out."""
    model, ids = toy_clip.model(), toy_clip.texts([1, 2], [3, 4, 5, 6, 7])
    packed = model.encode_text(ids).feature
    monkeypatch.setattr(layers, "packs", lambda device: False)
    torch.testing.assert_close(model.encode_text(ids).feature, packed)


def test_the_activation_is_a_setting() -> None:
    models = [
        toy_clip.model(config=dataclasses.replace(toy_clip.CONFIG, activation=activation))
        for activation in ("quick_gelu", "gelu")
    ]
    quick, exact = (model.encode_image(toy_clip.pixels(1)).feature for model in models)
    assert not torch.allclose(quick, exact, atol=1e-4)
    torch.testing.assert_close(quick_gelu(torch.tensor([2.0])), torch.tensor([2 / (1 + math.exp(-3.404))]))


def test_checkpointing_changes_no_gradient() -> None:
    found: list[list[Tensor]] = []
    for encoders in ((), ("image", "text")):
        model = toy_clip.model()
        model.checkpoint(encoders)
        image = model.encode_image(toy_clip.pixels(2)).feature
        text = model.encode_text(toy_clip.texts([1, 2], [3])).feature
        (image @ text.T / model.temperature).sum().backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_the_scale_stays_between_1_and_100() -> None:
    model = CLIP(toy_clip.CONFIG)
    torch.testing.assert_close(model.temperature, torch.tensor([0.07]))
    for scale, kept in ((-1.0, 1.0), (5.0, 100.0), (2.0, math.exp(2.0))):
        model.logit_scale.data.fill_(scale)
        model.clamp_temperature()
        torch.testing.assert_close(1 / model.temperature, torch.tensor([kept]))


def test_initial_weights_are_as_published() -> None:
    torch.manual_seed(0)
    image, text, depth = 96, 64, 3
    config = ModelConfig(
        size="clip-vit-b-32",
        image_size=64,
        patch_size=8,
        image_width=image,
        image_depth=2,
        image_heads=2,
        image_mlp_width=4 * image,
        text_width=text,
        text_depth=depth,
        text_heads=2,
        text_mlp_width=4 * text,
        feature_width=48,
        vocab_size=500,
    )
    state = clip_names.to_published(CLIP(config).state_dict())
    expected = {
        "token_embedding.weight": 0.02,
        "positional_embedding": 0.01,
        "text_projection": text**-0.5,
        "transformer.resblocks.1.attn.in_proj_weight": text**-0.5,
        "transformer.resblocks.1.attn.out_proj.weight": text**-0.5 * (2 * depth) ** -0.5,
        "transformer.resblocks.1.mlp.c_proj.weight": text**-0.5 * (2 * depth) ** -0.5,
        "transformer.resblocks.1.mlp.c_fc.weight": (2 * text) ** -0.5,
        "visual.positional_embedding": image**-0.5,
        "visual.class_embedding": image**-0.5,
        "visual.proj": image**-0.5,
        # PyTorch's own: Xavier for the attention's input, bounds ±1/√width for linear layers
        "visual.transformer.resblocks.1.attn.in_proj_weight": (2 / (4 * image)) ** 0.5,
        "visual.transformer.resblocks.1.attn.out_proj.weight": (3 * image) ** -0.5,
        "visual.transformer.resblocks.1.mlp.c_fc.weight": (3 * image) ** -0.5,
    }
    for name, deviation in expected.items():
        assert state[name].std().item() == pytest.approx(
            deviation, rel=0.2 if state[name].ndim == 1 else 0.05
        ), name
    assert not state["visual.transformer.resblocks.0.attn.in_proj_bias"].any()
    assert not state["transformer.resblocks.0.attn.out_proj.bias"].any()
    assert state["logit_scale"].item() == pytest.approx(math.log(1 / 0.07))


def test_weight_decay_spares_what_open_clip_spares() -> None:
    """Vectors, biases, norms and the scale. Embeddings of positions and tokens are decayed, the class token is not."""
    model = CLIP(toy_clip.CONFIG)
    for name, parameter in model.named_parameters():
        (published,) = clip_names.OPENAI.parts(name)
        spared = parameter.ndim < 2 or any(part in published for part in ("bn", "ln", "bias", "logit_scale"))
        assert is_decayed(name, parameter, decay_embeddings=True) == (not spared), name
    groups = build_optimizer(model, TrainConfig(decay_embeddings=True, weight_decay=0.2)).param_groups
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 0.2]


@given(st.integers(1, 20), st.integers(1, 20))
def test_the_learning_rate_rises_to_its_peak_and_falls_to_0(warmup: int, rest: int) -> None:
    config = TrainConfig(lr=0.5, warmup_steps=warmup, steps=warmup + rest, schedule="open_clip")
    rates = [lr_at(step, config, steps_per_epoch=1) for step in range(warmup + rest + 1)]
    assert rates[0] > 0
    assert max(rates) == rates[warmup - 1] == rates[warmup] == 0.5
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_resized_positions_keep_the_class_token() -> None:
    positions = torch.randn(1 + 9, 4)
    assert resize_positions(positions, 3) is positions
    resized = resize_positions(positions, 5)
    assert resized.shape == (26, 4)
    assert torch.equal(resized[0], positions[0])
    constant = resize_positions(torch.ones(1 + 16, 2), 2)
    torch.testing.assert_close(constant, torch.ones(5, 2))
