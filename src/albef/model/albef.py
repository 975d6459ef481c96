"""The model: an image encoder, a text encoder, and a fusion encoder on top of both (paper §3.1)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from albef.config import TEMPERATURE_RANGE, ModelConfig
from albef.model.answer_decoder import AnswerDecoder
from albef.model.heads import Classifier, MLMHead
from albef.model.image_encoder import ImageEncoder, resize_positions
from albef.model.text_encoder import (
    Fused,
    FusionEncoder,
    KeyValues,
    PairedFusionEncoder,
    TextEncoder,
    cls,
    init_bert,
)
from albef.model.verbs import Encoding, VisionLanguageModel, unit


class ALBEF(VisionLanguageModel):
    """The encoders, and the heads that a task trains.

    Heads by name: "contrast" (projections and temperature), "itm", "mlm", "answer" (a decoder), "entailment" (three
    classes), "nlvr" (two) and "text_assignment" (three). The last two read one text about two images. Without
    "contrast" a feature is the normalised [CLS] state of its encoder.
    """

    temperature: nn.Parameter  # only in models with "contrast"

    def __init__(self, config: ModelConfig, heads: tuple[str, ...] = ("contrast", "itm", "mlm")) -> None:
        super().__init__()
        self.config, self.heads = config, heads
        self.image_encoder = ImageEncoder(config)
        self.text_encoder = TextEncoder(config)
        self.fusion_encoder: FusionEncoder | PairedFusionEncoder = FusionEncoder(config)
        if "nlvr" in heads or "text_assignment" in heads:
            self.fusion_encoder = PairedFusionEncoder(config)
        self.image_projection: nn.Module = nn.Identity()
        self.text_projection: nn.Module = nn.Identity()
        if "contrast" in heads:
            self.image_projection = nn.Linear(config.image_width, config.feature_width)
            self.text_projection = nn.Linear(config.text_width, config.feature_width)
            # Shape [1], not []: FSDP2 cannot shard a parameter without dimensions.
            self.temperature = nn.Parameter(torch.full((1,), config.initial_temperature))
        self.itm_head = nn.Linear(config.text_width, 2) if "itm" in heads else None
        self.mlm_head = MLMHead(self.text_encoder.words) if "mlm" in heads else None
        self.answer_decoder = AnswerDecoder(config) if "answer" in heads else None
        self.classifier: nn.Module | None = None
        if "entailment" in heads:
            self.classifier = Classifier(config.text_width, 3)
        elif "nlvr" in heads:
            self.classifier = Classifier(config.text_width, 2)
        elif "text_assignment" in heads:
            self.classifier = nn.Linear(config.text_width, 3)
        for module in (
            self.text_encoder,
            self.fusion_encoder,
            self.mlm_head,
            self.answer_decoder,
            self.classifier,
        ):
            if module is not None:
                init_bert(module, config.initial_std)

    def encode_image(self, pixels: Float[Tensor, "batch 3 height width"]) -> Encoding:
        """Tokens and features of normalised images."""
        tokens = self.image_encoder(pixels)
        return Encoding(tokens, None, unit(self.image_projection(cls(tokens))))

    def encode_text(self, ids: Int[Tensor, "batch length"], mask: Bool[Tensor, "batch length"]) -> Encoding:
        """Tokens (before fusion) and features of texts."""
        tokens = self.text_encoder(ids, mask)
        return Encoding(tokens, mask, unit(self.text_projection(cls(tokens))))

    def image_memory(self, image: Encoding) -> KeyValues:
        """Keys and values of the images for every fusion layer. Compute them once, use them for any number of texts."""
        tokens, mask = image.tokens, image.mask
        if self.config.fuse_placed_patches:
            tokens = tokens[:, 1:] + self.image_encoder.positions[:, 1:]
            mask = None if mask is None else mask[:, 1:]
        return self.fusion_encoder.remember(tokens, mask)

    def fuse(
        self,
        text_tokens: Float[Tensor, "pairs length width"],
        text_mask: Bool[Tensor, "pairs length"],
        memory: KeyValues,
        image_index: Int[Tensor, " pairs"] | None = None,
        keep_attention: bool = False,
    ) -> Fused:
        """Text tokens after fusion. Text p sees row `image_index[p]` of the memory, or row p without an index."""
        assert isinstance(self.fusion_encoder, FusionEncoder)
        return self.fusion_encoder(text_tokens, text_mask, memory, image_index, keep_attention=keep_attention)

    def match(
        self,
        text_tokens: Float[Tensor, "pairs length width"],
        text_mask: Bool[Tensor, "pairs length"],
        memory: KeyValues,
        image_index: Int[Tensor, " pairs"] | None = None,
    ) -> Float[Tensor, "pairs 2"]:
        """ITM logits [no match, match] of text–image pairs. A memory of one image serves all texts."""
        assert self.itm_head is not None
        assert isinstance(self.fusion_encoder, FusionEncoder)
        fused = self.fusion_encoder(text_tokens, text_mask, memory, image_index, first_only=True)
        return self.itm_head(cls(fused.tokens))

    def begin_match(
        self, text_tokens: Float[Tensor, "texts length width"], text_mask: Bool[Tensor, "texts length"]
    ) -> Float[Tensor, "texts length width"]:
        """The part of matching that needs no image: compute it once per text, for any number of images."""
        assert isinstance(self.fusion_encoder, FusionEncoder)
        return self.fusion_encoder.begin(text_tokens, text_mask)

    def finish_match(
        self,
        begun: Float[Tensor, "texts length width"],
        text_mask: Bool[Tensor, "texts length"],
        memory: KeyValues,
        image_index: Int[Tensor, " texts"] | None = None,
    ) -> Float[Tensor, "texts 2"]:
        """The rest of matching, from the result of `begin_match`: the same logits as `match`."""
        assert self.itm_head is not None
        assert isinstance(self.fusion_encoder, FusionEncoder)
        return self.itm_head(self.fusion_encoder.finish(begun, text_mask, memory, image_index))

    def classify(
        self,
        text_tokens: Float[Tensor, "texts length width"],
        text_mask: Bool[Tensor, "texts length"],
        memory: KeyValues,
    ) -> Float[Tensor, "texts classes"]:
        """Class logits of each text about its image, or about its two images.

        The memory holds the images in the order of the texts. With two images per text it holds all first images,
        then all second images.
        """
        assert self.classifier is not None
        fused = self.fusion_encoder(text_tokens, text_mask, memory, first_only=True)
        return self.classifier(cls(fused.tokens))

    def question_memory(self, question: Encoding, image: Encoding) -> KeyValues:
        """Keys and values of fused questions for the answer decoder, computed once per question."""
        assert self.answer_decoder is not None
        assert question.mask is not None
        fused = self.fuse(question.tokens, question.mask, self.image_memory(image))
        return self.answer_decoder.remember(fused.tokens, question.mask)

    def predict_answers(
        self,
        answer_ids: Int[Tensor, "answers length"],
        answer_mask: Bool[Tensor, "answers length"],
        memory: KeyValues,
        question_index: Int[Tensor, " answers"],
        positions: Int[Tensor, " read"],
    ) -> Float[Tensor, "read vocabulary"]:
        """Logits of the answer token that follows each of `positions` (flat indices into answers × length)."""
        assert self.answer_decoder is not None
        decoder = self.answer_decoder
        return decoder.predict_words(decoder(answer_ids, answer_mask, memory, question_index, positions))

    def masked_states(
        self,
        masked_ids: Int[Tensor, "batch length"],
        mask: Bool[Tensor, "batch length"],
        memory: KeyValues,
        positions: Int[Tensor, " masked"],
    ) -> Float[Tensor, "masked width"]:
        """Fused states at `positions` (flat indices into batch × length), from which words are predicted."""
        tokens = self.fusion_encoder(self.text_encoder(masked_ids, mask), mask, memory).tokens
        return tokens.flatten(0, 1)[positions]

    def predict_words(self, states: Float[Tensor, "masked width"]) -> Float[Tensor, "masked vocabulary"]:
        """MLM logits of states that `masked_states` gave."""
        assert self.mlm_head is not None
        return self.mlm_head(states, self.text_encoder.words.weight)

    def resized(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a model for images of another size, with positions interpolated as published."""
        name = "image_encoder.positions"
        return {
            n: resize_positions(t.float(), self.config.grid) if n == name else t for n, t in state.items()
        }

    def checkpoint(self, encoders: Collection[str]) -> None:
        """Turns on activation checkpointing in these encoders ("image", "text", "fusion")."""
        self.image_encoder.checkpointing = "image" in encoders
        self.text_encoder.checkpointing = "text" in encoders
        self.fusion_encoder.checkpointing = "fusion" in encoders

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Keeps the temperature within the published range."""
        self.temperature.clamp_(*TEMPERATURE_RANGE)
