"""OSCAR's sequence of text, tags and regions, its memory of images, and its initial weights."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import toy_oscar
from albef.data.regions import Tags
from albef.model import layers
from albef.model.verbs import Memory
from albef.peers import oscar_names
from albef.peers.oscar import OSCAR
from toy_oscar import SEP, memory, padded, regions, tags, texts

words = st.lists(st.integers(4, 39), max_size=12)


def logits(
    model: OSCAR, texts: tuple[Tensor, Tensor], seen: Memory, index: list[int] | None = None
) -> Tensor:
    """ITM logits of texts about their images."""
    ids, mask = texts
    chosen = None if index is None else torch.tensor(index)
    return model.match(model.encode_text(ids, mask).tokens, mask, seen, chosen)


def test_swapping_tags_is_one_index() -> None:
    model = toy_oscar.model("itm")
    one, two = [5, 6], [7, 8, 9]
    seen = memory(model, regions(2, 3, of=tags(one, two)))
    polluted = seen.with_tags_of(torch.tensor([1, 0]))
    wanted = memory(model, regions(2, 3, of=tags(two, one)))
    given = texts([10, 11], [12])
    torch.testing.assert_close(logits(model, given, polluted), logits(model, given, wanted))
    assert not torch.allclose(logits(model, given, polluted), logits(model, given, seen), atol=1e-3)


def test_an_image_is_remembered_once_for_any_number_of_texts() -> None:
    model, given = toy_oscar.model("itm"), texts([10, 11], [12], [13, 14, 15])
    seen = memory(model, regions(2, 4, of=tags([5, 6], [])))
    assert isinstance(seen, Memory)
    assert len(seen) == 2
    assert seen.bytes_per_image == 4 * 12 * 4 + 3 * 8
    whole = logits(model, given, seen, [1, 1, 0])
    ids, mask = given
    for row, image in enumerate([1, 1, 0]):
        alone = seen.select(torch.tensor([image]))
        torch.testing.assert_close(logits(model, given, alone)[row], whole[row])
    begun = model.begin_match(model.encode_text(ids, mask).tokens, mask)
    torch.testing.assert_close(model.finish_match(begun, mask, seen, torch.tensor([1, 1, 0])), whole)


@given(words, words)
def test_text_and_tags_are_one_sequence_of_bounded_length(text: list[int], names: list[int]) -> None:
    """As the published code makes it: positions run on, and tags are cut to what the text leaves, [SEP] included."""
    model, longest = toy_oscar.model("itm"), toy_oscar.CONFIG.max_tokens
    ids, mask = texts(text[: longest - 2])
    own = ids[0].tolist()
    room = longest - len(own) - 1
    closed = [*names[:room], SEP] if names and room >= 0 else []
    seen = memory(model, regions(3, of=tags(names)))
    embedded, real = model.embed_tags(seen.tags, mask)
    encoder = model.text_encoder
    place = torch.arange(len(own), len(own) + len(closed))
    expected = encoder.words(torch.tensor(closed, dtype=torch.long)) + encoder.positions(place)
    expected = encoder.norm(expected + encoder.types.weight[1])
    assert real.sum() == len(closed)
    torch.testing.assert_close(embedded[real], expected)


def test_an_image_without_tags_has_no_second_sep() -> None:
    model, given = toy_oscar.model("itm"), texts([10, 11])
    without = logits(model, given, memory(model, regions(2)))
    empty = logits(model, given, memory(model, regions(2, of=tags([]))))
    sep_alone = logits(model, given, memory(model, regions(2, of=Tags(*padded([SEP])))))
    torch.testing.assert_close(without, empty)
    assert not torch.allclose(without, sep_alone, atol=1e-4)


@pytest.mark.parametrize("on_cpu", [True, False])
def test_padding_changes_nothing(on_cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "packs", lambda device: on_cpu)
    model = toy_oscar.model("itm")
    seen = memory(model, regions(1, 4, of=tags([5], [7, 8, 9, 5])))
    together = logits(model, texts([10], [11, 12, 13]), seen)
    first = regions(1, 4)
    short = first._replace(
        features=first.features[:1, :1], boxes=first.boxes[:1, :1], mask=first.mask[:1, :1], tags=tags([5])
    )
    alone = logits(model, texts([10]), memory(model, short))
    torch.testing.assert_close(alone[0], together[0])


def test_the_pooled_state_is_that_of_all_states() -> None:
    model, (ids, mask) = toy_oscar.model(), texts([10], [11, 12])
    seen = memory(model, regions(2, 3, of=tags([5], [7, 8])))
    text = model.encode_text(ids, mask).tokens
    states = model.states(text, mask, seen)
    assert [part.shape[1] for part in states] == [4, 3, 3]
    torch.testing.assert_close(model.pooler(states.text), model.pooled(text, mask, seen))
    places = torch.tensor([1, 6])
    found = model.masked_states(ids, mask, seen, places)
    torch.testing.assert_close(found, states.text.flatten(0, 1)[places])
    both = torch.cat([states.text, states.tags], 1).flatten(0, 1)
    places = torch.tensor([0, 1, 5, 7, 12])  # of texts of 4 words with 3 words of tags
    torch.testing.assert_close(model.states_at(text, mask, seen, places), both[places])
    assert model.predict_words(found).shape == (2, toy_oscar.CONFIG.vocab_size)
    assert model.judge(model.pooler(states.text)).shape == (2, 3)


def test_a_text_about_two_images_sees_each_with_its_tags() -> None:
    model, given = toy_oscar.model("nlvr"), texts([10], [11, 12])
    pairs = regions(1, 2, 3, 2, of=tags([5], [], [7, 8], [9]))
    ids, mask = given
    text = model.encode_text(ids, mask).tokens
    seen = memory(model, pairs)
    pooled = [model.pooled(text, mask, seen.select(torch.tensor(index))) for index in ([0, 1], [2, 3])]
    assert model.pair_head is not None
    torch.testing.assert_close(model.classify(text, mask, seen), model.pair_head(torch.cat(pooled, 1)))


def test_answers_are_scored_from_the_pooled_state() -> None:
    model, (ids, mask) = toy_oscar.model("answers"), texts([10], [11, 12])
    text, seen = model.encode_text(ids, mask).tokens, memory(model, regions(1, 2, of=tags([5], [6])))
    assert model.answer_head is not None
    scores = model.answer(text, mask, seen)
    assert scores.shape == (2, toy_oscar.CONFIG.num_answers)
    torch.testing.assert_close(scores, model.answer_head(model.pooled(text, mask, seen)))


def test_checkpointing_changes_no_gradient() -> None:
    found: list[list[Tensor]] = []
    for encoders in ((), ("fusion",)):
        model = toy_oscar.model("itm")
        model.checkpoint(encoders)
        seen = memory(model, regions(2, 3, of=tags([5, 6], [7])))
        logits(model, texts([10], [11, 12]), seen).square().sum().backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 20
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_initial_weights_are_as_published() -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(
        toy_oscar.CONFIG, text_width=64, text_mlp_width=256, vocab_size=500, initial_std=0.02
    )
    state = oscar_names.to_published(OSCAR(config, ("mlm", "pollution", "nlvr")).state_dict(), config)
    for name, tensor in state.items():
        if "LayerNorm.weight" in name or name == "classifier.2.weight":
            assert torch.equal(tensor, torch.ones_like(tensor)), name
        elif name.endswith("bias"):
            assert not tensor.any(), name
        else:
            assert tensor.std().item() == pytest.approx(0.02, rel=0.15), name
            assert tensor[0].any(), "the row of padding is drawn as all others"


@pytest.mark.parametrize("head", ["itm", "answers", "nlvr"])
def test_dropout_comes_before_the_heads_of_fine_tuning(head: str) -> None:
    config = dataclasses.replace(toy_oscar.CONFIG, dropout=0.5)
    model, (ids, mask) = toy_oscar.model(head, config=config), texts([10], [11, 12])
    part = {"itm": model.itm_head, "answers": model.answer_head, "nlvr": model.pair_head}[head]
    assert part is not None
    read: list[Tensor] = []
    part.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    text, seen = model.encode_text(ids, mask).tokens, memory(model, regions(1, 2, 3, 1))
    verb = {"itm": model.match, "answers": model.answer, "nlvr": model.classify}[head]
    if head != "nlvr":
        seen = seen.select(torch.tensor([0, 1]))
    for training in (True, False):
        model.train(training)
        verb(text, mask, seen)
    assert (read[0] == 0).any()
    assert (read[1] != 0).all()
