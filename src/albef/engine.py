"""A model directory ready to use: pictures and strings in, NumPy arrays out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
import xxhash
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from albef.config import UserError
from albef.data.collate import padded
from albef.data.pictures import BadPicture, open_picture
from albef.data.records import Box
from albef.data.rows import ENTAILMENT_LABELS
from albef.data.text import MASK, Tokenizer, clean_caption, clean_question
from albef.data.transforms import evaluation_transform
from albef.manifest import MANIFEST_FILE, verify
from albef.model.albef import ALBEF, Encoding
from albef.model.answering import rank_answers, write_answers
from albef.model.maps import box_of_map, contrast_maps, enlarged, word_maps
from albef.model.text_encoder import Memory
from albef.model_directory import (
    ANSWERS_FILE,
    CONFIG_FILE,
    FILES,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Trained,
    find_model,
    read_answers,
    read_config,
    read_trained,
    read_weights,
)
from albef.progress import track
from albef.ranker import Hit, best_first, hits_of, probability

PICTURES_AT_ONCE, TEXTS_AT_ONCE = 64, 256  # in a pass through their encoders
ANSWERS_AT_ONCE = 1024  # that are scored whole: each has a copy of its question's keys and values
RERANKED = 64  # candidates that matching looks at
MEMORY_BYTES = 256 * 2**20  # of the keys and values of the images of one pass
MAX_PAIRS = 1024  # in one pass
LONGEST_ANSWER = 12  # tokens that the model writes itself

Picture = str | Path | np.ndarray  # a file, or uint8 [H, W, 3] RGB
T = TypeVar("T")


class Grounding(NamedTuple):
    """Where a phrase points: a map of the picture's size, the box of its highest part, and a map of each word piece."""

    map: Float[np.ndarray, "height width"]
    box: Box
    words: tuple[tuple[str, Float[np.ndarray, "height width"]], ...]


class Engine:
    """A model with its tokenizer, for users: encodes and matches pictures and texts, and fills in words.

    Everything is computed in the precision of the weights (fp32 when loaded), or with `bf16` under autocast, which is
    faster where the device has such arithmetic and moves scores a little. `quiet` hides progress bars, which are shown
    on terminals only. The model is put into evaluation mode.
    """

    def __init__(
        self, model: ALBEF, tokenizer: Tokenizer, name: str = "", quiet: bool = False, bf16: bool = False
    ) -> None:
        self.model, self.tokenizer, self.config = model.eval(), tokenizer, model.config
        self.name = name  # what `load` takes to load it again, empty for a model that is in memory only
        self.quiet, self.bf16 = quiet, bf16
        self.answers: list[str] = []  # what questions are answered with when no candidates are given
        self.trained: Trained | None = None  # None: not known
        self.device = model.text_encoder.words.weight.device

    @classmethod
    def load(
        cls, source: str | Path, device: str = "auto", quiet: bool = False, bf16: bool = False
    ) -> Engine:
        """The model in a folder (a model directory, or a run that has one), else of a Hugging Face hub id.

        `device`: "auto" takes a GPU if there is one. Raises `UserError` when a file is missing or unreadable,
        when the weights don't fit the configuration, and when the format is a newer one; `Damaged` when a file is not
        that of the manifest, where there is one.
        """
        folder, name = find_model(source)
        for file in (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE):
            if not (folder / file).is_file():
                raise UserError(f"{folder}: no {file}; a model directory has {', '.join(FILES[:3])}.")
        if (folder / MANIFEST_FILE).is_file():  # but the card may be written by hand
            # The other files are text that people edit; what is wrong in them is told below.
            verify(folder, (WEIGHTS_FILE, TOKENIZER_FILE))
        config, heads = read_config(folder / CONFIG_FILE)
        tokenizer = Tokenizer.load(folder / TOKENIZER_FILE)
        if tokenizer.vocab_size > config.vocab_size:
            raise UserError(
                f"{folder / TOKENIZER_FILE}: has {tokenizer.vocab_size} pieces, but the model knows "
                f"{config.vocab_size}; use the tokenizer that was saved with the model."
            )
        with torch.device("meta"):  # no time spent on initial weights
            model = ALBEF(config, heads)
        model.load_state_dict(read_weights(folder / WEIGHTS_FILE, model.state_dict()), assign=True)
        engine = cls(model.requires_grad_(False).to(choose_device(device)), tokenizer, name, quiet, bf16)
        engine.trained = read_trained(folder / CONFIG_FILE)
        if (folder / ANSWERS_FILE).is_file():
            engine.answers = read_answers(folder / ANSWERS_FILE)
        return engine

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Within it the model computes without gradients, in the engine's precision."""
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            yield

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights: what was computed by another model has another one."""
        digest = xxhash.xxh3_128()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    @property
    def temperature(self) -> float:
        """What similarities are divided by to be logits."""
        return float(self.model.temperature.detach())

    @property
    def trained_for(self) -> str:
        """What the model can do, in words for messages."""
        return ", ".join(self.model.heads)

    @property
    def can_contrast(self) -> bool:
        """Whether pictures and texts can be compared by their features."""
        return "contrast" in self.model.heads

    @property
    def can_match(self) -> bool:
        """Whether the model was trained with image–text matching."""
        return self.model.itm_head is not None

    def track(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        """The items, with a progress bar on a terminal."""
        yield from track(items, label, total, self.quiet)

    def pixels(self, picture: Picture) -> Float[Tensor, "3 size size"]:
        """A picture as the model takes it, on the CPU; raises `BadPicture` for a file that is none."""
        image = picture if isinstance(picture, np.ndarray) else open_picture(picture, obey_exif=True)
        config = self.config
        return torch.from_numpy(evaluation_transform(image, config.image_size, config.mean, config.std))

    def pixel_batches(
        self, images: Sequence[Picture], batch_size: int, bad: dict[int, BadPicture] | None = None
    ) -> Iterator[Float[Tensor, "batch 3 size size"]]:
        """Pixels of the pictures in their order, batch by batch, on the model's device.

        With `bad`, pictures that cannot be read are left out and noted there under their number; without, the
        first one raises.
        """
        for start in range(0, len(images), batch_size):
            rows = []
            for number in range(start, min(start + batch_size, len(images))):
                try:
                    rows.append(self.pixels(images[number]))
                except BadPicture as error:
                    if bad is None:
                        raise
                    bad[number] = error
            if rows:
                yield torch.stack(rows).to(self.device)

    def image_encodings(
        self,
        images: Sequence[Picture],
        batch_size: int = PICTURES_AT_ONCE,
        bad: dict[int, BadPicture] | None = None,
    ) -> Iterator[Encoding]:
        """Tokens and features of the pictures in order, batch by batch; `bad` as for `pixel_batches`."""
        for pixels in self.pixel_batches(images, batch_size, bad):
            with self.computing():
                encoding = self.model.encode_image(pixels)
            yield encoding

    def image_memories(self, encoding: Encoding) -> Iterator[Memory]:
        """Each picture's keys and values for the fusion layers, one after the other: 9.5 MB a picture at base size."""
        for row in range(len(encoding.tokens)):
            place = slice(row, row + 1)
            mask = None if encoding.mask is None else encoding.mask[place]
            with self.computing():
                memory = self.model.image_memory(
                    Encoding(encoding.tokens[place], mask, encoding.feature[place])
                )
            yield memory

    def text_tokens(
        self, texts: Sequence[str], clean: Callable[[str, int], str] = clean_caption
    ) -> tuple[Int[Tensor, "texts length"], Bool[Tensor, "texts length"]]:
        """Ids of the cleaned texts, padded to the longest, and which are real; on the model's device."""
        rows = [
            self.tokenizer.encode(
                clean(text, self.config.max_words), self.config.max_tokens, self.config.append_sep
            )
            for text in texts
        ]
        ids, mask = padded(rows, self.tokenizer.pad_id)
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)

    def text_encodings(self, texts: Sequence[str], batch_size: int = TEXTS_AT_ONCE) -> Iterator[Encoding]:
        """Tokens (before fusion), masks and features of the texts in their order, batch by batch."""
        for start in range(0, len(texts), batch_size):
            with self.computing():
                encoding = self.model.encode_text(*self.text_tokens(texts[start : start + batch_size]))
            yield encoding

    def encode_images(
        self,
        images: Sequence[Picture],
        batch_size: int = PICTURES_AT_ONCE,
        bad: dict[int, BadPicture] | None = None,
    ) -> np.ndarray:
        """Features of the pictures, float32 [N, F], of unit length; files are turned as their EXIF says.

        A file that is no picture raises `BadPicture`; with `bad` it has no row, and is noted there instead.
        """
        batches = self.image_encodings(images, batch_size, bad)
        return self._features(batches, "reading pictures", -(-len(images) // batch_size))

    def encode_texts(self, texts: Sequence[str], batch_size: int = TEXTS_AT_ONCE) -> np.ndarray:
        """Features of the texts, float32 [N, F], of unit length; times a picture's: the similarity."""
        batches = self.text_encodings(texts, batch_size)
        return self._features(batches, "reading texts", -(-len(texts) // batch_size))

    def _features(self, batches: Iterator[Encoding], label: str, total: int) -> np.ndarray:
        self._must_contrast()
        found = [np.zeros((0, self.config.feature_width), np.float32)]
        found += [encoding.feature.cpu().numpy() for encoding in self.track(batches, label, total)]
        return np.concatenate(found)

    def _must_contrast(self) -> None:
        if not self.can_contrast:
            raise UserError(
                f"This model was trained for {self.trained_for}, not to compare pictures with texts (contrast)."
            )

    def match(self, images: Sequence[Picture], texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Probability that text n describes picture n, float32 [N].

        Raises `UserError` for unequal numbers, and for a model that was trained without matching.
        """
        if len(images) != len(texts):
            raise UserError(f"{len(images)} pictures and {len(texts)} texts are no pairs: give as many.")
        found = [np.zeros(0, np.float32)]
        encodings = zip(
            self.image_encodings(images, batch_size), self.text_encodings(texts, batch_size), strict=True
        )
        for image, text in encodings:
            assert text.mask is not None
            with self.computing():
                memory = self.model.image_memory(image)
            found.append(probability(self.match_logits(text.tokens, text.mask, memory)))
        return np.concatenate(found)

    def match_logits(
        self,
        tokens: Float[Tensor, "pairs length width"],
        mask: Bool[Tensor, "pairs length"],
        memory: Memory,
        image_index: Int[Tensor, " pairs"] | None = None,
    ) -> np.ndarray:
        """Log-odds that each text matches its picture, float32 [pairs]: logit of "match" minus "no match"."""
        if not self.can_match:
            raise UserError("This model was trained without image–text matching (task.losses has no itm).")
        with self.computing():
            return log_odds(self.model.match(tokens, mask, memory, image_index))

    @property
    def pairs_at_once(self) -> int:
        """How many pairs of different images are matched in one pass: keys and values stay within `MEMORY_BYTES`."""
        config = self.config
        bytes_of_pair = (config.grid**2 + 1) * 2 * config.text_width * 4 * config.fusion_depth
        return max(1, min(MAX_PAIRS, MEMORY_BYTES // bytes_of_pair))

    def match_images(
        self, text: Encoding, image_tokens: Float[Tensor, "images places width"]
    ) -> Float32[np.ndarray, " images"]:
        """Log-odds that one text, encoded, matches each of the images of these tokens."""
        assert text.mask is not None
        found = []
        for tokens in image_tokens.split(self.pairs_at_once):
            with self.computing():
                memory = self.model.image_memory(Encoding(tokens, None, tokens[:, 0]))
            shape = len(tokens), -1, -1
            found.append(self.match_logits(text.tokens.expand(shape), text.mask.expand(shape[:2]), memory))
        return np.concatenate(found)

    def rank(self, query: str, gallery: Sequence[Picture], k: int = 10) -> list[Hit]:
        """The `k` pictures of the gallery that fit a text best, the best first.

        The most similar ones (`RERANKED`, or `k` if that is more) are ordered by `Hit.score`, contrast and matching
        added up; by contrast alone where the model can't match. A picture over texts: `rank_texts`.
        """
        self._must_contrast()
        (text,) = self.text_encodings([query])
        parts = self.image_encodings(gallery)
        labelled = self.track(parts, "reading pictures", -(-len(gallery) // PICTURES_AT_ONCE))

        def match(image: Encoding, rows: Int[Tensor, " chosen"]) -> np.ndarray:
            return self.match_images(text, image.tokens[rows])

        return self._ranked(text, labelled, match, len(gallery), k)

    def rank_texts(self, query: Picture, gallery: Sequence[str], k: int = 10) -> list[Hit]:
        """The `k` texts of the gallery that fit a picture best, best first; by the same scores as `rank`."""
        self._must_contrast()
        (image,) = self.image_encodings([query])
        (memory,) = self.image_memories(image)
        parts = self.text_encodings(gallery)
        labelled = self.track(parts, "reading texts", -(-len(gallery) // TEXTS_AT_ONCE))

        def match(text: Encoding, rows: Int[Tensor, " chosen"]) -> np.ndarray:
            assert text.mask is not None
            return self.match_logits(text.tokens[rows], text.mask[rows], memory)

        return self._ranked(image, labelled, match, len(gallery), k)

    def _ranked(
        self,
        query: Encoding,
        parts: Iterable[Encoding],
        match: Callable[[Encoding, Int[Tensor, " chosen"]], np.ndarray],
        total: int,
        k: int,
    ) -> list[Hit]:
        """The best of a gallery of `total` that is given part by part; `match` gives log-odds of some of a part."""
        similarity, odds = np.zeros(total, np.float32), np.zeros(total, np.float32)
        count, start = max(k, RERANKED), 0
        for part in parts:
            end = start + len(part.feature)
            similarity[start:end] = (part.feature @ query.feature[0]).cpu().numpy()
            # What is among the best so far is matched at once, so that no part is kept, or read twice.
            best = best_first(similarity[:end], count)
            new = np.sort(best[best >= start])
            if self.can_match and len(new):
                odds[new] = match(part, torch.from_numpy(new - start).to(self.device))
            start = end
        best = best_first(similarity, count)
        return hits_of(similarity, best, odds[best] if self.can_match else None, self.temperature, k)

    def question_memory(self, questions: Sequence[str], pixels: Float[Tensor, "batch 3 size size"]) -> Memory:
        """What the answer decoder looks at, of questions about pictures."""
        if self.model.answer_decoder is None:
            raise UserError(
                f"This model was trained for {self.trained_for}, not to answer questions (task vqa)."
            )
        ids, mask = self.text_tokens(questions, clean_question)
        with self.computing():
            question, image = self.model.encode_text(ids, mask), self.model.encode_image(pixels)
            return self.model.question_memory(question, image)

    def ranked_answers(
        self, memory: Memory, answers: Sequence[str], k: int, count_first_token_twice: bool = False
    ) -> list[list[tuple[str, float]]]:
        """For each question the `k` best of the listed answers and their probabilities among those k."""
        rows = [
            self.tokenizer.encode(answer, self.config.max_positions, append_sep=True) for answer in answers
        ]
        ids, mask = padded(rows, self.tokenizer.pad_id)
        given = torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)
        found: list[list[tuple[str, float]]] = []
        questions = torch.arange(len(memory.layers[0]), device=self.device)
        k = min(k, len(answers))
        for some in questions.split(max(1, ANSWERS_AT_ONCE // max(k, 1))):
            with self.computing():
                best, chances = rank_answers(
                    self.model, memory.select(some), *given, k, count_first_token_twice
                )
            found += [
                [(answers[number], chance) for number, chance in zip(*row, strict=True)]
                for row in zip(best.tolist(), chances.tolist(), strict=True)
            ]
        return found

    def written_answers(self, memory: Memory, k: int) -> list[list[tuple[str, float]]]:
        """For each question `k` answers that the model writes itself, likeliest first, and their probabilities."""
        cls_id, sep_id = self.tokenizer.cls_id, self.tokenizer.sep_id
        with self.computing():
            ids, scores = write_answers(self.model, memory, cls_id, sep_id, k, LONGEST_ANSWER)
        return [
            [(self.tokenizer.decode(row), chance) for row, chance in zip(rows, chances, strict=True)]
            for rows, chances in zip(ids.tolist(), scores.exp().tolist(), strict=True)
        ]

    def answer(
        self, image: Picture, question: str, candidates: Sequence[str] | None = None, k: int = 5
    ) -> list[tuple[str, float]]:
        """The `k` likeliest answers to a question about a picture, with probabilities, best first.

        With `candidates` (default: the answers that the model was saved with) the answer is one of them, and the
        probabilities are shared among the k best; with an empty list the model writes what it likes, and they are those
        of the whole answers.
        """
        memory = self.question_memory([question], self.pixels(image)[None].to(self.device))
        answers = self.answers if candidates is None else candidates
        found = self.ranked_answers(memory, answers, k) if answers else self.written_answers(memory, k)
        return found[0]

    def entails(self, image: Picture, sentence: str) -> dict[str, float]:
        """Probabilities that the picture contradicts the sentence, leaves it open ("neutral"), and entails it."""
        if "entailment" not in self.model.heads:
            raise UserError(f"This model was trained for {self.trained_for}, not for entailment.")
        return dict(zip(ENTAILMENT_LABELS, self._classify([image], sentence), strict=True))

    def judge(self, image_a: Picture, image_b: Picture, statement: str) -> float:
        """Probability that the statement is true of the two pictures, `image_a` on the left."""
        if "nlvr" not in self.model.heads:
            raise UserError(f"This model was trained for {self.trained_for}, not to judge pairs (task nlvr).")
        return self._classify([image_a, image_b], statement)[1]

    def _classify(self, images: Sequence[Picture], text: str) -> list[float]:
        pixels = torch.stack([self.pixels(image) for image in images]).to(self.device)
        ids, mask = self.text_tokens([text])
        with self.computing():
            memory = self.model.image_memory(self.model.encode_image(pixels))
            logits = self.model.classify(self.model.encode_text(ids, mask).tokens, mask, memory)
        chances: list[float] = logits.float().softmax(1)[0].tolist()
        return chances

    def ground(
        self, image: Picture, phrase: str, score: Literal["itm", "itc"] = "itm", layer: int | None = None
    ) -> Grounding:
        """Where in a picture a phrase finds what it means: a map, a box, and a map per word.

        The map is that of matching ("itm", at fusion layer `layer`: see `maps.word_maps`) or of contrast ("itc");
        the words' maps are those of matching.
        """
        if not self.can_match:
            raise UserError(f"This model was trained for {self.trained_for}, without matching (itm).")
        picture = image if isinstance(image, np.ndarray) else open_picture(image, obey_exif=True)
        ids, mask = self.text_tokens([phrase])
        pixels = self.pixels(picture)[None].to(self.device)
        maps = word_maps(self.model, pixels, ids, mask, layer)[0]
        size = picture.shape[1], picture.shape[0]
        together = maps.mean(0) if score == "itm" else contrast_maps(self.model, pixels, ids, mask)[0]
        whole = enlarged(together, size)
        words = tuple(
            (piece, enlarged(one, size))
            for piece, one in zip(self.tokenizer.pieces(ids[0].tolist()), maps, strict=True)
        )
        return Grounding(whole, box_of_map(whole), words)

    def fill_mask(self, text: str, image: Picture, k: int = 5) -> list[list[tuple[str, float]]]:
        """For each "[MASK]" in the text the `k` likeliest word pieces and their probabilities, best first.

        Nothing else in the text is special. Raises `UserError` for a text without "[MASK]" or too long, and
        for a model that was trained without masked words.
        """
        if self.model.mlm_head is None:
            raise UserError("This model was trained without masked words (task.losses has no mlm).")
        config, tokenizer = self.config, self.tokenizer
        ids = [tokenizer.cls_id]
        for number, part in enumerate(text.split(MASK)):
            ids += [tokenizer.mask_id] if number else []
            cleaned = clean_caption(part, config.max_words)
            ids += tokenizer.encode(cleaned, config.max_positions, append_sep=False)[1:].tolist()
        ids += [tokenizer.sep_id] if config.append_sep else []
        positions = [place for place, number in enumerate(ids) if number == tokenizer.mask_id]
        if not positions:
            raise UserError(f'"{text}" has no {MASK}: put it where a word is to be filled in.')
        if len(ids) > config.max_tokens:
            raise UserError(f"The text has {len(ids)} tokens, the limit is {config.max_tokens}: shorten it.")
        row = torch.tensor([ids], device=self.device)
        place = torch.tensor(positions, device=self.device)
        specials = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id]
        with self.computing():
            (encoding,) = self.image_encodings([image])
            memory = self.model.image_memory(encoding)
            logits = self.model.predict_tokens(row, torch.ones_like(row, dtype=torch.bool), memory, place)
            # Embeddings beyond the vocabulary have no piece.
            chances = logits.float().softmax(1)[:, : tokenizer.vocab_size]
            chances[:, specials] = -1.0  # last
            best = chances.topk(min(k, chances.shape[1] - len(specials)))
        return [
            list(zip(tokenizer.pieces(pieces), values, strict=True))
            for pieces, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def log_odds(logits: Float[Tensor, "pairs 2"]) -> Float32[np.ndarray, " pairs"]:
    """Log-odds of a match, logit of "match" minus that of "no match"."""
    no, yes = logits.float().unbind(1)
    return (yes - no).cpu().numpy()


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"Device {name!r} can't be used here ({reason}): try auto.") from None
    return torch.device(name)
