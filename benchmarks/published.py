"""The published pre-training step, written plainly in our words, for comparison only.

It computes what `tasks/pretrain.py` computes, the way the published code does: query, key and value apart, padded
text, keys and values of the image projected again in every fusion pass, four fusion passes, logits of the whole
vocabulary at every position, attention as plain products, a copy of the queue, negatives drawn row by row, and loops
over the parameters for AdamW and the teacher. The weights are those of a `Pretrain` task, so losses can be compared.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from albef.data.records import Batch
from albef.model.albef import ALBEF
from albef.model.layers import CrossAttention, FeedForward, SelfAttention
from albef.model.text_encoder import FusionLayer, TextLayer
from albef.tasks.base import Negatives
from albef.tasks.pretrain import Pretrain

MASKED = -100


def heads_apart(states: Tensor, heads: int) -> Tensor:
    """[batch, length, width] to [batch, heads, length, width of a head]."""
    batch, length, width = states.shape
    return states.view(batch, length, heads, width // heads).transpose(1, 2)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """softmax(Q Kᵀ / √d) V, with −10,000 added where the mask is false."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores + (1.0 - mask[:, None, None].to(scores.dtype)) * -10000.0
    weights = F.dropout(scores.softmax(-1), dropout, training=dropout > 0)
    return (weights @ value).transpose(1, 2).flatten(2)


def self_attention(module: SelfAttention, states: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Self-attention with three projections."""
    parts = zip(module.qkv.weight.chunk(3), module.qkv.bias.chunk(3), strict=True)
    query, key, value = (heads_apart(F.linear(states, weight, bias), module.heads) for weight, bias in parts)
    return module.out(plain_attention(query, key, value, mask, dropout))


def cross_attention(module: CrossAttention, states: Tensor, image: Tensor, dropout: float) -> Tensor:
    """Cross-attention that projects the image tokens itself."""
    parts = zip(module.key_value.weight.chunk(2), module.key_value.bias.chunk(2), strict=True)
    key, value = (heads_apart(F.linear(image, weight, bias), module.heads) for weight, bias in parts)
    query = heads_apart(module.query(states), module.heads)
    everything = torch.ones(image.shape[:2], dtype=torch.bool, device=image.device)
    return module.out(plain_attention(query, key, value, everything, dropout))


def feed_forward(module: FeedForward, states: Tensor) -> Tensor:
    """Two linear layers around GELU."""
    return module.down(F.gelu(module.up(states)))


def dropped(states: Tensor, dropout: float) -> Tensor:
    """The states after dropout."""
    return F.dropout(states, dropout, training=dropout > 0)


def text_layer(
    layer: TextLayer, states: Tensor, mask: Tensor, image: Tensor | None, dropout: float
) -> Tensor:
    """A BERT layer over padded text, with cross-attention where there is an image."""
    states = layer.attention_norm(
        states + dropped(self_attention(layer.attention, states, mask, dropout), dropout)
    )
    if image is not None:
        assert isinstance(layer, FusionLayer)
        seen = cross_attention(layer.cross_attention, states, image, dropout)
        states = layer.cross_attention_norm(states + dropped(seen, dropout))
    return layer.mlp_norm(states + dropped(feed_forward(layer.mlp, states), dropout))


def image_tokens(model: ALBEF, pixels: Tensor) -> Tensor:
    """The image encoder with plain attention."""
    encoder = model.image_encoder
    patches = encoder.patches(pixels).flatten(2).transpose(1, 2)
    tokens = torch.cat([encoder.class_token.expand(len(pixels), -1, -1), patches], 1) + encoder.positions
    for block in encoder.blocks:
        normed = block.attention_norm(tokens)
        query, key, value = block.attention.qkv(normed).chunk(3, -1)
        apart = (heads_apart(part, block.attention.heads) for part in (query, key, value))
        tokens = tokens + block.attention.out(plain_attention(*apart, mask=None, dropout=0.0))
        tokens = tokens + feed_forward(block.mlp, block.mlp_norm(tokens))
    return encoder.norm(tokens)


def text_tokens(model: ALBEF, ids: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """The text encoder over padded text."""
    encoder = model.text_encoder
    places = torch.arange(ids.shape[1], device=ids.device)
    states = encoder.words(ids) + encoder.types.weight[0] + encoder.positions(places)
    states = dropped(encoder.norm(states), dropout)
    for layer in encoder.layers:
        states = text_layer(layer, states, mask, None, dropout)
    return states


def fused(model: ALBEF, text: Tensor, mask: Tensor, image: Tensor, dropout: float) -> Tensor:
    """All positions through all fusion layers."""
    for layer in model.fusion_encoder.stack():
        text = text_layer(layer, text, mask, image, dropout)
    return text


def feature(projection: nn.Module, tokens: Tensor) -> Tensor:
    """The projected [CLS] state at unit length."""
    return F.normalize(projection(tokens[:, 0]), dim=-1)


def word_logits(model: ALBEF, states: Tensor) -> Tensor:
    """Logits at every position."""
    assert model.mlm_head is not None
    return model.mlm_head(states.flatten(0, 1), model.text_encoder.words.weight).view(*states.shape[:2], -1)


def draw_rows(weights: Tensor) -> Tensor:
    """A negative per row, one draw and one synchronisation each."""
    return torch.tensor([int(torch.multinomial(row, 1).item()) for row in weights], device=weights.device)


def published_losses(
    task: Pretrain, batch: Batch, alpha: float, negatives: Negatives | None = None
) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
    """The three losses, and the teacher's features for the queue; the queue counts as full."""
    student, teacher = task.student, task.teacher.module
    assert isinstance(teacher, ALBEF)
    assert student.itm_head is not None
    dropout = student.config.dropout if student.training else 0.0
    size, temperature = len(batch), student.temperature
    labels = torch.full_like(batch.ids, MASKED).flatten()
    labels[batch.mlm_positions] = batch.mlm_labels

    image = image_tokens(student, batch.pixels)
    text = text_tokens(student, batch.ids, batch.mask, dropout)
    image_feature, text_feature = (
        feature(student.image_projection, image),
        feature(student.text_projection, text),
    )
    with torch.no_grad():
        image_m = image_tokens(teacher, batch.pixels)
        text_m = text_tokens(teacher, batch.ids, batch.mask, 0.0)
        image_key, text_key = (
            feature(teacher.image_projection, image_m),
            feature(teacher.text_projection, text_m),
        )
        image_bank = torch.cat([image_key, task.queue.image.clone()]).T
        text_bank = torch.cat([text_key, task.queue.text.clone()]).T
        own = torch.zeros(size, image_bank.shape[1], device=image.device).fill_diagonal_(1)
        i2t_targets = alpha * (image_key @ text_bank / temperature).softmax(1) + (1 - alpha) * own
        t2i_targets = alpha * (text_key @ image_bank / temperature).softmax(1) + (1 - alpha) * own
    i2t, t2i = image_feature @ text_bank / temperature, text_feature @ image_bank / temperature
    itc = (
        -(i2t.log_softmax(1) * i2t_targets).sum(1).mean() / 2
        - (t2i.log_softmax(1) * t2i_targets).sum(1).mean() / 2
    )

    positive = fused(student, text, batch.mask, image, dropout)[:, 0]
    if negatives is None:
        with torch.no_grad():
            for_texts = t2i[:, :size].softmax(1).fill_diagonal_(0)
            for_images = i2t[:, :size].softmax(1).fill_diagonal_(0)
            negatives = Negatives(image=draw_rows(for_texts), text=draw_rows(for_images))
    negative = fused(
        student,
        torch.cat([text, text[negatives.text]]),
        torch.cat([batch.mask, batch.mask[negatives.text]]),
        torch.cat([image[negatives.image], image]),
        dropout,
    )[:, 0]
    matched = torch.cat([torch.ones(size), torch.zeros(2 * size)]).long().to(image.device)
    itm = F.cross_entropy(student.itm_head(torch.cat([positive, negative])), matched)

    with torch.no_grad():
        masked_m = text_tokens(teacher, batch.masked_ids, batch.mask, 0.0)
        words_m = word_logits(teacher, fused(teacher, masked_m, batch.mask, image_m, 0.0)).softmax(-1)
    masked = text_tokens(student, batch.masked_ids, batch.mask, dropout)
    words = word_logits(student, fused(student, masked, batch.mask, image, dropout))
    hard = F.cross_entropy(words.flatten(0, 1), labels)
    soft = -(words.log_softmax(-1) * words_m).sum(-1).flatten()
    chosen = labels != MASKED
    soft = (soft * chosen).sum() / chosen.sum()
    mlm = (1 - alpha) * hard + alpha * soft
    return {"itc": itc, "itm": itm, "mlm": mlm}, (image_key, text_key)


class PublishedStep:
    """Losses, gradients, AdamW in a loop, teacher in a loop, queue."""

    def __init__(self, task: Pretrain, lr: float = 1e-4) -> None:
        self.task = task
        self.optimizer = torch.optim.AdamW(task.student.parameters(), lr, weight_decay=0.02, foreach=False)

    def step(self, batch: Batch, alpha: float, bf16: bool = False) -> None:
        """One optimizer step."""
        task = self.task
        with torch.no_grad():
            pairs = zip(task.teacher.module.parameters(), task.student.parameters(), strict=True)
            for parameter_m, parameter in pairs:
                parameter_m.data = parameter_m.data * 0.995 + parameter.data * 0.005
        self.optimizer.zero_grad()
        with torch.autocast(batch.pixels.device.type, torch.bfloat16, enabled=bf16):
            losses, (image_key, text_key) = published_losses(task, batch, alpha)
        (losses["itc"] + losses["itm"] + losses["mlm"]).backward()
        self.optimizer.step()
        start = int(task.queue.pointer)
        task.queue.image[start : start + len(batch)] = image_key
        task.queue.text[start : start + len(batch)] = text_key
        task.queue.pointer[0] = (start + len(batch)) % task.queue.size
