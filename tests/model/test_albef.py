"""The verbs of the model agree with one another, and padding changes nothing."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import toy
from albef.model import layers
from albef.model.albef import ALBEF
from albef.model.image_encoder import resize_positions, sine_positions
from albef.model.verbs import Encoding


def model() -> ALBEF:
    torch.manual_seed(0)
    return ALBEF(toy.MODEL).eval()


@pytest.mark.parametrize("initial_std", [0.1, 0.01])
def test_places_start_no_larger_than_words(initial_std: float) -> None:
    torch.manual_seed(0)
    albef = ALBEF(dataclasses.replace(toy.MODEL, initial_std=initial_std), ("answer",))
    for part in (albef.text_encoder, albef.answer_decoder):
        assert part is not None
        assert part.words.weight.std().item() == pytest.approx(initial_std, rel=0.2)
        for place in (part.positions, part.types):
            assert place.weight.std().item() == pytest.approx(min(initial_std, 0.02), rel=0.4)


def test_padding_changes_nothing() -> None:
    albef, batch = model(), toy.batch(5)
    image = albef.encode_image(batch.pixels)
    memory = albef.image_memory(image)
    text = albef.encode_text(batch.ids, batch.mask)
    logits = albef.match(text.tokens, batch.mask, memory)
    for row in range(5):
        length = int(batch.mask[row].sum())
        ids, mask = batch.ids[row : row + 1, :length], batch.mask[row : row + 1, :length]
        alone = albef.encode_text(ids, mask)
        torch.testing.assert_close(alone.feature[0], text.feature[row])
        torch.testing.assert_close(alone.tokens[0], text.tokens[row, :length])
        assert not text.tokens[row, length:].any()
        one = albef.match(alone.tokens, mask, memory, torch.tensor([row]))
        torch.testing.assert_close(one[0], logits[row])


def test_padding_that_is_computed_with_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    albef, batch = model(), toy.batch(5)
    memory = albef.image_memory(albef.encode_image(batch.pixels))

    def computed() -> list[torch.Tensor]:
        text = albef.encode_text(batch.ids, batch.mask)
        fused = albef.fuse(text.tokens, batch.mask, memory)
        logits = albef.match(text.tokens, batch.mask, memory)
        return [text.feature, text.tokens[batch.mask], fused.tokens[batch.mask], logits]

    packed = computed()
    monkeypatch.setattr(layers, "packs", lambda device: False)  # as on a GPU
    for padded, expected in zip(computed(), packed, strict=True):
        torch.testing.assert_close(padded, expected)


def test_match_reads_what_fuse_computes() -> None:
    albef, batch = model(), toy.batch(4)
    memory = albef.image_memory(albef.encode_image(batch.pixels))
    text = albef.encode_text(batch.ids, batch.mask)
    fused = albef.fuse(text.tokens, batch.mask, memory, keep_attention=True)
    torch.testing.assert_close(
        albef.itm_head(fused.tokens[:, 0]), albef.match(text.tokens, batch.mask, memory)
    )
    plain = albef.fuse(text.tokens, batch.mask, memory)
    torch.testing.assert_close(plain.tokens, fused.tokens)
    assert plain.attention == ()
    for attention in fused.attention:
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))


def test_pairs_choose_rows_of_the_memory() -> None:
    albef, batch = model(), toy.batch(4)
    image = albef.encode_image(batch.pixels)
    text = albef.encode_text(batch.ids, batch.mask)
    index = torch.tensor([2, 0, 0, 3])
    chosen = albef.encode_image(batch.pixels[index])
    torch.testing.assert_close(
        albef.match(text.tokens, batch.mask, albef.image_memory(image), index),
        albef.match(text.tokens, batch.mask, albef.image_memory(chosen)),
    )


@settings(max_examples=25, deadline=None)
@given(index=st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_texts_that_share_an_image_change_nothing(index: list[int]) -> None:
    # Where attention is kept, and off the CPU, each text has a copy of its image's memory.
    albef, batch = model(), toy.batch(5)
    text, rows = albef.encode_text(batch.ids, batch.mask), torch.tensor(index)
    memory = albef.image_memory(albef.encode_image(batch.pixels[:4]))
    shared = albef.fuse(text.tokens, batch.mask, memory, rows).tokens
    copied = albef.fuse(text.tokens, batch.mask, memory, rows, keep_attention=True)
    torch.testing.assert_close(shared, copied.tokens)
    assert [len(attention) for attention in copied.attention] == [5] * len(memory.layers)
    alone = albef.fuse(text.tokens, batch.mask, memory.select(rows)).tokens
    torch.testing.assert_close(shared, alone)


def test_one_image_serves_all_texts() -> None:
    albef, batch = model(), toy.batch(4)
    text = albef.encode_text(batch.ids, batch.mask)
    memory = albef.image_memory(albef.encode_image(batch.pixels[:1]))
    copied = torch.zeros(4, dtype=torch.long)
    shared = albef.fuse(text.tokens, batch.mask, memory)
    torch.testing.assert_close(
        shared.tokens, albef.fuse(text.tokens, batch.mask, memory, copied).tokens, atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        albef.match(text.tokens, batch.mask, memory), albef.match(text.tokens, batch.mask, memory, copied)
    )


def test_fusion_can_see_the_placed_patches_alone() -> None:
    torch.manual_seed(0)
    albef = ALBEF(dataclasses.replace(toy.MODEL, fuse_placed_patches=True))
    image = albef.encode_image(toy.batch(3).pixels)
    memory = albef.image_memory(image)
    other_class = torch.cat([image.tokens[:, :1] + 1, image.tokens[:, 1:]], 1)
    same = albef.image_memory(image._replace(tokens=other_class))
    placed = albef.fusion_encoder.remember(image.tokens + albef.image_encoder.positions, None)
    for layer, unchanged, all_tokens in zip(memory.layers, same.layers, placed.layers, strict=True):
        assert layer.shape[1] == toy.MODEL.grid**2
        assert torch.equal(layer, unchanged)
        torch.testing.assert_close(layer, all_tokens[:, 1:])


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_text_begun_once_is_matched_with_any_image(depth: int) -> None:
    torch.manual_seed(0)
    albef, batch = ALBEF(dataclasses.replace(toy.MODEL, fusion_depth=depth)).eval(), toy.batch(4)
    text = albef.encode_text(batch.ids, batch.mask)
    begun = albef.begin_match(text.tokens, batch.mask)
    for pixels in batch.pixels.split(1):
        memory = albef.image_memory(albef.encode_image(pixels))
        torch.testing.assert_close(
            albef.finish_match(begun, batch.mask, memory), albef.match(text.tokens, batch.mask, memory)
        )


def test_only_masked_positions_are_predicted() -> None:
    albef, batch = model(), toy.batch(3)
    memory = albef.image_memory(albef.encode_image(batch.pixels))
    states = albef.masked_states(batch.masked_ids, batch.mask, memory, batch.mlm_positions)
    words = albef.predict_words(states)
    assert words.shape == (len(batch.mlm_positions), toy.VOCABULARY)
    last = albef.masked_states(batch.masked_ids, batch.mask, memory, batch.mlm_positions[-1:])
    torch.testing.assert_close(albef.predict_words(last)[0], words[-1])


def test_features_have_unit_length_and_the_temperature_a_range() -> None:
    albef, batch = model(), toy.batch(3)
    feature = albef.encode_image(batch.pixels).feature
    torch.testing.assert_close(feature.norm(dim=1), torch.ones(3))
    for value, kept in ((9.0, 0.5), (0.0, 0.001), (0.07, 0.07)):
        with torch.no_grad():
            albef.temperature.fill_(value)
        albef.clamp_temperature()
        torch.testing.assert_close(albef.temperature.detach(), torch.tensor([kept]))


def test_positions_keep_the_class_token_and_tell_places_apart() -> None:
    positions = torch.randn(1, 1 + 16, 8)
    assert resize_positions(positions, 4) is positions
    resized = resize_positions(positions, 6)
    assert resized.shape == (1, 37, 8)
    torch.testing.assert_close(resized[:, 0], positions[:, 0])
    table = sine_positions(4, 16)[0]
    distances = torch.cdist(table, table) + torch.eye(16) * 9
    assert distances.min() > 0.3


@pytest.mark.parametrize("encoders", [("image",), ("text", "fusion"), ("image", "text", "fusion")])
def test_computing_activations_again_changes_no_gradient(encoders: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    model, batch = ALBEF(toy.MODEL).train(), toy.batch(3)

    def gradients() -> dict[str, torch.Tensor]:
        torch.manual_seed(1)  # dropout
        model.zero_grad()
        memory = model.image_memory(model.encode_image(batch.pixels))
        text = model.encode_text(batch.ids, batch.mask)
        model.match(text.tokens, text.mask, memory)[:, 1].sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    kept = gradients()
    calls: list[str] = []
    blocks = {"image": model.image_encoder.blocks[0], "text": model.text_encoder.layers[0]}
    for name, block in blocks.items():
        block.attention_norm.register_forward_hook(lambda *_, name=name: calls.append(name))
    model.checkpoint(encoders)
    again = gradients()
    assert all(torch.equal(again[name], gradient) for name, gradient in kept.items())
    for name in blocks:
        assert calls.count(name) == (2 if name in encoders else 1)


@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("head", ["entailment", "nlvr"])
def test_image_tokens_that_are_masked_are_not_looked_at(head: str, placed: bool) -> None:
    torch.manual_seed(0)
    albef = ALBEF(dataclasses.replace(toy.MODEL, fuse_placed_patches=placed), (head,)).eval()
    batch, images = toy.batch(3), 6 if head == "nlvr" else 3
    text = albef.encode_text(batch.ids, batch.mask)
    tokens = torch.randn(images, 5, toy.MODEL.image_width)
    mask = torch.ones(images, 5, dtype=torch.bool)
    mask[:, 3:] = False
    mask[-1, 2] = False  # of a second image

    def classes(tokens: torch.Tensor) -> torch.Tensor:
        memory = albef.image_memory(Encoding(tokens, mask, tokens[:, 0]))
        return albef.classify(text.tokens, batch.mask, memory)

    other = torch.where(mask[..., None], tokens, torch.randn_like(tokens))
    torch.testing.assert_close(classes(other), classes(tokens))
    seen = torch.where(mask[..., None], torch.randn_like(tokens), tokens)
    assert not torch.allclose(classes(seen), classes(tokens), atol=1e-4)
