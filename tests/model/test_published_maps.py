"""The published maps: against finite differences, and what must not change them."""

import numpy as np
import pytest
import torch

from albef.config import ModelConfig
from albef.model.albef import ALBEF
from albef.model.published_maps import word_maps
from toy_maps import CONFIG, toy_model, toy_pairs


@pytest.fixture(params=[False, True], ids=["all tokens", "placed patches"])
def model(request: pytest.FixtureRequest) -> ALBEF:
    return toy_model(fuse_placed_patches=request.param)


@pytest.fixture
def pairs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return toy_pairs()


def test_equals_the_definition_by_finite_differences(model, pairs):
    pixels, ids, mask = pairs
    heads, width, layer = 2, 4, 1
    memory = model.image_memory(model.encode_image(pixels))
    tokens = model.encode_text(ids, mask).tokens
    attention = model.fuse(tokens, mask, memory, keep_attention=True).attention[layer]
    values = memory.layers[layer].unflatten(-1, (2, heads, width))[:, :, 1]  # [pairs, patches, heads, width]
    joined_weights = model.fusion_encoder.layers[layer].cross_attention.out

    def score(query: int, head: int, patch: int, step: float) -> torch.Tensor:
        """The matching logits where every pair attends by `step` more."""

        def attend_more(module: object, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            context = inputs[0].clone()  # real tokens alone, text after text
            real = mask[:, query]
            rows = (mask.flatten().cumsum(0) - 1).view(mask.shape)[real, query]
            context[rows, head * width : (head + 1) * width] += step * values[real, patch, head]
            return (context,)

        hook = joined_weights.register_forward_pre_hook(attend_more)
        fused = model.fuse(tokens, mask, memory)
        hook.remove()
        return model.itm_head(fused.tokens[:, 0])[:, 1]

    expected = np.zeros((2, 5, 3, 3))
    for query in range(5):
        for patch in range(9):
            token = patch + attention.shape[-1] - 9  # after [CLS], where fusion sees it
            for head in range(heads):
                slope = (score(query, head, token, 1e-5) - score(query, head, token, -1e-5)) / 2e-5
                cell = attention[:, head, query, token] * slope.clamp(min=0) * mask[:, query] / heads
                expected[:, query, patch // 3, patch % 3] += cell.numpy()
    found = word_maps(model, pixels, ids, mask, layer)
    assert found.shape == (2, 5, 3, 3)
    assert found[0].max() > 1e-4
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


def test_pairs_do_not_see_each_other_and_padding_has_no_map(model, pairs):
    pixels, ids, mask = pairs
    found = word_maps(model, pixels, ids, mask)
    alone = word_maps(model, pixels[1:], ids[1:, :3], mask[1:, :3])
    np.testing.assert_allclose(found[1:, :3], alone, rtol=1e-5, atol=1e-12)
    assert not found[1, 3:].any()
    assert (found >= 0).all()


@pytest.mark.parametrize(("depth", "published"), [(6, 2), (3, 1), (2, 0), (1, 0)])
def test_default_layer_lies_where_the_published_one_does(depth, published, pairs):
    torch.manual_seed(0)
    pixels, ids, mask = pairs
    model = ALBEF(ModelConfig(**{**vars(CONFIG), "fusion_depth": depth})).double().eval()
    np.testing.assert_array_equal(
        word_maps(model, pixels, ids, mask), word_maps(model, pixels, ids, mask, published)
    )


def test_in_the_last_layer_only_the_first_token_matters(model, pairs):
    found = word_maps(model, *pairs, layer=2)
    assert found[:, 0].any()
    assert not found[:, 1:].any()


def test_leaves_no_gradients_behind(pairs):
    torch.manual_seed(0)
    model = ALBEF(CONFIG).double()
    word_maps(model, *pairs)
    assert all(parameter.grad is None for parameter in model.parameters())
