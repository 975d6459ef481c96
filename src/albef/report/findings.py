"""What a report shows of a model: rankings, maps of words, doubts of the teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from albef.config import Config, UserError, is_drawn
from albef.data.images import BadImage, ImageInput, open_image
from albef.data.records import Record, stable_id
from albef.data.sources import PictogramSource, Source, open_source
from albef.engine import Engine
from albef.evaluation.ranking import candidates, match_scores, similarities
from albef.model.verbs import VisionLanguageModel
from albef.ranker import best_first, combined, others_last
from albef.systems import SYSTEMS

# Words that name nothing visible. They get no map.
EMPTY_WORDS = frozenset(
    """
    a an the this that these those it its there here and or but with without of to for from by at on in into
    as is are was were be being been has have had do does his her their some any very while who which what you
    we they he she i can see look show shows picture pictured photo image drawing placed front side part
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Pair:
    """An image with a caption. `clean` is the caption before noise was added, if the data know it."""

    image: np.ndarray  # uint8 [H, W, 3], RGB
    caption: str
    meaning: int  # equal for captions that say the same
    clean: str | None = None
    file: Path | None = None  # where a system on regions finds them by; None: the model sees `image`

    @property
    def seen(self) -> ImageInput:
        """The image as the model gets it."""
        return self.image if self.file is None else self.file

    @property
    def noisy(self) -> bool:
        """Whether the data replaced the caption by a noisy one."""
        return self.clean is not None and self.clean != self.caption


def gallery_pairs(config: Config, split: str) -> list[Pair]:
    """The gallery of a pictograms split. Each caption is true of one image only."""
    # Imported here, since users of their own data need not load the drawings.
    from albef.data.pictograms.gallery import gallery

    drawn = gallery(
        split, config.evaluate.seed, config.evaluate.count, config.data.num_nouns, config.model.image_size
    )
    pairs = list(zip(drawn.images, drawn.captions, strict=True))[: config.evaluate.num_ranked]
    return [Pair(image, caption, number) for number, (image, caption) in enumerate(pairs)]


def training_pairs(config: Config, limit: int) -> list[Pair]:
    """Up to `limit` training pairs as in the first epoch; see `source_pairs`."""
    if config.data.source == "pictograms":
        return list(_pictogram_pairs(config, limit))
    source = open_source(config.data, "train", config.train.seed, config.model.image_size, config.task.name)
    return source_pairs(source, config, limit)


def source_pairs(source: Source, config: Config, limit: int) -> list[Pair]:
    """Up to `limit` readable pairs of a source, evenly spread. No image and no caption comes twice."""
    found: list[Pair] = []
    seen: set[object] = set()
    for index in range(0, len(source), max(1, len(source) // limit)):
        record = source.record(index, 0)
        cleaned = [SYSTEMS[config.model.system].clean(text, config.model) for text in record.captions]
        texts = [text for text, clean in zip(record.captions, cleaned, strict=True) if clean]
        image = record.image if record.image_id is None else record.image_id
        meaning = next((stable_id(clean) for clean in cleaned if clean), None)
        if meaning is None or image in seen or meaning in seen:
            continue
        seen |= {image, meaning}
        try:
            image = pixels_of(record.image, config.data.obey_exif, config)
        except BadImage:
            continue
        file = record.image if config.model.sees_regions and isinstance(record.image, Path) else None
        found.append(Pair(image, texts[0], meaning, file=file))
    return found[:limit]


def pixels_of(image: ImageInput, obey_exif: bool, config: Config) -> np.ndarray:
    """The image as the model sees it, in its own size. Raises `BadImage`."""
    transparent = config.model.transparent
    return open_image(image, obey_exif=obey_exif, transparent=transparent, shrink=obey_exif)


@dataclass
class Excerpt(Source):
    """Some records of a source, evenly spread."""

    source: Source
    limit: int
    couple: int = 1

    def __len__(self) -> int:
        return min(self.limit, len(self.source))

    def record(self, index: int, epoch: int) -> Record:
        """Record `index` of the excerpt."""
        return self.source.record(index * len(self.source) // len(self), epoch)


def judged_source(config: Config, limit: int) -> Source | None:
    """Records for examples: from the first split of pictograms, or from the user's validation file."""
    data, wanted = config.data, config.evaluate
    if is_drawn(data.source):
        drawn = replace(data, count=min(wanted.count, limit))
        return open_source(drawn, wanted.splits[0], wanted.seed, config.model.image_size, config.task.name)
    if not data.validation:
        return None
    own = replace(data, source=data.validation)
    return Excerpt(open_source(own, "test", wanted.seed, config.model.image_size, config.task.name), limit)


def _pictogram_pairs(config: Config, limit: int) -> Iterator[Pair]:
    pairs = PictogramSource(config.data, "train", config.train.seed, config.model.image_size).pairs
    for index in range(min(limit, len(pairs))):
        item = pairs.item(index)
        yield Pair(item.image, item.caption, item.meaning, item.clean_caption if item.noisy else item.caption)


# Where image and text of a pair stand in (query, candidate): `match_scores` takes pairs (image, text).
IMAGES_ASK, CAPTIONS_ASK = (0, 1), (1, 0)


class Ranking(NamedTuple):
    """The result of a query: candidates from best to worst, and the place of the right one (0 = first)."""

    query: int
    order: np.ndarray
    truth: int


def rank(
    engine: Engine, gallery: Sequence[Pair], top_k: int, captions: Sequence[int], images: Sequence[int]
) -> tuple[list[Ranking], list[Ranking]]:
    """The gallery's images ranked for some of its captions, and its captions ranked for some of its images.

    The `top_k` most similar candidates are ranked by similarity / temperature + log-odds of matching. The others follow
    by similarity. Without ITM all are ranked by similarity, and without ITC by matching.
    """
    shown, texts = [pair.seen for pair in gallery], [pair.caption for pair in gallery]
    similarity = similarities(engine, shown, texts) if engine.can_contrast else None

    def matched(queries: Sequence[int], chosen: np.ndarray, columns_of_pair: tuple[int, int]) -> np.ndarray:
        """Log-odds of the chosen candidates of each query, and -inf for the others."""
        query, candidate = np.nonzero(chosen)
        pairs = np.stack([np.array(queries)[query], candidate], axis=1)[:, columns_of_pair]
        matching = np.full(chosen.shape, -np.inf, dtype=np.float32)
        matching[query, candidate] = match_scores(engine, shown, texts, pairs)
        return matching

    def ranked(queries: Sequence[int], columns_of_pair: tuple[int, int]) -> list[Ranking]:
        if similarity is None:
            scores = matched(queries, np.ones((len(queries), len(gallery)), bool), columns_of_pair)
        else:
            rows = (similarity if columns_of_pair == IMAGES_ASK else similarity.T)[queries]
            scores = rows / engine.temperature
            if engine.can_match:
                matching = matched(queries, candidates(rows, top_k), columns_of_pair)
                scores = others_last(combined(rows, matching, engine.temperature), rows)
        orders = best_first(scores, len(gallery))
        return [
            Ranking(number, order, int(np.flatnonzero(order == number)[0]))
            for number, order in zip(queries, orders, strict=True)
        ]

    return ranked(captions, CAPTIONS_ASK), ranked(images, IMAGES_ASK)


class WordMap(NamedTuple):
    """A map of what a word adds to its caption's score. The highest value of a caption is its probability."""

    word: str
    light: Float[np.ndarray, "height width"]


def caption_maps(engine: Engine, pair: Pair) -> list[WordMap]:
    """Maps of the caption's words that may name something visible, in the caption's order.

    Empty if the model cannot read the caption, since its vocabulary lacks all its characters.
    """
    try:
        found = engine.ground(pair.image, pair.caption, "itc" if engine.can_contrast else "itm")
    except UserError:
        return []
    return [WordMap(word, map_) for word, map_ in found.words if word not in EMPTY_WORDS]


@dataclass(frozen=True)
class Doubt:
    """A training pair for which the teacher prefers another caption, with the probabilities of its choices."""

    pair: Pair
    chance_given: float
    choices: list[tuple[str, float]]


@dataclass(frozen=True)
class Doubts:
    """The teacher's doubts about `total` training pairs, the surest first."""

    total: int
    noisy: int  # of all pairs
    found: list[Doubt]


def doubts(
    engine: Engine, teacher: VisionLanguageModel, pairs: Sequence[Pair], num_choices: int = 3
) -> Doubts:
    """The pairs for which the teacher prefers another caption among those of all pairs.

    Captions with the same meaning count as one. The probabilities are the teacher's part of the soft targets:
    softmax(similarity / temperature) over the captions.
    """
    judge = Engine(teacher, engine.tokenizer, quiet=True)
    meanings = list({pair.meaning: number for number, pair in reversed(list(enumerate(pairs)))}.values())[
        ::-1
    ]
    column = {pairs[number].meaning: place for place, number in enumerate(meanings)}
    texts = judge.text_features([pairs[number].caption for number in meanings])
    images = judge.encode_images([pair.image for pair in pairs])
    chances = torch.from_numpy(images @ texts.T / engine.temperature).softmax(1).numpy()
    found = []
    for pair, row in zip(pairs, chances, strict=True):
        best = np.argsort(-row, kind="stable")[:num_choices]
        if best[0] != column[pair.meaning]:
            choices = [(pairs[meanings[place]].caption, float(row[place])) for place in best]
            found.append(Doubt(pair, float(row[column[pair.meaning]]), choices))
    found.sort(key=lambda doubt: doubt.chance_given - doubt.choices[0][1])
    return Doubts(len(pairs), sum(pair.noisy for pair in pairs), found)
