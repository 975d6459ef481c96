"""Visual question answering: a decoder writes answers from the fused question (paper §5.3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from albef import objectives
from albef.config import Config
from albef.data.records import Batch
from albef.model.albef import ALBEF
from albef.model.answer_decoder import predicted
from albef.momentum import MomentumTeacher
from albef.tasks.base import Output, Stage, Targets, Task


class VQA(Task):
    """Language modelling of weighted answers, with momentum distillation (paper §5.3)."""

    student: ALBEF
    teacher: MomentumTeacher[ALBEF]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.student = ALBEF(config.model, ("answer",))
        self.teacher = MomentumTeacher(self.student, config.task.momentum, config.task.teacher_dropout)

    @torch.no_grad()
    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """The teacher's states at all tokens of the answers, if they are used."""
        states = answer_states(self.teacher.module, batch) if stage.alpha_of("answer") > 0 else None
        return Targets({"answer": torch.full((), float(len(batch)), device=batch.ids.device)}, states=states)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: None = None) -> Output:
        """The student's loss."""
        assert batch.answer_ids is not None
        assert batch.answer_mask is not None
        assert batch.answer_weights is not None
        logits = predict_words(self.student, answer_states(self.student, batch))
        with torch.no_grad():
            taught = None if targets.states is None else predict_words(self.teacher.module, targets.states)
        places = predicted(batch.answer_mask)
        labels = batch.answer_ids.flatten()[places + 1]
        weights = batch.answer_weights[places // batch.answer_ids.shape[1]]
        loss = objectives.answer_loss(logits, taught, labels, weights, stage.alpha, targets.counts["answer"])
        accuracy = (logits.detach().argmax(1) == labels).float().mean()
        return Output({"answer": loss}, None, {"token_accuracy": accuracy})

    def update(self, output: Output) -> None:
        """Moves the teacher."""
        self.teacher.update(self.student)

    @staticmethod
    def adapt(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Starts the decoder from a pre-trained model's fusion layers, word embeddings and MLM head (paper §5.3)."""
        found = dict(state)
        if any(name.startswith("answer_decoder.") for name in state):
            return found
        for name, tensor in state.items():
            root, _, rest = name.partition(".")
            if root == "fusion_encoder":
                found[f"answer_decoder.{rest}"] = tensor
            elif root == "mlm_head":
                found[f"answer_decoder.head.{rest}"] = tensor
            elif root == "text_encoder" and not rest.startswith("layers."):
                found[f"answer_decoder.{rest}"] = tensor
        return found


def answer_states(model: ALBEF, batch: Batch) -> Float[Tensor, "tokens width"]:
    """States from which all tokens of the batch's answers are predicted but the first, which is always [CLS]."""
    assert model.answer_decoder is not None
    assert batch.answer_ids is not None
    assert batch.answer_mask is not None
    assert batch.answer_row is not None
    image, question = model.encode_image(batch.visual), model.encode_text(batch.ids, batch.mask)
    memory = model.question_memory(question, image)
    places = predicted(batch.answer_mask)
    return model.answer_decoder(batch.answer_ids, batch.answer_mask, memory, batch.answer_row, places)


def predict_words(model: ALBEF, states: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens vocabulary"]:
    """Logits of the tokens that follow the states."""
    assert model.answer_decoder is not None
    return model.answer_decoder.predict_words(states)
