"""UNITER's inputs, initial weights, and what its verbs promise."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import toy_uniter
from albef.data.regions import Regions
from albef.model import layers
from albef.model.text_encoder import NORM_EPS
from albef.peers.uniter import PAIRS, PRETRAINING, UNITER, seven_numbers


def judged(model: UNITER, lengths: list[int], counts: list[int]) -> torch.Tensor:
    """Logits of pairs of these sizes."""
    ids, mask = toy_uniter.texts(*lengths)
    memory = model.image_memory(model.encode_image(toy_uniter.regions(*counts)))
    return model.match(model.encode_text(ids, mask).tokens, mask, memory)


@given(st.integers(1, 6), st.integers(1, 6))
def test_a_pair_does_not_depend_on_the_others_of_its_batch(length: int, count: int) -> None:
    model = toy_uniter.model()
    ids, mask = toy_uniter.texts(6, length)
    regions = toy_uniter.regions(6, count)
    memory = model.image_memory(model.encode_image(regions))
    together = model.match(model.encode_text(ids, mask).tokens, mask, memory)[1]
    own = Regions(*(tensor[1:, :count] for tensor in regions[:3]))
    text = model.encode_text(ids[1:, :length], mask[1:, :length]).tokens
    alone = model.match(text, mask[1:, :length], model.image_memory(model.encode_image(own)))
    torch.testing.assert_close(alone[0], together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("heads", [("itm",), ("itm", "rank"), *((head,) for head in PAIRS)])
def test_off_the_cpu_logits_are_the_same(heads: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """There padding passes through the layers, and attention leaves it out."""
    model, (ids, mask) = toy_uniter.model(heads), toy_uniter.texts(3, 5)
    images = (4, 2, 3, 1) if model.reads_pairs else (4, 2)
    found = []
    for packs in (True, False):
        monkeypatch.setattr(layers, "packs", lambda device, packs=packs: packs)
        memory = model.image_memory(model.encode_image(toy_uniter.regions(*images)))
        verb = model.classify if model.reads_pairs else model.match
        found.append(verb(model.encode_text(ids, mask).tokens, mask, memory))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_any_image_of_a_memory_can_be_matched() -> None:
    model, (ids, mask) = toy_uniter.model(), toy_uniter.texts(3, 5)
    memory = model.image_memory(model.encode_image(toy_uniter.regions(4, 2)))
    text = model.encode_text(ids, mask).tokens
    swapped = model.match(text, mask, memory, torch.tensor([1, 0]))
    torch.testing.assert_close(swapped, model.match(text, mask, memory.select(torch.tensor([1, 0]))))
    assert not torch.allclose(swapped, model.match(text, mask, memory), atol=1e-3)
    begun = model.begin_match(text, mask)
    assert torch.equal(model.finish_match(begun, mask, memory, torch.tensor([1, 0])), swapped)


def test_the_published_score_is_the_probability_of_a_match() -> None:
    model = toy_uniter.model(("itm", "rank"))
    logits = judged(model, [3, 4], [2, 3])
    assert not logits[:, 0].any()
    torch.testing.assert_close(logits.softmax(1)[:, 1], logits[:, 1].sigmoid())


def test_hidden_regions_are_seen_by_their_boxes_alone() -> None:
    model, regions = toy_uniter.model(), toy_uniter.regions(4, 2)
    hidden = torch.zeros_like(regions.mask)
    hidden[0, 1] = True
    plain, other = model.encode_image(regions), model.encode_image(regions, hidden)
    assert (plain.tokens != other.tokens).any(2).tolist() == hidden.tolist()
    changed = regions.features.clone()
    changed[0, 1] += 1
    again = model.encode_image(regions._replace(features=changed), hidden)
    assert torch.equal(again.tokens, other.tokens)
    moved = regions._replace(boxes=regions.boxes * 0.5)
    assert not torch.isclose(model.encode_image(moved, hidden).tokens[0, 1], other.tokens[0, 1]).any()


def test_boxes_of_four_numbers_become_seven() -> None:
    boxes = torch.tensor([[[0.1, 0.2, 0.6, 0.4]]])
    seven = seven_numbers(boxes)
    torch.testing.assert_close(seven, torch.tensor([[[0.1, 0.2, 0.6, 0.4, 0.5, 0.2, 0.1]]]))
    assert seven_numbers(seven) is seven


@pytest.mark.parametrize("head", PAIRS)
def test_two_images_are_told_apart(head: str) -> None:
    model, (ids, mask) = toy_uniter.model((head,)), toy_uniter.texts(3, 5)
    regions = toy_uniter.regions(4, 2, 3, 1)
    text = model.encode_text(ids, mask).tokens
    logits = []
    for order in ([0, 1, 2, 3], [2, 3, 0, 1]):
        image = model.encode_image(Regions(*(tensor[order] for tensor in regions[:3])))
        logits.append(model.classify(text, mask, model.image_memory(image)))
    assert logits[0].shape == (2, 2)
    assert not torch.isclose(logits[0], logits[1], atol=1e-4).any()


def test_checkpointing_changes_no_gradient() -> None:
    found = []
    for encoders in ((), ("fusion",)):
        model = toy_uniter.model()
        model.checkpoint(encoders)
        judged(model, [3, 4], [2, 3]).sum().backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_initial_weights_are_as_published() -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(toy_uniter.CONFIG, text_width=64, region_width=200, num_answers=300)
    for heads in (PRETRAINING, ("answers",), ("paired_attention",)):
        for name, parameter in UNITER(config, heads).named_parameters():
            if "norm" in name or name.endswith("bias"):
                assert (parameter == float(name.endswith("norm.weight"))).all(), name
            elif "pair_attention" in name and "qkv" in name:
                assert parameter.std().item() == pytest.approx((2 / (4 * 64)) ** 0.5, rel=0.1), name
            else:
                assert parameter.std().item() == pytest.approx(0.02, rel=0.25), name
    norms = [module for module in UNITER(config).modules() if isinstance(module, torch.nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {NORM_EPS}
