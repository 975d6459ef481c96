"""ALBEF's golden files: what our classes compute for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from albef.config import Config, ModelConfig, TaskConfig, TaskName, TrainConfig
from albef.data.records import Batch
from albef.data.text import Tokenizer
from albef.engine import Engine
from albef.engine.preparing import Preparing
from albef.engine.sight import Pixels
from albef.evaluation import metrics, ranking
from albef.model import checkpoints
from albef.model.albef import ALBEF
from albef.model.answering import rank_answers
from albef.model.image_encoder import resize_positions
from albef.model.published_maps import contrast_maps, pair_maps, word_maps
from albef.systems import build_task
from albef.tasks.base import Negatives, Stage, Task
from albef.tasks.classes import classify
from albef.tasks.text_assignment import Assignment
from albef.train.optim import build_optimizer, lr_at
from golden import AFTER_ADAM, TIGHT, Comparison, Golden, compare


def model_config(dims: Mapping[str, int], weights: Mapping[str, Tensor]) -> ModelConfig:
    """The sizes of a golden case, without dropout."""
    return ModelConfig(
        image_size=dims["image_res"],
        patch_size=dims["patch"],
        image_width=dims["vision_width"],
        image_depth=dims["vision_depth"],
        image_heads=dims["vision_heads"],
        image_mlp_width=len(weights["visual_encoder.blocks.0.mlp.fc1.bias"]),
        text_width=dims["text_width"],
        text_depth=dims["fusion_layer"],
        fusion_depth=dims["layers"] - dims["fusion_layer"],
        text_heads=dims["text_heads"],
        text_mlp_width=dims["ffn"],
        feature_width=dims["embed_dim"],
        vocab_size=dims["vocab"],
        max_positions=len(weights["text_encoder.bert.embeddings.position_embeddings.weight"]),
        dropout=0.0,
    )


def load_task(golden: Golden, name: TaskName = "pretrain") -> Task:
    """The task with the file's weights, teacher and queue, and the published settings."""
    weights, dims = golden.group("weights."), golden.case["dims"]
    model = model_config(dims, checkpoints.pretrained(weights))
    task_config = TaskConfig(
        name=name,
        queue_size=dims["queue"],
        momentum=golden.case.get("momentum", 0.995),
        mask_same_pairs=False,
    )
    task = build_task(Config(model=model, task=task_config))
    load_model(task.student, weights)
    if task.teacher is not None:
        teacher_weights = {
            student: weights.get(checkpoints.teacher_name(student), weights[student])
            for student in checkpoints.to_published(task.student.state_dict(), model)
            if student in weights
        }
        load_model(task.teacher.module, teacher_weights)
    if hasattr(task, "queue"):
        checkpoints.load_published_queue(task.queue, weights)
    return task


def load_model(model: ALBEF, weights: Mapping[str, Tensor]) -> None:
    """Gives a model published weights."""
    state = model.state_dict()
    model.load_state_dict(checkpoints.from_published(weights, state, model.config))


def batch_of(inputs: Mapping[str, Tensor], drawn: Mapping[str, Tensor]) -> tuple[Batch, Negatives | None]:
    """The batch and the negatives that a file gives."""
    ids = inputs["input_ids"]
    labels = drawn.get("mlm_labels", torch.full_like(ids, -100)).flatten()
    positions = (labels != -100).nonzero().squeeze(1)
    unknown = -torch.arange(1, len(ids) + 1)
    batch = Batch(
        pixels=inputs["image"],
        ids=ids,
        mask=inputs["attention_mask"].bool(),
        masked_ids=drawn.get("mlm_input_ids", ids),
        mlm_positions=positions,
        mlm_labels=labels[positions],
        image_id=inputs.get("image_id", unknown),
        caption_id=unknown,
        label=inputs.get("label"),
    )
    if "negative_image" not in drawn:
        return batch, None
    return batch, Negatives(image=drawn["negative_image"], text=drawn["negative_text"])


def replay_pretrain(golden: Golden) -> Iterator[Comparison]:
    """One forward and backward: losses, encodings, gradients, teacher, queue."""
    task, expected = load_task(golden), golden.group("expect.")
    config = task.student.config
    stage = Stage(alpha=golden.case["alpha"])
    batch, negatives = batch_of(golden.group("input."), golden.group("random."))
    task.teacher.update(task.student)
    output = task(batch, task.prepare(batch, stage), stage, negatives)
    torch.stack(list(output.losses.values())).sum().backward()
    task.queue.push(output.keys)

    image, text = task.student.encode_image(batch.pixels), task.student.encode_text(batch.ids, batch.mask)
    got = {f"loss_{name}": loss for name, loss in output.losses.items()}
    got |= {"image_embeds": image.tokens, "image_feat": image.feature}
    # At padding the published encoder computes states that nothing reads; ours has zeros there, and others on a GPU.
    real = batch.mask[:, :, None]
    expected["text_embeds"] = expected["text_embeds"] * real
    got |= {"text_embeds": text.tokens * real, "text_feat": text.feature}
    got |= checkpoints.published_queue(task.queue.state_dict())
    got |= gradients(task)
    teacher = checkpoints.published_teacher(
        checkpoints.to_published(task.teacher.module.state_dict(), config)
    )
    got |= {f"teacher.{name}": value for name, value in teacher.items()}
    yield from compare(got, expected, TIGHT)


def gradients(task: Task) -> dict[str, Tensor]:
    """Gradients under the names of a file that expects them; keys and values of a pair of layers are one."""
    config = task.student.config
    found = {name: p.grad for name, p in task.student.named_parameters() if p.grad is not None}
    named = checkpoints.split_published(found, config)
    for names in (named, checkpoints.fine_tuned(named)):
        named = named | names
    return {f"grad.{name}": value for name, value in named.items()}


def replay_retrieval(golden: Golden) -> Iterator[Comparison]:
    """Fine-tuning with several texts of a picture: losses, gradients, queue."""
    task, expected = load_task(golden, "retrieval"), golden.group("expect.")
    stage = Stage(alpha=golden.case["alpha"] if golden.case["distill"] else 0.0)
    batch, negatives = batch_of(golden.group("input."), golden.group("random."))
    task.teacher.update(task.student)
    output = task(batch, task.prepare(batch, stage), stage, negatives)
    torch.stack(list(output.losses.values())).sum().backward()
    task.queue.push(output.keys)
    got = {f"loss_{name}": loss for name, loss in output.losses.items()} | gradients(task)
    got |= checkpoints.published_queue(task.queue.state_dict(), with_image_id=True)
    yield from compare(got, expected, TIGHT)


def replay_retrieval_eval(golden: Golden) -> Iterator[Comparison]:
    """Similarities, re-ranking of the best in both directions, recalls."""
    model, case = load_task(golden, "retrieval").student.eval(), golden.case
    # The published score is the logit of "match" alone, ours its difference to the other one: so that one is 0.
    model.itm_head.weight.data[0], model.itm_head.bias.data[0] = 0, 0
    engine, inputs = Engine(model, Tokenizer.bert(), quiet=True), golden.group("input.")
    engine.prepare = GivenInputs(model.config, inputs)
    images, texts = range(len(inputs["image"])), [str(number) for number in range(len(inputs["input_ids"]))]
    similarity = ranking.similarities(engine, images, texts)
    features = engine.encode_images(images), engine.encode_texts(texts)
    i2t, t2i = (
        reranked.rows(slice(None), count, case["unscored"])
        for reranked, count in zip(
            ranking.rerank(engine, images, texts, *features, case["k_test"]),
            similarity.shape[::-1],
            strict=True,
        )
    )
    got = {"similarity": similarity, "score_i2t": i2t, "score_t2i": t2i}
    got = {name: torch.from_numpy(scores) for name, scores in got.items()}
    yield from compare(got, golden.group("expect."), TIGHT)
    captions = case["captions_per_image"]
    of_image = [list(range(captions * image, captions * (image + 1))) for image in images]
    recalls = {}
    for name, scores, truth in (
        ("txt", i2t, of_image),
        ("img", t2i, [int(text) // captions for text in texts]),
    ):
        # What was not scored ties; the published evaluation takes the later ones first.
        order = scores.argsort(axis=1, kind="stable").argsort(axis=1)
        found = [100 * metrics.recall_at(order, truth, k) for k in (1, 5, 10)]
        recalls |= dict(zip((f"{name}_r1", f"{name}_r5", f"{name}_r10"), found, strict=True))
        recalls[f"{name}_r_mean"] = sum(found) / 3
    recalls["r_mean"] = (recalls["txt_r_mean"] + recalls["img_r_mean"]) / 2
    for name, value in case["metrics"].items():
        yield name, torch.tensor(recalls[name]), torch.tensor(value), TIGHT


class GivenPixels(Pixels):
    """The pixels of a file, by their number."""

    def __init__(self, config: ModelConfig, images: Tensor) -> None:
        super().__init__(config)
        self.images = images

    def read(self, picture: Any) -> Tensor:
        return self.images[picture]


class GivenInputs(Preparing):
    """What a model takes of a file: its pixels and ids, by their number."""

    def __init__(self, config: ModelConfig, inputs: Mapping[str, Tensor]) -> None:
        self.config, self.inputs = config, inputs
        self.sight = GivenPixels(config, inputs["image"])

    def cleaned(self, text: str) -> str:
        return text

    def warn_of_cut(self, texts: Any) -> None:
        """Nothing: the texts are numbers."""

    def text_tokens(self, texts: Any) -> tuple[Tensor, Tensor]:
        numbers = [int(text) for text in texts]
        return self.inputs["input_ids"][numbers], self.inputs["attention_mask"][numbers].bool()


def replay_classification(golden: Golden) -> Iterator[Comparison]:
    """Entailment and NLVR2: logits, loss, gradients."""
    task, expected = load_task(golden, golden.case["task"]), golden.group("expect.")
    stage, inputs = Stage(alpha=golden.case["alpha"]), golden.group("input.")
    batch, _ = batch_of(inputs, {})
    if golden.case["task"] == "nlvr":
        first, second = batch.pixels.chunk(2)
        batch = dataclasses.replace(batch, pixels=first, second_pixels=second)
    task.teacher.update(task.student)
    output = task(batch, task.prepare(batch, stage), stage)
    output.losses["classification"].backward()
    with torch.no_grad():
        logits = classify(task.student, batch)
    got = {"loss": output.losses["classification"], "logits": logits} | gradients(task)
    yield from compare(got, expected, TIGHT)


def replay_text_assignment(golden: Golden) -> Iterator[Comparison]:
    """Three classes of given pairs: loss and gradients."""
    task, expected = load_task(golden, "text_assignment"), golden.group("expect.")
    batch, _ = batch_of(golden.group("input."), {})
    drawn, stage = golden.group("random."), Stage(alpha=0.0)
    output = task(batch, task.prepare(batch, stage), stage, Assignment(drawn["pair"], drawn["label"]))
    output.losses["assignment"].backward()
    yield from compare({"loss": output.losses["assignment"]} | gradients(task), expected, TIGHT)


def replay_vqa(golden: Golden) -> Iterator[Comparison]:
    """The answers' loss and gradients, and the ranking of candidates with the first token counted twice."""
    task, expected = load_task(golden, "vqa"), golden.group("expect.")
    stage, inputs = Stage(alpha=golden.case["alpha"]), golden.group("input.")
    batch, _ = batch_of(inputs, {})
    given = torch.tensor(golden.case["answers_per_question"])
    batch = dataclasses.replace(
        batch,
        answer_ids=inputs["answer_ids"],
        answer_mask=inputs["answer_mask"].bool(),
        answer_weights=inputs["answer_weight"],
        answer_row=torch.arange(len(given)).repeat_interleave(given),
    )
    task.teacher.update(task.student)
    output = task(batch, task.prepare(batch, stage), stage)
    output.losses["answer"].backward()
    got = {"loss": output.losses["answer"]} | gradients(task)
    student = task.student.eval()
    with torch.no_grad():
        question = student.encode_text(batch.ids, batch.mask)
        memory = student.question_memory(question, student.encode_image(batch.pixels))
        got["topk_ids"], got["topk_probs"] = rank_answers(
            student,
            memory,
            inputs["candidate_ids"],
            inputs["candidate_mask"].bool(),
            golden.case["k_test"],
            count_first_token_twice=True,
        )
    yield from compare(got, expected, TIGHT)


def replay_gradcam(golden: Golden) -> Iterator[Comparison]:
    """Maps of the matching score, per token and averaged, and of the contrastive one."""
    model, inputs = load_task(golden, "retrieval").student.eval(), golden.group("input.")
    batch, _ = batch_of(inputs, {})
    given = (batch.pixels, batch.ids, batch.mask)
    layer = golden.case["text_layer"] - golden.case["dims"]["fusion_layer"]
    maps = word_maps(model, *given, layer)
    lengths = batch.mask.sum(1)[:, None, None].cpu()
    mean = torch.from_numpy(pair_maps(model, *given, layer)) * lengths / batch.ids.shape[1]
    got = {"gradcam_token": torch.from_numpy(maps), "gradcam_itm": mean}
    got["gradcam_itc"] = torch.from_numpy(contrast_maps(model, *given, golden.case["vision_layer"]))
    with torch.no_grad():
        text, image = model.encode_text(batch.ids, batch.mask), model.encode_image(batch.pixels)
        got["itm_logits"] = model.match(text.tokens, batch.mask, model.image_memory(image))
    yield from compare(got, golden.group("expect."), TIGHT)


def replay_trajectory(golden: Golden) -> Iterator[Comparison]:
    """Five optimizer steps: the losses of each, and everything at the end."""
    task, expected = load_task(golden), golden.group("expect.")
    train = TrainConfig(lr=1e-3, weight_decay=0.02, decay_embeddings=True)
    optimizer = build_optimizer(task.student, train)
    for step in range(golden.case["steps"]):
        inputs = golden.group(f"input.{step}.")
        stage = Stage(alpha=float(inputs["alpha"]))
        batch, negatives = batch_of(inputs, golden.group(f"random.{step}."))
        task.teacher.update(task.student)
        output = task(batch, task.prepare(batch, stage), stage, negatives)
        torch.stack(list(output.losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        task.queue.push(output.keys)
        got = {f"{step}.loss_{name}": loss for name, loss in output.losses.items()}
        yield from compare(
            got, {name: expected[name] for name in expected if name.startswith(f"{step}.")}, TIGHT
        )
    config = task.student.config
    final = checkpoints.to_published(task.student.state_dict(), config)
    final |= checkpoints.published_teacher(checkpoints.to_published(task.teacher.module.state_dict(), config))
    final |= checkpoints.published_queue(task.queue.state_dict())
    yield from compare(final, golden.group("expect.final."), AFTER_ADAM, prefix="final.")


def replay_position_resize(golden: Golden) -> Iterator[Comparison]:
    """Position embeddings resized to another grid."""
    got = {"pos_embed": resize_positions(golden.tensors["input.pos_embed"], golden.case["grid_to"])}
    yield from compare(got, golden.group("expect."), TIGHT)


def replay_learning_rates(content: Mapping[str, Any]) -> Iterator[Comparison]:
    """The published schedule, in its first epoch and at the start of each epoch."""
    for name, case in content.items():
        schedule, per_epoch = case["schedule"], case["steps_per_epoch"]
        config = TrainConfig(
            lr=schedule["lr"],
            min_lr=schedule["min_lr"],
            warmup_lr=schedule["warmup_lr"],
            warmup_steps=100 * schedule["warmup_epochs"],
            steps=schedule["epochs"] * per_epoch,
            schedule="published",
        )
        first = torch.tensor([lr_at(step, config, per_epoch) for step in range(0, per_epoch, 50)])
        later = torch.tensor(
            [lr_at((e + 1) * per_epoch - 1, config, per_epoch) for e in range(schedule["epochs"])]
        )
        tolerance = (1e-6, 0.0)
        yield f"{name} first epoch", first, torch.tensor(case["first_epoch_every_50"]), tolerance
        yield f"{name} epochs", later, torch.tensor(case["epoch_values"]), tolerance
