"""A toy model, toy batches and a toy configuration, for tests of everything that trains."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from albef.config import Config, DataConfig, EvaluateConfig, ModelConfig, TaskConfig, TrainConfig
from albef.data.records import Batch
from albef.data.text import Tokenizer
from albef.engine import Engine
from albef.model.albef import ALBEF

VOCABULARY = 40

MODEL = ModelConfig(
    size="tiny",
    image_size=16,
    patch_size=8,
    image_width=16,
    image_depth=1,
    image_heads=2,
    image_mlp_width=32,
    text_width=16,
    text_depth=1,
    fusion_depth=2,
    text_heads=2,
    text_mlp_width=32,
    feature_width=8,
    vocabulary="trained",
    vocab_size=VOCABULARY,
    max_positions=32,
    max_tokens=12,
    dropout=0.1,
    initial_std=0.1,
    sine_positions=False,
)
# The engine's tests have texts of their own, longer than the training ones.
CAPTIONS = ["a fox on grass", "two red cars in the snow", "a small tree left of a large house", "a fox"]
ENGINE_MODEL = dataclasses.replace(
    MODEL, vocabulary="bert", vocab_size=120, max_tokens=25, dropout=0.1, initial_std=0.02
)


def config(
    task: TaskConfig | None = None, train: TrainConfig | None = None, data: DataConfig | None = None
) -> Config:
    """A configuration of the toy model on a few pictograms."""
    return Config(
        model=MODEL,
        data=data or DataConfig(count=24, crop_scale=(1.0, 1.0), flip=False, randaugment=False),
        task=task or TaskConfig(queue_size=10, alpha_ramp_steps=4),
        train=train
        or TrainConfig(
            steps=6,
            batch_size=4,
            warmup_steps=2,
            precision="fp32",
            attention="fused",
            linear="torch",
            log_every_steps=1,
        ),
        evaluate=EvaluateConfig(splits=("test",), count=12, top_k=4),
    )


def engine(*heads: str) -> Engine:
    """A toy model with random weights that tell pictures apart; with the heads of pre-training, or these."""
    torch.manual_seed(0)
    model = ALBEF(ENGINE_MODEL, heads) if heads else ALBEF(ENGINE_MODEL)
    with torch.no_grad():  # initial weights hardly do
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return Engine(model, Tokenizer.train(CAPTIONS, ENGINE_MODEL.vocab_size), quiet=True)


class Casts(TorchDispatchMode):
    """How often each weight of a model is cast to bf16 while the block runs, by name; only of weights that are."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {weight.data_ptr(): name for name, weight in model.named_parameters()}
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        to_bf16 = (kwargs or {}).get("dtype") == torch.bfloat16
        if operation.overloadpacket.__name__ == "_to_copy" and to_bf16 and args[0].data_ptr() in self.names:
            self.counts[self.names[args[0].data_ptr()]] += 1
        return operation(*args, **(kwargs or {}))


def batch(size: int, seed: int = 0, length: int = 6, masked: int = 2) -> Batch:
    """Random pixels and captions of different lengths, the first `masked` tokens after [CLS] masked."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (size, length), generator=generator)
    real = torch.randint(1 + masked, length + 1, (size, 1), generator=generator)
    mask = torch.arange(length) < real
    ids = torch.where(mask, ids, 0)
    columns = torch.arange(1, 1 + masked)
    positions = (torch.arange(size)[:, None] * length + columns).flatten()
    masked_ids = ids.clone()
    masked_ids[:, 1 : 1 + masked] = 4
    return Batch(
        pixels=torch.randn(size, 3, MODEL.image_size, MODEL.image_size, generator=generator),
        ids=ids,
        mask=mask,
        masked_ids=masked_ids,
        mlm_positions=positions,
        mlm_labels=ids.flatten()[positions],
        image_id=-torch.arange(1, size + 1) - 1000 * seed,
        caption_id=torch.arange(size) + 1000 * seed,
    )
