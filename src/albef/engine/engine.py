"""The engine: images and strings in, NumPy arrays and plain values out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from albef.config import UserError
from albef.data.answers import ListedAnswers, comparable
from albef.data.images import ImageInput, open_image
from albef.data.records import Box
from albef.data.rows import ENTAILMENT_LABELS
from albef.engine.loaded import IMAGES_AT_ONCE, TEXTS_AT_ONCE, LoadedModel
from albef.engine.preparing import check_count, texts_of, things
from albef.engine.zero_shot import PLAIN, class_features, sentences_of_classes
from albef.model.albef import ALBEF
from albef.model.answering import rank_answers, write_answers
from albef.model.maps import Score, box_of_map, enlarged, scaled, score_maps
from albef.model.published_maps import word_maps
from albef.model.text_encoder import KeyValues
from albef.model.verbs import OF_TWO_IMAGES, Encoding
from albef.ranker import Hit, best_first, hits_of, hits_of_matches

ANSWERS_AT_ONCE = 1024  # in one pass: each has a copy of its question's keys and values
RERANKED = 64  # candidates that ITM reads
LONGEST_ANSWER = 12  # tokens of an answer that the model writes


class Grounding(NamedTuple):
    """Where a phrase points: a map of the image's size, the box around its highest part, and a map for each word.

    The highest value of the phrase's map is the probability of a match. So is the highest value of all words' maps. If
    the image does not show the phrase, the maps stay low everywhere.
    """

    map: Float[np.ndarray, "height width"]
    box: Box
    words: tuple[tuple[str, Float[np.ndarray, "height width"]], ...]
    probability: float  # that the phrase matches the image


class Engine(LoadedModel):
    """A loaded model that ranks, classifies, answers, judges, grounds phrases, and fills in words.

    Images are file paths, file contents as bytes, Pillow images or arrays. Encoding and matching are methods too: see
    `LoadedModel`.
    """

    def rank(
        self, query: str, gallery: Iterable[ImageInput], k: int = 10, batch_size: int = IMAGES_AT_ONCE
    ) -> list[Hit]:
        """The `k` images of the gallery that fit a text best, best first.

        ITC finds the most similar images (`RERANKED`, or `k` if that is more). They are ordered by `Hit.score`, the sum
        of ITC and ITM, or by ITC alone if the model has no ITM. A model without ITC matches every image.

        To rank texts for an image, use `rank_texts`. Raises `UserError` for a query without words.
        """
        images = things(gallery, "the gallery")
        self.prepare.check_says_something(query, "query")
        (text,) = self.text_encodings([query])
        batches = self.image_encodings(images, batch_size)

        def match(image: Encoding, rows: Int[Tensor, " chosen"]) -> np.ndarray:
            return self.match_images(text, image.of(rows))

        parts = self.track(batches, "reading images", -(-len(images) // batch_size))
        return self._ranked(text, parts, match, len(images), k)

    def rank_texts(
        self, query: ImageInput, gallery: Iterable[str], k: int = 10, batch_size: int = TEXTS_AT_ONCE
    ) -> list[Hit]:
        """The `k` texts of the gallery that fit an image best, best first. Scores are those of `rank`.

        Warns about texts without words, and about texts that are longer than the model reads.
        """
        texts = texts_of(gallery, "the gallery")
        self.warn_about(texts)
        (image,) = self.image_encodings([query])
        memory = self.image_memory(image, slice(1)) if self.can_match else None
        batches = self.text_encodings(texts, batch_size)

        def match(text: Encoding, rows: Int[Tensor, " chosen"]) -> np.ndarray:
            assert text.mask is not None
            assert memory is not None
            return self.match_logits(text.tokens[rows], text.mask[rows], memory)

        parts = self.track(batches, "reading texts", -(-len(texts) // batch_size))
        return self._ranked(image, parts, match, len(texts), k)

    def _ranked(
        self,
        query: Encoding,
        parts: Iterable[Encoding],
        match: Callable[[Encoding, Int[Tensor, " chosen"]], np.ndarray],
        total: int,
        k: int,
    ) -> list[Hit]:
        """The best of a gallery of `total` that comes in parts. `match` gives log-odds for some items of a part."""
        check_count(k)
        if not self.can_contrast:
            return self._matched(parts, match, k)
        similarity, odds = np.zeros(total, np.float32), np.zeros(total, np.float32)
        count, start = max(k, RERANKED), 0
        for part in parts:
            end = start + len(part.feature)
            similarity[start:end] = (part.feature @ query.feature[0]).float().cpu().numpy()
            # Items among the best so far are matched at once, so that no part is kept or read twice.
            best = best_first(similarity[:end], count)
            new = np.sort(best[best >= start])
            if self.can_match and len(new):
                odds[new] = match(part, torch.from_numpy(new - start).to(self.device))
            start = end
        best = best_first(similarity, count)
        return hits_of(similarity, best, odds[best] if self.can_match else None, self.temperature, k)

    def _matched(
        self,
        parts: Iterable[Encoding],
        match: Callable[[Encoding, Int[Tensor, " chosen"]], np.ndarray],
        k: int,
    ) -> list[Hit]:
        """The best of a gallery, each item of which is matched: for models that compare no features."""
        self.must_match()
        each = (match(part, torch.arange(len(part.tokens), device=self.device)) for part in parts)
        return hits_of_matches(np.concatenate(list(each)), k)

    def classify(
        self,
        images: Iterable[ImageInput],
        names: Iterable[str],
        templates: Iterable[str] = (PLAIN,),
        batch_size: int = IMAGES_AT_ONCE,
    ) -> Float32[np.ndarray, "images classes"]:
        """Probabilities of classes known by their names alone (zero-shot), float32 [N, classes]. Rows add up to 1.

        A class is the mean feature of its sentences, one for each template, in which "{}" is the name's place. The
        probabilities are the softmax of similarity / temperature. Raises `UserError` for a model without ITC, for
        templates without "{}", and for classes that the model cannot tell apart.
        """
        self.must_contrast()
        classes = texts_of(names, "names")
        features = torch.from_numpy(self.encode_texts(sentences_of_classes(self.prepare, classes, templates)))
        of_classes = class_features(features.unflatten(0, (len(classes), -1)))
        cosine = torch.from_numpy(self.encode_images(images, batch_size)) @ of_classes.T
        chances: np.ndarray = (cosine / self.temperature).softmax(1).numpy()
        return chances

    def question_memory(
        self, questions: Sequence[str], pixels: Float[Tensor, "batch 3 size size"]
    ) -> KeyValues:
        """The memory that the answer decoder reads, for questions about images."""
        model = self._answering()
        ids, mask = map(self.here, self.prepare.question_tokens(questions))
        with self.computing():
            return model.question_memory(model.encode_text(ids, mask), model.encode_image(pixels))

    def listed_answers(
        self, questions: Sequence[str], visual: Any, candidates: Sequence[str] | None, k: int
    ) -> list[list[tuple[str, float]]]:
        """For each question the `k` best answers of the model's list, or of candidates from it.

        The probabilities are those that an answer is right, each by itself. Raises `UserError` for candidates that are
        not listed.
        """
        model, listed = self.model, ListedAnswers(self.answers)
        numbers = list(range(len(self.answers)))
        if candidates is not None:
            unknown = [answer for answer in candidates if comparable(answer) not in listed.number_of]
            if unknown:
                raise UserError(
                    f"This model chooses among {len(self.answers)} answers, and {unknown[0]!r} is none of them: leave "
                    f"it out, or use a model of system albef, which takes any."
                )
            numbers = [listed.number_of[comparable(answer)] for answer in candidates]
        ids, mask = map(self.here, self.prepare.question_tokens(questions))
        with self.computing():
            memory = model.image_memory(model.encode_image(visual))
            logits = model.answer(model.encode_text(ids, mask).tokens, mask, memory).float()
        best = logits[:, numbers].sigmoid().topk(min(k, len(numbers)))
        return [
            [(self.answers[numbers[place]], chance) for place, chance in zip(*row, strict=True)]
            for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def _answering(self) -> ALBEF:
        """The model, if it can answer questions."""
        if not isinstance(self.model, ALBEF) or self.model.answer_decoder is None:
            raise UserError(
                f"This model was trained for {self.trained_for}. It cannot answer questions: use a model of task vqa."
            )
        return self.model

    def ranked_answers(
        self, memory: KeyValues, answers: Sequence[str], k: int, count_first_token_twice: bool = False
    ) -> list[list[tuple[str, float]]]:
        """For each question the `k` best answers of the list, and their probabilities among these k."""
        ids, mask = (part.to(self.device) for part in self.prepare.answer_tokens(answers))
        found: list[list[tuple[str, float]]] = []
        model, questions = self._answering(), torch.arange(len(memory), device=self.device)
        k = min(k, len(answers))
        for some in questions.split(max(1, ANSWERS_AT_ONCE // max(k, 1))):
            with self.computing():
                best, chances = rank_answers(
                    model, memory.select(some), ids, mask, k, count_first_token_twice
                )
            found += [
                [(answers[number], chance) for number, chance in zip(*row, strict=True)]
                for row in zip(best.tolist(), chances.tolist(), strict=True)
            ]
        return found

    def written_answers(self, memory: KeyValues, k: int) -> list[list[tuple[str, float]]]:
        """For each question `k` answers that the model writes freely, best first, and their probabilities."""
        tokenizer = self.prepare.words.tokenizer
        with self.computing():
            ids, scores = write_answers(
                self._answering(), memory, tokenizer.cls_id, tokenizer.sep_id, k, LONGEST_ANSWER
            )
        return [
            [(tokenizer.decode(row), chance) for row, chance in zip(rows, chances, strict=True)]
            for rows, chances in zip(ids.tolist(), scores.exp().tolist(), strict=True)
        ]

    def answer(
        self, image: ImageInput, question: str, candidates: Iterable[str] | None = None, k: int = 5
    ) -> list[tuple[str, float]]:
        """The `k` likeliest answers to a question about an image, with probabilities, best first.

        With `candidates` (default: the answers saved with the model) the answers are chosen from that list, and the
        probabilities of the k best add up to 1. With an empty list the model writes answers freely. Then each
        probability is that of the whole answer. A model that scores a list (`lists_answers`) writes none. It takes
        candidates from its list, and each probability stands by itself.
        """
        check_count(k)
        self.prepare.check_says_something(question, "question")
        answers = self.answers if candidates is None else texts_of(candidates, "candidates")
        visual = self.visual([image])
        if self.model.lists_answers:
            return self.listed_answers([question], visual, answers or None, k)[0]
        memory = self.question_memory([question], visual)
        found = self.ranked_answers(memory, answers, k) if answers else self.written_answers(memory, k)
        return found[0]

    def entails(self, image: ImageInput, sentence: str) -> dict[str, float]:
        """Probabilities that the image contradicts the sentence, leaves it open ("neutral"), or entails it."""
        if "entailment" not in self.model.heads:
            raise UserError(f"This model was trained for {self.trained_for}. Use a model of task entailment.")
        return dict(zip(ENTAILMENT_LABELS, self._class_chances([image], sentence), strict=True))

    def judge(self, image_a: ImageInput, image_b: ImageInput, statement: str) -> float:
        """Probability that the statement is true of two images. `image_a` is the left one."""
        if not set(OF_TWO_IMAGES) & set(self.model.heads):
            raise UserError(
                f"This model was trained for {self.trained_for}. It cannot judge two images: use a model of task nlvr."
            )
        return self._class_chances([image_a, image_b], statement)[1]

    def _class_chances(self, images: Sequence[ImageInput], text: str) -> list[float]:
        self.prepare.check_says_something(text, "sentence")
        visual = self.visual(images)
        ids, mask = self.text_tokens([text])
        with self.computing():
            memory = self.model.image_memory(self.model.encode_image(visual))
            logits = self.model.classify(self.model.encode_text(ids, mask).tokens, mask, memory)
        chances: list[float] = logits.float().softmax(1)[0].tolist()
        return chances

    def ground(
        self, image: ImageInput, phrase: str, score: Score = "itc", layer: int | None = None
    ) -> Grounding:
        """Where in an image the score of a phrase comes from: a map, a box, and a map of what each word adds.

        `score` is "itc" or "itm". With `layer`, the maps are the published ones of ITM, taken from this fusion layer.
        Maps are scaled by the probability that the phrase matches the image.
        """
        model = self.with_maps()
        if score == "itc":
            self.must_contrast()
        self.prepare.check_says_something(phrase, "phrase")
        transparent = self.config.transparent
        upright = open_image(image, obey_exif=True, transparent=transparent, shrink=False)
        ids, mask = self.text_tokens([phrase])
        pixels = self.visual([upright])
        words = self.prepare.word_places(phrase)
        if layer is None:
            places = torch.zeros(1, len(words), ids.shape[1], dtype=torch.bool, device=self.device)
            for number, (_, of_word) in enumerate(words):
                places[0, number, of_word] = True
            with self.computing():
                found = score_maps(model, pixels, ids, mask, places, score)
            whole, of_words = found.whole[0], found.words[0]
        else:
            with self.computing():
                tokens = word_maps(model, pixels, ids, mask, layer)[0]
            whole, of_words = tokens.mean(0), np.stack([tokens[places].sum(0) for _, places in words])
        size = upright.shape[1], upright.shape[0]
        probability = float(self.match([upright], [phrase])[0])
        map_ = scaled(enlarged(whole, size), probability)
        large = scaled(np.array([enlarged(one, size) for one in of_words]), probability)
        named = tuple((word, one) for (word, _), one in zip(words, large, strict=True))
        return Grounding(map_, box_of_map(map_), named, probability)

    @property
    def has_maps(self) -> bool:
        """Whether the model tells where in an image a match comes from."""
        return isinstance(self.model, ALBEF) and self.can_match

    def with_maps(self) -> ALBEF:
        """The model, if it has maps of where a match comes from. Raises `UserError` otherwise."""
        if not isinstance(self.model, ALBEF):
            raise UserError(
                f"This model was trained for {self.trained_for}. Its system, {self.config.system}, has no maps of where "
                f"a match comes from: use a model of system albef."
            )
        if not self.can_match:
            raise UserError(
                f"This model was trained for {self.trained_for}, without ITM. Use a model with an ITM head."
            )
        return self.model

    def fill_mask(self, text: str, image: ImageInput, k: int = 5) -> list[list[tuple[str, float]]]:
        """For each "[MASK]" in the text, the `k` likeliest tokens and their probabilities, best first.

        No other word of the text is special. Raises `UserError` for a text without "[MASK]", for one that is too long,
        and for a model without MLM.
        """
        if "mlm" not in self.model.heads:
            raise UserError("This model was trained without masked words (task.losses has no mlm).")
        check_count(k)
        tokenizer = self.prepare.words.tokenizer
        ids, places = (part.to(self.device) for part in self.prepare.masked_tokens(text))
        specials = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id]
        (encoding,) = self.image_encodings([image])
        with self.computing():
            memory = self.model.image_memory(encoding)
            states = self.model.masked_states(ids, torch.ones_like(ids, dtype=torch.bool), memory, places)
            logits = self.model.predict_words(states)
            # Embeddings beyond the vocabulary have no token.
            chances = logits.float().softmax(1)[:, : tokenizer.vocab_size]
            chances[:, specials] = -1.0  # last
            best = chances.topk(min(k, chances.shape[1] - len(specials)))
        return [
            list(zip(tokenizer.pieces(pieces), values, strict=True))
            for pieces, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
