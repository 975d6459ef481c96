"""LXMERT's encoders, cross layers, heads and initial weights."""

import dataclasses

import pytest
import torch

import toy_lxmert
from albef.cli.info import model_facts
from albef.config import SIZES
from albef.model import layers
from albef.peers.lxmert import LXMERT

TEXTS = ([5, 6, 7], [8], [9, 10, 11, 12, 13])
COUNTS = (4, 1, 3)


@pytest.mark.parametrize(
    ("heads", "num_answers", "parameters"),
    [
        (("itm", "mlm", "regions", "answers"), 9_500, 228_051_752),
        (("answers",), 3_129, 213_930_297),
        (("answers",), 1_842, 211_952_178),
        (("nlvr",), 1_842, 210_303_746),
    ],
)
def test_the_published_sizes(heads: tuple[str, ...], num_answers: int, parameters: int) -> None:
    with torch.device("meta"):
        model = LXMERT(dataclasses.replace(SIZES["lxmert-base"], num_answers=num_answers), heads)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_info_tells_the_published_size() -> None:
    facts = model_facts("lxmert-base")
    assert (facts["trainable_parameters"], facts["state_dict_keys"]) == (228_051_752, 473)
    assert facts["heads"] == "itm, mlm, regions, answers"
    assert (facts["region_width"], facts["num_answers"]) == (2_048, 9_500)
    assert "patch_size" not in facts


def test_initial_weights_are_berts() -> None:
    torch.manual_seed(0)
    model = LXMERT(dataclasses.replace(toy_lxmert.CONFIG, text_width=64, initial_std=0.02))
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            assert torch.equal(parameter, torch.ones_like(parameter))
        elif parameter.dim() == 1:
            assert not parameter.any(), name
        elif parameter.numel() > 1000:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.15), name


@torch.no_grad()
def test_only_what_is_read_is_computed_and_is_the_same() -> None:
    model = toy_lxmert.model()
    ids, mask = toy_lxmert.texts(*TEXTS)
    text = model.encode_text(ids, mask).tokens
    memory = model.image_memory(model.encode_image(toy_lxmert.regions(*COUNTS)))
    fused = model.fuse(text, mask, memory)
    pooled = model.pooler(fused.text)
    torch.testing.assert_close(model.pooled(text, mask, memory), pooled)
    assert model.itm_head is not None
    torch.testing.assert_close(model.match(text, mask, memory), model.itm_head(pooled))
    assert model.classifier is not None
    torch.testing.assert_close(model.answer(text, mask, memory), model.classifier(pooled))
    places = mask.flatten().nonzero().squeeze(1)
    states = model.masked_states(ids, mask, memory, places)
    torch.testing.assert_close(states, fused.text.flatten(0, 1)[places])
    assert model.region_head is not None
    boxes = fused.regions.flatten(0, 1)
    every, some = model.region_head(boxes), model.region_head(boxes, torch.tensor([1, 4]))
    torch.testing.assert_close(some.features, every.features[[1, 4]])
    assert torch.equal(some.objects, every.objects)


@torch.no_grad()
def test_a_pair_depends_on_nothing_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_lxmert.model()
    ids, mask = toy_lxmert.texts(*TEXTS)
    text = model.encode_text(ids, mask).tokens
    memory = model.image_memory(model.encode_image(toy_lxmert.regions(*COUNTS)))
    texts, images = torch.tensor([0, 0, 2, 1]), torch.tensor([0, 2, 1, 1])
    together = model.match(text[texts], mask[texts], memory, images)
    for row, (one, image) in enumerate(zip(texts, images, strict=True)):
        own_ids, own_mask = toy_lxmert.texts(TEXTS[one])
        alone = model.match(model.encode_text(own_ids, own_mask).tokens, own_mask, memory.select(image[None]))
        torch.testing.assert_close(alone[0], together[row])
    served = model.match(text, mask, memory.select(torch.tensor([1])))
    torch.testing.assert_close(served, model.match(text, mask, memory, torch.tensor([1, 1, 1])))
    begun = model.begin_match(text, mask)
    torch.testing.assert_close(model.finish_match(begun, mask, memory), model.match(text, mask, memory))
    monkeypatch.setattr(layers, "packs", lambda device: False)  # as on a GPU
    torch.testing.assert_close(model.match(text[texts], mask[texts], memory, images), together)


@torch.no_grad()
def test_two_images_are_all_first_and_then_all_second_ones() -> None:
    model = toy_lxmert.model("nlvr")
    ids, mask = toy_lxmert.texts(*TEXTS[:2])
    text = model.encode_text(ids, mask).tokens
    memory = model.image_memory(model.encode_image(toy_lxmert.regions(4, 1, 3, 2)))
    logits = model.classify(text, mask, memory)
    second = model.classify(text[1:], mask[1:], memory.select(torch.tensor([1, 3])))
    torch.testing.assert_close(logits[1:], second)
    swapped = model.classify(text[1:], mask[1:], memory.select(torch.tensor([3, 1])))
    assert not torch.allclose(swapped, second, atol=1e-3)


def test_regions_of_the_last_layer_get_no_gradient_where_text_alone_is_read() -> None:
    model = toy_lxmert.model("answers")
    ids, mask = toy_lxmert.texts(*TEXTS)
    memory = model.image_memory(model.encode_image(toy_lxmert.regions(*COUNTS)))
    model.answer(model.encode_text(ids, mask).tokens, mask, memory).sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    last = f"fusion_encoder.layers.{toy_lxmert.CONFIG.fusion_depth - 1}.region_layer."
    assert without == {name for name, _ in model.named_parameters() if name.startswith(last)}


@pytest.mark.parametrize("frozen", [True, False])
def test_first_rows_are_learned_unless_they_are_frozen(frozen: bool) -> None:
    config = dataclasses.replace(toy_lxmert.CONFIG, freeze_first_rows=frozen)
    model = toy_lxmert.model(config=config)
    ids, mask = toy_lxmert.texts(*TEXTS)
    memory = model.image_memory(model.encode_image(toy_lxmert.regions(*COUNTS)))
    model.match(model.encode_text(ids, mask).tokens, mask, memory)[:, 1].sum().backward()
    for table in (model.text_encoder.positions, model.text_encoder.types):
        assert table.weight.grad is not None
        assert bool(table.weight.grad[0].any()) is not frozen
    assert model.text_encoder.positions.weight.grad is not None
    assert model.text_encoder.positions.weight.grad[1].any()


def test_recomputed_activations_give_the_same_gradients() -> None:
    ids, mask = toy_lxmert.texts(*TEXTS)
    found = []
    for encoders in ((), ("image", "text", "fusion")):
        model = toy_lxmert.model()
        model.checkpoint(encoders)
        memory = model.image_memory(model.encode_image(toy_lxmert.regions(*COUNTS)))
        text = model.encode_text(ids, mask).tokens
        (
            model.match(text, mask, memory).sum() + model.fuse(text, mask, memory).regions[:, 0].sum()
        ).backward()
        found.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    torch.testing.assert_close(found[0], found[1])
