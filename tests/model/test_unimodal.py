"""Weights of encoders of one modality: every naming gives the same encoder, and what doesn't fit is told."""

import dataclasses
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import toy
from albef.config import ModelConfig, UserError
from albef.model.albef import ALBEF
from albef.model.image_encoder import ImageEncoder
from albef.model.text_encoder import TextEncoder
from albef.model.unimodal import image_encoder_weights, text_encoder_weights

WIDTH, MLP, HEADS, BLOCKS, LAYERS = 16, 32, 2, 3, 4
MODEL = dataclasses.replace(
    toy.MODEL, image_depth=BLOCKS, text_depth=2, fusion_depth=2, max_positions=12, dropout=0.0
)
State = dict[str, Tensor]


def drawn(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def linear(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def timm(grid: int = 2, patch: int = 8) -> State:
    """A ViT under timm's names, with a classifier."""
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + grid**2, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, patch, patch),
        "patch_embed.proj.bias": (WIDTH,),
        **norm("norm"),
        **linear("head", 5, WIDTH),
    }
    for block in (f"blocks.{depth}" for depth in range(BLOCKS)):
        shapes |= norm(f"{block}.norm1") | norm(f"{block}.norm2")
        shapes |= linear(f"{block}.attn.qkv", 3 * WIDTH, WIDTH) | linear(f"{block}.attn.proj", WIDTH, WIDTH)
        shapes |= linear(f"{block}.mlp.fc1", MLP, WIDTH) | linear(f"{block}.mlp.fc2", WIDTH, MLP)
    return drawn(shapes)


HF_VIT = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
    "head": "classifier",
}
BEFORE = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.qkv": "attention.attention.{}",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
SINCE = BEFORE | {
    "attn.qkv": "attention.{}_proj",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
DINO = BEFORE | {"norm1": "norm1", "norm2": "norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}


def hugging_face(state: State, prefix: str, layers: str, inside: dict[str, str]) -> State:
    """timm's names turned into Hugging Face's, queries, keys and values apart."""
    found = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.(ls[12])\.gamma", name):
            found[f"{prefix}{layers}.{match[1]}.layer_scale{match[2][-1]}.lambda1"] = tensor
        elif match := re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name):
            target = f"{prefix}{layers}.{match[1]}.{inside[match[2]]}.{match[3]}"
            words = ("q", "k", "v") if "_proj" in inside["attn.qkv"] else ("query", "key", "value")
            if match[2] == "attn.qkv":
                found |= {target.format(w): part for w, part in zip(words, tensor.chunk(3), strict=True)}
            else:
                found[target] = tensor
        else:
            stem, dot, kind = name.rpartition(".")
            stem, kind = (stem, dot + kind) if stem else (kind, "")
            outer = "" if stem == "head" else prefix
            found[f"{outer}{HF_VIT[stem]}{kind}"] = tensor
    return found


def plain_vit(state: State, pixels: Tensor) -> Tensor:
    """A ViT written out, with layer scales where the state has them."""

    def apply(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def normed(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    patch = state["patch_embed.proj.weight"]
    patches = F.conv2d(pixels, patch, state["patch_embed.proj.bias"], patch.shape[-1]).flatten(2).mT
    x = torch.cat([state["cls_token"].expand(len(pixels), -1, -1), patches], 1) + state["pos_embed"]
    for block in (f"blocks.{depth}" for depth in range(BLOCKS)):
        parts = apply(f"{block}.attn.qkv", normed(f"{block}.norm1", x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        gathered = ((q @ k.mT) * (WIDTH // HEADS) ** -0.5).softmax(-1) @ v
        gathered = apply(f"{block}.attn.proj", gathered.transpose(1, 2).flatten(2))
        x = x + state.get(f"{block}.ls1.gamma", torch.ones(WIDTH)) * gathered
        made = apply(f"{block}.mlp.fc2", F.gelu(apply(f"{block}.mlp.fc1", normed(f"{block}.norm2", x))))
        x = x + state.get(f"{block}.ls2.gamma", torch.ones(WIDTH)) * made
    return normed("norm", x)


def seen(state: State, config: ModelConfig = MODEL, layers: tuple[int, ...] = ()) -> Tensor:
    """What our image encoder makes of two pictures with these weights."""
    encoder = ImageEncoder(config).eval()
    weights = image_encoder_weights(state, config, layers).weights
    encoder.load_state_dict({name.removeprefix("image_encoder."): t for name, t in weights.items()})
    with torch.no_grad():
        return encoder(pictures(config.image_size))


def pictures(size: int = 16) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "naming",
    [
        pytest.param(lambda state: state, id="timm"),
        pytest.param(lambda state: hugging_face(state, "vit.", "encoder.layer", BEFORE), id="before"),
        pytest.param(lambda state: hugging_face(state, "", "encoder.layer", BEFORE), id="bare"),
        pytest.param(lambda state: hugging_face(state, "deit.", "layers", SINCE), id="since"),
        pytest.param(lambda state: hugging_face(state, "dinov2.", "encoder.layer", DINO), id="dinov2"),
    ],
)
def test_every_naming_of_a_vit_gives_the_vit(naming) -> None:
    torch.testing.assert_close(seen(naming(timm())), plain_vit(timm(), pictures()), atol=1e-5, rtol=0)


def test_a_classifier_and_a_mask_token_are_ignored() -> None:
    state = hugging_face(timm(), "vit.", "layers", SINCE) | {
        "vit.embeddings.mask_token": torch.zeros(1, 1, WIDTH)
    }
    ignored = image_encoder_weights(state, MODEL).ignored
    assert set(ignored) == {"embeddings.mask_token", "classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("naming", ["timm", "hugging face"])
def test_a_layer_scale_is_folded_in(naming: str) -> None:
    names = {f"blocks.{depth}.ls{place}.gamma": (WIDTH,) for depth in range(BLOCKS) for place in (1, 2)}
    state = timm() | drawn(names, seed=2)
    wanted = plain_vit(state, pictures())
    if naming == "hugging face":
        state = hugging_face(state, "", "encoder.layer", DINO)
    torch.testing.assert_close(seen(state), wanted, atol=1e-6, rtol=1e-6)
    assert (wanted - plain_vit(timm(), pictures())).abs().max() > 0.1


def test_positions_fit_the_grid_of_the_recipe() -> None:
    state = timm(grid=3)
    config = dataclasses.replace(MODEL, image_size=32)
    weights = image_encoder_weights(state, config).weights
    positions = weights["image_encoder.positions"]
    assert positions.shape == (1, 17, WIDTH)
    assert torch.equal(positions[:, 0], state["pos_embed"][:, 0])
    table = state["pos_embed"][:, 1:].mT.unflatten(2, (3, 3))
    wanted = F.interpolate(table, (4, 4), mode="bicubic").flatten(2).mT
    torch.testing.assert_close(positions[:, 1:], wanted)


def test_chosen_blocks_come_in_their_order() -> None:
    config = dataclasses.replace(MODEL, image_depth=2)
    weights = image_encoder_weights(timm(), config, (2, 0)).weights
    for place, depth in enumerate((2, 0)):
        assert torch.equal(
            weights[f"image_encoder.blocks.{place}.mlp.up.bias"], timm()[f"blocks.{depth}.mlp.fc1.bias"]
        )


@pytest.mark.parametrize(
    ("changed", "layers", "message"),
    [
        (
            {"image_depth": 2},
            (),
            r"3 of its 3 layers .* has 2 \(model.image_depth\).*train.init_image_layers",
        ),
        ({}, (0, 1, 3), r"has no layer 3, only 0 to 2\. Correct train.init_image_layers"),
        ({}, (0, 1), r"2 of its 3 layers would be taken, but the recipe has 3"),
        ({"image_mlp_width": 64}, (), r"instead of.*Set model.image_mlp_width to 32\."),
        ({"image_size": 12, "patch_size": 6}, (), r"Set model.patch_size to 8\."),
        ({"image_width": 8, "image_heads": 1}, (), r"Set model.image_width to 16\."),
    ],
)
def test_other_sizes_of_a_vit_are_told_with_the_setting(changed, layers, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        image_encoder_weights(timm(), dataclasses.replace(MODEL, **changed), layers)
    assert str(error.value).count("instead of") <= 3


def without(state: State, *names: str) -> State:
    return {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": torch.zeros(1), "b": torch.zeros(1)}, "holds no class token.*first names are a, b"),
        (without(timm(), "pos_embed"), "no position embeddings"),
        (without(timm(), "blocks.1.attn.qkv.bias"), r"it lacks blocks.1.attn.qkv.bias\. Take"),
        (
            timm() | {"pos_embed": torch.zeros(1, 4, WIDTH)},
            r"\[1, 4, 16\] do not fit a class token and a sq",
        ),
        (timm() | {"register_tokens": torch.zeros(1, 4, WIDTH)}, r"lacks \(register_tokens\)"),
        (timm() | {"blocks.0.attn.q_norm.weight": torch.zeros(8)}, r"lacks \(blocks.0.attn.q_norm.weight\)"),
        (timm() | {"patch_embed.proj.weight": torch.zeros(WIDTH, 1, 8, 8)}, "No setting can change that"),
    ],
)
def test_other_architectures_than_a_vit_are_refused(state: State, message: str) -> None:
    with pytest.raises(UserError, match=message):
        image_encoder_weights(state, MODEL)


def bert() -> State:
    """A BERT with an MLM head, as it is saved without a prefix."""
    words, widths = toy.VOCABULARY, {"word": toy.VOCABULARY, "position": 12, "token_type": 2}
    shapes: dict[str, tuple[int, ...]] = {
        f"embeddings.{kind}_embeddings.weight": (rows, WIDTH) for kind, rows in widths.items()
    }
    shapes |= norm("embeddings.LayerNorm") | linear("pooler.dense", WIDTH, WIDTH)
    for layer in (f"encoder.layer.{depth}" for depth in range(LAYERS)):
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= linear(f"{layer}.attention.{part}", WIDTH, WIDTH)
        shapes |= norm(f"{layer}.attention.output.LayerNorm") | norm(f"{layer}.output.LayerNorm")
        shapes |= linear(f"{layer}.intermediate.dense", MLP, WIDTH) | linear(
            f"{layer}.output.dense", WIDTH, MLP
        )
    shapes |= linear("cls.predictions.transform.dense", WIDTH, WIDTH)
    shapes |= norm("cls.predictions.transform.LayerNorm") | {"cls.predictions.bias": (words,)}
    return drawn(shapes, seed=3)


def prefixed(state: State) -> State:
    return {name if name.startswith("cls.") else f"bert.{name}": tensor for name, tensor in state.items()}


def old_style(state: State) -> State:
    return {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in state.items()
    }


def plain_bert(state: State, ids: Tensor, layers: range) -> Tensor:
    """Texts without padding through some of a BERT's layers."""

    def apply(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def normed(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-12)

    words, places, types = (
        state[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")
    )
    x = normed("embeddings.LayerNorm", words[ids] + places[: ids.shape[1]] + types[0])
    for layer in (f"encoder.layer.{depth}" for depth in layers):
        q, k, v = (
            apply(f"{layer}.attention.self.{part}", x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        gathered = ((q @ k.mT) * (WIDTH // HEADS) ** -0.5).softmax(-1) @ v
        gathered = apply(f"{layer}.attention.output.dense", gathered.transpose(1, 2).flatten(2))
        x = normed(f"{layer}.attention.output.LayerNorm", x + gathered)
        made = apply(f"{layer}.output.dense", F.gelu(apply(f"{layer}.intermediate.dense", x)))
        x = normed(f"{layer}.output.LayerNorm", x + made)
    return x


@pytest.mark.parametrize("naming", [dict, prefixed, old_style])
def test_every_naming_of_a_bert_gives_the_bert(naming) -> None:
    config = dataclasses.replace(MODEL, text_depth=LAYERS, fusion_depth=0)
    weights = text_encoder_weights(naming(bert()), config).weights
    encoder = TextEncoder(config).eval()
    encoder.load_state_dict(
        {n.removeprefix("text_encoder."): t for n, t in weights.items() if n.startswith("text_encoder.")}
    )
    ids = torch.randint(5, toy.VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        found = encoder(ids, torch.ones_like(ids, dtype=torch.bool))
    torch.testing.assert_close(found, plain_bert(bert(), ids, range(LAYERS)), atol=1e-5, rtol=0)


def test_the_first_layers_encode_text_and_the_next_ones_fuse() -> None:
    state, found = bert(), text_encoder_weights(bert(), MODEL)
    for encoder, place, depth in (("text", 0, 0), ("text", 1, 1), ("fusion", 0, 2), ("fusion", 1, 3)):
        layer = f"{encoder}_encoder.layers.{place}"
        assert torch.equal(
            found.weights[f"{layer}.attention.qkv.weight"],
            torch.cat(
                [state[f"encoder.layer.{depth}.attention.self.{p}.weight"] for p in ("query", "key", "value")]
            ),
        )
        assert torch.equal(
            found.weights[f"{layer}.mlp_norm.bias"], state[f"encoder.layer.{depth}.output.LayerNorm.bias"]
        )
    assert torch.equal(
        found.weights["mlm_head.transform.weight"], state["cls.predictions.transform.dense.weight"]
    )
    own = set(ALBEF(MODEL, ("mlm",)).state_dict())
    lacking = {name for name in own - set(found.weights) if not name.startswith("image_encoder.")}
    assert lacking
    assert all(".cross_attention" in name for name in lacking)


def test_chosen_layers_of_a_bert_and_no_mlm_head() -> None:
    state = {name: tensor for name, tensor in bert().items() if not name.startswith("cls.")}
    weights = text_encoder_weights(state, MODEL, (3, 1, 0, 0)).weights
    for layer, depth in (("text_encoder.layers.0", 3), ("fusion_encoder.layers.1", 0)):
        assert torch.equal(
            weights[f"{layer}.mlp.up.bias"], state[f"encoder.layer.{depth}.intermediate.dense.bias"]
        )
    assert not any(name.startswith("mlm_head.") for name in weights)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"fusion_depth": 1},
            r"recipe has 3 \(model.text_depth \+ model.fusion_depth\).*train.init_text_layers",
        ),
        (
            {"vocab_size": 41},
            r"40 word embeddings, but the tokenizer has 41 tokens.*tokenizer.json or vocab.txt",
        ),
        (
            {"text_mlp_width": 64, "max_positions": 9, "max_tokens": 9},
            "Set model.text_mlp_width to 32, model.max_positions to 12",
        ),
        ({"text_width": 8, "text_heads": 1}, "Set model.text_width to 16"),
    ],
)
def test_other_sizes_of_a_bert_are_told_with_the_setting(changed, message: str) -> None:
    with pytest.raises(UserError, match=message):
        text_encoder_weights(bert(), dataclasses.replace(MODEL, **changed))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (timm(), "holds no word embeddings"),
        (without(bert(), "embeddings.token_type_embeddings.weight"), "lacks .*token_type_embeddings"),
        (
            bert() | {"encoder.layer.1.attention.self.distance_embedding.weight": torch.zeros(3, 8)},
            r"layers have parts that albef.s layers lack \(bert.encoder.layer.1.attention.self.distance",
        ),
    ],
)
def test_other_architectures_than_a_bert_are_refused(state: State, message: str) -> None:
    with pytest.raises(UserError, match=message):
        text_encoder_weights(state, MODEL)
