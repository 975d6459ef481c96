"""The protocols of retrieval are told apart by what the model says of its training."""

import json
from pathlib import Path

import pytest
import torch

import toy
from albef.config import UserError
from albef.data.text import Tokenizer
from albef.engine import Engine
from albef.evaluation.protocol import protocol, set_name
from albef.model.albef import ALBEF
from albef.model_directory import Trained, save_model


@pytest.mark.parametrize(
    ("trained", "data", "name", "words"),
    [
        (None, "flickr30k_test.json", "unknown", "does not say"),
        (
            Trained("pretrain", "4m.json"),
            "flickr30k_test.json",
            "direct",
            "pre-trained weights (pretrain on 4m.json)",
        ),
        (Trained("pretrain", "pictograms"), "pictograms", "direct", "not zero-shot (the same set)"),
        (
            Trained("retrieval", "coco_train.json"),
            "x/flickr30k_test.json",
            "transferred",
            "retrieval on coco_train.json",
        ),
        (Trained("grounding", "refcoco+_train.json"), "coco_test.json", "transferred", "for grounding on"),
        (
            Trained("retrieval", "coco_train.json"),
            "/a/b/coco_karpathy_test.json",
            "fine-tuned",
            "Not zero-shot",
        ),
        (Trained("retrieval", "pictograms:retrieval"), "pictograms", "fine-tuned", "the same set"),
        (Trained("retrieval", "mine/train.json"), "/data/mine/test.json", "fine-tuned", "the same set"),
        (
            Trained("retrieval", "mine/train.json"),
            "/data/yours/test.json",
            "transferred",
            "on yours/test.json",
        ),
    ],
)
def test_what_a_model_had_seen(trained: Trained | None, data: str, name: str, words: str) -> None:
    found = protocol(trained, data)
    assert found.name == name
    assert words in found.sentence


def test_names_of_sets() -> None:
    assert set_name("a/Flickr30k-val.json") == set_name("flickr30k_test.jsonl") == "flickr30k"
    assert set_name("coco_train.json") != set_name("flickr30k_train.json")
    assert set_name("mine/test.json") == "mine"
    assert set_name("pictograms/flickr30k_test.json") == "flickr30k"  # a folder's name makes no pictograms
    assert set_name("pictograms:vqa") == "pictograms"
    assert set_name("mscoco.pth") == set_name("coco_test.json")


def test_a_model_remembers_what_it_was_trained_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(toy.CAPTIONS, toy.ENGINE_MODEL.vocab_size)
    model = ALBEF(toy.ENGINE_MODEL, ("contrast",))
    save_model(tmp_path / "model", model, tokenizer, "", trained=Trained("retrieval", "coco_train.json"))
    assert Engine.load(tmp_path / "model").trained == Trained("retrieval", "coco_train.json")
    save_model(tmp_path / "silent", model, tokenizer, "")
    assert Engine.load(tmp_path / "silent").trained is None
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"trained": {"task": "painting"}}))
    with pytest.raises(UserError, match=r'config\.json: "trained" must be'):
        Engine.load(tmp_path / "model")
