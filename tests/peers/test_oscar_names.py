"""Every tensor of OSCAR has its published names and shapes, and finds its way back."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import toy_oscar
from albef.cli.info import model_facts
from albef.config import SIZES
from albef.peers import oscar_names
from albef.peers.oscar import OSCAR

NAMES = json.loads((Path(__file__).parent.parent / "golden" / "oscar-names.json").read_text())
HEADS = [("mlm", "pollution"), ("itm",), ("answers",), ("nlvr",)]


@pytest.mark.parametrize(
    ("size", "heads", "num_answers", "published"),
    [
        ("oscar-base", HEADS[0], 1, "oscar/pretraining"),
        ("oscar-plus-base", HEADS[0], 1, "oscar/pretraining_plus"),
        ("oscar-plus-base", ("itm",), 1, "oscar/retrieval"),
        ("oscar-plus-base", ("answers",), 3129, "oscar/vqa"),
        ("oscar-plus-base", ("answers",), 1853, "oscar/gqa"),
        ("oscar-plus-base", ("nlvr",), 1, "oscar/nlvr2"),
    ],
)
def test_names_and_shapes_are_the_published_ones(
    size: str, heads: tuple[str, ...], num_answers: int, published: str
) -> None:
    config = dataclasses.replace(SIZES[size], num_answers=num_answers)
    with torch.device("meta"):
        state = oscar_names.to_published(OSCAR(config, heads).state_dict(), config)
    assert {name: list(tensor.shape) for name, tensor in state.items()} == NAMES[published]


@pytest.mark.parametrize(
    ("size", "parameters", "keys"),
    [
        ("oscar-base", 111_684_668, 209),
        ("oscar-large", 338_330_428, 401),
        ("oscar-plus-base", 111_686_973, 211),
        ("oscar-plus-large", 338_333_501, 403),
    ],
)
def test_info_prints_the_published_numbers(size: str, parameters: int, keys: int) -> None:
    facts = model_facts(size)
    assert (facts["trainable_parameters"], facts["state_dict_keys"]) == (parameters, keys)
    assert facts["system"] == "oscar"


@pytest.mark.parametrize(
    ("heads", "large"), [(("itm",), 337_250_306), (("answers",), 340_455_481), (("nlvr",), 343_555_074)]
)
def test_large_models_of_tasks_have_the_published_size(heads: tuple[str, ...], large: int) -> None:
    with torch.device("meta"):
        model = OSCAR(SIZES["oscar-plus-large"], heads)
    assert sum(parameter.numel() for parameter in model.parameters()) == large


@pytest.mark.parametrize("region_norm", [False, True])
@pytest.mark.parametrize("heads", HEADS)
def test_there_and_back_nothing_changes(heads: tuple[str, ...], region_norm: bool) -> None:
    config = dataclasses.replace(toy_oscar.CONFIG, region_norm=region_norm)
    state = toy_oscar.model(*heads, config=config).state_dict()
    published = oscar_names.to_published(state, config)
    assert ("bert.LayerNorm.weight" in published) == region_norm
    back = oscar_names.from_published(published, state, config)
    assert list(back) == list(state)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_old_names_and_absent_tied_names_are_read() -> None:
    config, model = toy_oscar.CONFIG, toy_oscar.model()
    published = oscar_names.to_published(model.state_dict(), config)
    del published["cls.predictions.decoder.weight"]
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in published.items()
    }
    assert old.keys() != published.keys()
    back = oscar_names.from_published(old, model.state_dict(), config)
    model.load_state_dict(back)


def test_predicted_words_share_the_embedded_ones() -> None:
    state = oscar_names.to_published(toy_oscar.model().state_dict(), toy_oscar.CONFIG)
    words, decoder = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
    assert state[words].data_ptr() == state[decoder].data_ptr()
    assert decoder not in oscar_names.to_published(toy_oscar.model("itm").state_dict(), toy_oscar.CONFIG)
