"""The protocols of retrieval are told apart by what the model says of its training."""

import json
import re
from pathlib import Path

import pytest
import torch

import toy
from albef.config import UserError
from albef.data import prepare
from albef.data.text import Tokenizer
from albef.engine import Engine
from albef.evaluation.protocol import SETS, images_of, protocol, set_name
from albef.model.albef import ALBEF
from albef.model_directory import Trained, save_model


@pytest.mark.parametrize(
    ("trained", "data", "name", "words"),
    [
        (None, "flickr30k_test.json", "unknown", "does not say"),
        (Trained("pretrain", ""), "flickr30k_test.json", "unknown", "does not say"),
        (
            Trained("pretrain", "pretrain_4m.jsonl"),
            "flickr30k_test.json",
            "direct",
            "Zero-shot, direct",
        ),
        (
            Trained("pretrain", "ALBEF_4M.pth"),
            "coco_test.json",
            "direct",
            "Not zero-shot (same data set), direct",
        ),
        (Trained("pretrain", "pictograms"), "pictograms", "direct", "Not zero-shot (same data set), direct"),
        (
            Trained("retrieval", "mscoco.pth"),
            "x/flickr30k_test.json",
            "transferred",
            "Zero-shot, transferred",
        ),
        (Trained("retrieval", "coco_train.json"), "coco_karpathy_test.json", "fine-tuned", "Not zero-shot"),
        (Trained("grounding", "refcoco+_train.json"), "coco_test.json", "fine-tuned", "of the same set"),
        (Trained("grounding", "refcoco+_train.json"), "flickr30k_test.json", "transferred", "for grounding"),
        (Trained("retrieval", "pictograms:retrieval"), "pictograms", "fine-tuned", "of the same set"),
        (Trained("retrieval", "coco/train.json"), "/a/flickr30k/test.json", "transferred", "flickr30k/test"),
        # Names that tell nothing: whose pictures are in these nobody can know.
        (Trained("pretrain", "my-pairs/train.json"), "my-test/test.json", "unknown", "my-pairs/train.json"),
        (
            Trained("pretrain", "pictograms"),
            "my-test/test.json",
            "unknown",
            "my-test/test.json is not the name",
        ),
        (Trained("pretrain", "4m.json"), "flickr30k_test.json", "unknown", "4m.json is not the name of a"),
        (Trained("retrieval", "mine/train.json"), "/data/mine/test.json", "unknown", "mine/train.json"),
        (Trained("retrieval", "coco/mine.json"), "flickr30k_test.json", "unknown", "coco/mine.json"),
        (Trained("retrieval", "coco_train.json"), "photos", "unknown", "photos is not the name"),
    ],
)
def test_what_a_model_had_seen(trained: Trained | None, data: str, name: str, words: str) -> None:
    found = protocol(trained, data)
    assert found.name == name
    assert words in found.sentence


def test_names_of_sets() -> None:
    assert set_name("Flickr30k-val") == set_name("flickr30k_karpathy_test") == "flickr30k"
    assert images_of("mine/refcoco+_testA.json") == images_of("mscoco.pth") == {"coco"}
    assert images_of("pictograms/flickr30k_test.json") == {"flickr30k"}  # a folder's name makes no pictograms
    assert images_of("pictograms:vqa") == {"pictograms"}
    assert images_of("mine/test.json") is None


@pytest.mark.parametrize(
    "name", ["coco", "coco_captions", "flickr30k", "cc3m", "cc12m", "sbu", "vg", "refcocog"]
)
def test_what_prepare_writes_is_recognised(name: str) -> None:
    written = " ".join(path.read_text("utf-8") for path in Path(prepare.__path__[0]).glob("*.py"))
    assert re.search(rf'"{name}"|"{name}\.jsonl?"|{name}_train\.json', written)
    assert images_of(f"{name}_train.json")


def test_what_the_sets_of_the_paper_hold() -> None:
    small, large = images_of("pretrain_4m.jsonl"), images_of("pretrain_14m.jsonl")
    for name in ("coco", "vg", "sbu", "cc3m"):
        assert images_of(f"{name}.json") <= small < large
        assert f"{name}" in images_of(f"{name}.json")
    assert large - small == images_of("cc12m.jsonl") == {"cc12m"}
    assert small - {"coco"} >= {"vg", "sbu", "cc3m"}
    assert images_of("vg.json") == {"vg", "coco"}
    assert (images_of("ALBEF_4M.pth"), images_of("ALBEF.pth")) == (small, large)
    for name in ("coco_captions", "mscoco", "refcoco", "refcoco+", "refcocog"):
        assert images_of(f"{name}_val.json") == {"coco"}


@pytest.mark.parametrize(
    "split",
    [
        "train",
        "restval",
        "trainval",
        "val",
        "valid",
        "validation",
        "dev",
        "test",
        "testA",
        "testB",
        "karpathy",
        "all",
    ],
)
def test_names_of_splits(split: str) -> None:
    assert set_name(f"flickr30k_{split}") == set_name(f"{split}-flickr30k") == "flickr30k"
    assert set_name("my_pairs") == "my_pairs"


def test_the_page_lists_the_names_that_are_known() -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "tasks" / "retrieval.md"
    assert [name for name in SETS if f"`{name}`" not in page.read_text("utf-8").lower()] == []


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
