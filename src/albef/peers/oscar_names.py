"""OSCAR's published names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from albef.model_config import ModelConfig
from albef.peers import bert_names
from albef.peers.bert_names import Naming

# The classifier of a fine-tuned file is that of its task. The head about two images has a norm between its layers, or
# none, and then its last layer has another number.
NORMED_PAIRS = {
    "pair_head.hidden": "classifier.0",
    "pair_head.norm": "classifier.2",
    "pair_head.out": "classifier.3",
}
PLAIN_PAIRS = {"pair_head.hidden": "classifier.0", "pair_head.out": "classifier.2"}
OSCAR = Naming(
    whole={
        "text_encoder.words": "bert.embeddings.word_embeddings",
        "text_encoder.positions": "bert.embeddings.position_embeddings",
        "text_encoder.types": "bert.embeddings.token_type_embeddings",
        "text_encoder.norm": "bert.embeddings.LayerNorm",
        "region_projection": "bert.img_embedding",
        "region_norm": "bert.LayerNorm",
        "pooler.linear": "bert.pooler.dense",
        "mlm_head.transform": "cls.predictions.transform.dense",
        "mlm_head.norm": "cls.predictions.transform.LayerNorm",
        "mlm_head.bias": "cls.predictions.bias",
        "pollution_head": "cls.seq_relationship",
        "itm_head": "classifier",
        "answer_head": "classifier",
    },
    layers={"fusion_encoder.layers": "bert.encoder.layer"},
    tied={"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"},
)


def naming_of(config: ModelConfig) -> Naming:
    """The names of a model with this configuration."""
    pairs = NORMED_PAIRS if config.region_norm else PLAIN_PAIRS
    return OSCAR._replace(whole={**OSCAR.whole, **pairs})


def to_published(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Weights of a model under their published names."""
    return bert_names.to_published(tensors, naming_of(config))


def from_published(
    state: Mapping[str, Tensor], names: Iterable[str], config: ModelConfig
) -> dict[str, Tensor]:
    """Our parameters `names`, joined from a published state dict of the same sizes."""
    return bert_names.from_published(state, names, naming_of(config))
