"""OSCAR's golden files: what our classes compute for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from albef import objectives
from albef.data.regions import Regions, Tags
from albef.evaluation.metrics import recall_at
from albef.model_config import ModelConfig
from albef.peers import bert_names, oscar_names, region_objectives
from albef.peers.oscar import OSCAR
from golden import TIGHT, Comparison, Golden, compare

NOT_PREDICTED = -100


def load_model(golden: Golden, heads: tuple[str, ...]) -> OSCAR:
    """The model with the file's weights."""
    dims, case = golden.case["dims"], golden.case
    config = ModelConfig(
        size="oscar-base",
        text_width=dims["hidden"],
        fusion_depth=dims["layers"],
        text_heads=dims["heads"],
        text_mlp_width=dims["ffn"],
        vocab_size=dims["vocab"],
        max_positions=dims["positions"],
        max_tokens=dims["len"],
        region_width=dims["region_dim"] - dims["box_dim"],
        region_norm=case["use_img_layernorm"],
        pollution_classes=case.get("contrast_classes", 2),
        num_answers=case.get("num_answers", 1),
        pair_head_scale=case.get("cls_hidden_scale", 3),
    )
    model = OSCAR(config, heads).eval()
    weights = golden.group("weights.")
    model.load_state_dict(oscar_names.from_published(weights, model.state_dict(), config))
    return model


class Inputs:
    """A batch of a file, with caption and tags apart as our model takes them."""

    def __init__(self, inputs: Mapping[str, Tensor], ids: Tensor | None = None) -> None:
        self.ids = inputs["input_ids"] if ids is None else ids
        real = inputs["attention_mask"].bool()
        self.is_tag = real & inputs["token_type_ids"].bool()
        self.is_text = real & ~self.is_tag
        self.text = left(self.ids, self.is_text)
        self.tags = Tags(left(self.ids, self.is_tag), left(self.is_tag, self.is_tag))
        self.mask = left(self.is_text, self.is_text)
        numbers = inputs["region_features"]
        self.regions = Regions(
            numbers[..., :-6], numbers[..., -6:], inputs["region_mask"][: len(numbers)].bool(), self.tags
        )

    def back(self, text: Tensor, tags: Tensor) -> Tensor:
        """Values of text and of tags in the places that they have in the file, and zeros at padding."""
        found = text.new_zeros(*self.ids.shape, *text.shape[2:])
        found[self.is_text] = text[self.mask]
        found[self.is_tag] = tags[self.tags.mask]
        return found


def left(values: Tensor, chosen: Tensor) -> Tensor:
    """The chosen values of every row, moved to its beginning, with zeros behind them."""
    rows = [row[which] for row, which in zip(values, chosen, strict=True)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def seen(model: OSCAR, inputs: Inputs) -> tuple[dict[str, Tensor], Tensor]:
    """Last states and pooled states, and the last states of the words alone."""
    memory = model.image_memory(model.encode_image(inputs.regions))
    text = model.encode_text(inputs.text, inputs.mask)
    states = model.states(text.tokens, inputs.mask, memory)
    words = inputs.back(states.text, states.tags)
    regions = states.regions * inputs.regions.mask[..., None]
    got = {"sequence_output": torch.cat([words, regions], 1), "pooled_output": model.pooler(states.text)}
    return got, words


def gradients(model: OSCAR) -> dict[str, Tensor]:
    """The gradients under their published names."""
    own = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    published = bert_names.to_published(own, oscar_names.naming_of(model.config), with_tied=False)
    return {f"grad.{name}": value for name, value in published.items()}


def mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross entropy of classes."""
    count = logits.new_tensor(len(labels))
    return objectives.classification_loss(logits, None, labels, 0.0, count)


def replay_pretrain(golden: Golden) -> Iterator[Comparison]:
    """Masked words and tags, and the contrast of true and polluted, in one forward."""
    model, random = load_model(golden, ("mlm", "pollution")), golden.group("random.")
    given = golden.group("input.")
    got, words = seen(model, Inputs(given, random["mlm_input_ids"]))
    predicted = random["mlm_labels"] != NOT_PREDICTED
    labels = random["mlm_labels"][predicted]
    logits, judged = model.predict_words(words[predicted]), model.judge(got["pooled_output"])
    loss_mlm = objectives.mlm_loss(logits, None, labels, 0.0, logits.new_tensor(len(labels)))
    loss_contrast = mean_loss(judged, given["label"])
    loss = loss_mlm + loss_contrast
    loss.backward()
    got |= {"mlm_logits": logits, "contrast_logits": judged, "loss": loss}
    got |= {"loss_mlm": loss_mlm, "loss_contrast": loss_contrast}
    yield from compare(got | gradients(model), golden.group("expect."), TIGHT)


def replay_retrieval(golden: Golden) -> Iterator[Comparison]:
    """Matching of pairs and negatives, and the scores of a whole gallery from its images' memory."""
    model, given = load_model(golden, ("itm",)), golden.group("input.")
    inputs = Inputs(given)
    memory = model.image_memory(model.encode_image(inputs.regions))
    logits = model.match(model.encode_text(inputs.text, inputs.mask).tokens, inputs.mask, memory)
    loss = mean_loss(logits, given["label"])
    loss.backward()
    got = seen(model, inputs)[0] | {"logits": logits, "loss": loss} | gradients(model)
    with torch.no_grad():
        scores = gallery_scores(model, golden.group("input.gallery."))
    yield from compare(got | {"score_matrix": scores}, golden.group("expect."), TIGHT)
    yield from compare_recalls(scores, golden)


def gallery_scores(model: OSCAR, given: Mapping[str, Tensor]) -> Tensor:
    """Probability of a match of each image and caption. The regions and tags of an image are read once.

    The file holds the tags cut behind each caption. They are taken from the row that has most of them.
    """
    images = len(given["region_features"])
    captions = len(given["input_ids"]) // images
    num_tags = (given["attention_mask"] * given["token_type_ids"]).sum(1).view(images, captions)
    longest = torch.arange(images) * captions + num_tags.argmax(1)
    own = Inputs(
        {name: tensor if len(tensor) == images else tensor[longest] for name, tensor in given.items()}
    )
    memory = model.image_memory(model.encode_image(own.regions))
    words = {name: tensor[:captions] for name, tensor in given.items()}
    texts = Inputs(words | {"region_features": given["region_features"][:1]})
    begun = model.begin_match(model.encode_text(texts.text, texts.mask).tokens, texts.mask)
    rows = [
        model.finish_match(begun, texts.mask, memory.select(torch.tensor([image]))).softmax(1)[:, 1]
        for image in range(images)
    ]
    return torch.stack(rows)


def compare_recalls(scores: Tensor, golden: Golden) -> Iterator[Comparison]:
    """The recalls of the gallery: of captions for an image, and of images for a caption."""
    each = golden.case["captions_per_image"]
    of_image = [range(image * each, (image + 1) * each) for image in range(len(scores))]
    of_caption = [caption // each for caption in range(scores.shape[1])]
    table = scores.float().cpu().numpy()
    for direction, ranked, truth in (("i2t", table, of_image), ("t2i", table.T, of_caption)):
        for name, expected in golden.case["metrics"][f"{direction}_retrieval"].items():
            got = recall_at(ranked, truth, int(name.removeprefix("R@")))
            yield f"{direction} {name}", torch.tensor(got), torch.tensor(expected), TIGHT


def replay_vqa(golden: Golden) -> Iterator[Comparison]:
    """Scores of listed answers, and their binary cross entropy."""
    model, given = load_model(golden, ("answers",)), golden.group("input.")
    inputs = Inputs(given)
    memory = model.image_memory(model.encode_image(inputs.regions))
    logits = model.answer(model.encode_text(inputs.text, inputs.mask).tokens, inputs.mask, memory)
    loss = region_objectives.listed_answer_loss(logits, given["target"], logits.new_tensor(len(logits)))
    loss.backward()
    got = seen(model, inputs)[0] | {"logits": logits, "loss": loss} | gradients(model)
    yield from compare(got, golden.group("expect."), TIGHT)


def replay_nlvr(golden: Golden) -> Iterator[Comparison]:
    """Texts about two images. Rows of the file are the first and second image of each text in turn."""
    model, given = load_model(golden, ("nlvr",)), golden.group("input.")
    texts = Inputs({name: tensor[0::2] for name, tensor in given.items()})
    images = Inputs({name: torch.cat([tensor[0::2], tensor[1::2]]) for name, tensor in given.items()})
    memory = model.image_memory(model.encode_image(images.regions))
    logits = model.classify(model.encode_text(texts.text, texts.mask).tokens, texts.mask, memory)
    loss = mean_loss(logits, given["label"])
    loss.backward()
    got = seen(model, Inputs(given))[0] | {"logits": logits, "loss": loss} | gradients(model)
    yield from compare(got, golden.group("expect."), TIGHT)
