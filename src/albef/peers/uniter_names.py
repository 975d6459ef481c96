"""UNITER's published names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from albef.peers import bert_names
from albef.peers.bert_names import Naming

UNITER = Naming(
    whole={
        "text_encoder.words": "uniter.embeddings.word_embeddings",
        "text_encoder.positions": "uniter.embeddings.position_embeddings",
        "text_encoder.types": "uniter.embeddings.token_type_embeddings",
        "text_encoder.norm": "uniter.embeddings.LayerNorm",
        "region_embedding.features": "uniter.img_embeddings.img_linear",
        "region_embedding.features_norm": "uniter.img_embeddings.img_layer_norm",
        "region_embedding.boxes": "uniter.img_embeddings.pos_linear",
        "region_embedding.boxes_norm": "uniter.img_embeddings.pos_layer_norm",
        "region_embedding.hidden": "uniter.img_embeddings.mask_embedding",
        "region_embedding.norm": "uniter.img_embeddings.LayerNorm",
        "pooler.linear": "uniter.pooler.dense",
        "mlm_head.transform": "cls.predictions.transform.dense",
        "mlm_head.norm": "cls.predictions.transform.LayerNorm",
        "mlm_head.bias": "cls.predictions.bias",
        "feature_head.transform": "feat_regress.net.0",
        "feature_head.norm": "feat_regress.net.2",
        "feature_head.bias": "feat_regress.bias",
        "object_head.hidden": "region_classifier.net.0",
        "object_head.norm": "region_classifier.net.2",
        "object_head.out": "region_classifier.net.3",
        "itm_head": "itm_output",
        "rank_head": "rank_output",
        "answer_head.hidden": "vqa_output.0",
        "answer_head.norm": "vqa_output.2",
        "answer_head.out": "vqa_output.3",
        "entailment_head.hidden": "vqa_output.0",
        "entailment_head.norm": "vqa_output.2",
        "entailment_head.out": "vqa_output.3",
        "pair_head": "nlvr2_output",
        "pair_attention.first.qkv.weight": "attn1.in_proj_weight",
        "pair_attention.first.qkv.bias": "attn1.in_proj_bias",
        "pair_attention.first.out": "attn1.out_proj",
        "pair_attention.second.qkv.weight": "attn2.in_proj_weight",
        "pair_attention.second.qkv.bias": "attn2.in_proj_bias",
        "pair_attention.second.out": "attn2.out_proj",
        "pair_attention.merge": "fc.0",
        "pair_attention.weigh": "attn_pool.fc.0",
    },
    layers={"fusion_encoder.layers": "uniter.encoder.layer"},
    tied={
        "cls.predictions.decoder.weight": "uniter.embeddings.word_embeddings.weight",
        "feat_regress.weight": "uniter.img_embeddings.img_linear.weight",
    },
)
# Published: contradiction, entailment, neutral. Ours: contradiction, neutral, entailment. The same swap leads back.
ENTAILMENT_ORDER = [0, 2, 1]


def to_published(tensors: Mapping[str, Tensor], with_tied: bool = True) -> dict[str, Tensor]:
    """Weights or gradients under their published names, tied ones under each of theirs."""
    ordered = {name: in_order(name, tensor) for name, tensor in tensors.items()}
    return bert_names.to_published(ordered, UNITER, with_tied)


def from_published(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Our parameters `names`, joined from a published state dict of the same sizes. Tied names may be absent."""
    found = bert_names.from_published(state, names, UNITER)
    return {name: in_order(name, tensor) for name, tensor in found.items()}


def in_order(name: str, tensor: Tensor) -> Tensor:
    """The tensor with the classes of entailment in the other order. Any other tensor as it is."""
    return tensor[ENTAILMENT_ORDER] if name.startswith("entailment_head.out.") else tensor
