"""How well the pictograms tasks can be solved from the texts alone, without any image.

Two guessers learn from training records and answer as many test records. One gives the most frequent answer to the same
text (for a new text, the most frequent answer of all). The other is naive Bayes over the words of the text.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict

import numpy as np

from albef.data.pictograms.questions import question_record
from albef.data.pictograms.scenes import Scene
from albef.data.pictograms.statements import entailment_record, nlvr_record
from albef.data.pictograms.world import World
from albef.data.records import Record

TASKS = {"vqa": question_record, "entailment": entailment_record, "nlvr": nlvr_record}
Sample = tuple[str, str]  # a text and its answer


class Unpainted(World):
    """Scenes without images."""

    def paint(self, scene: Scene) -> np.ndarray:
        """A black image of one pixel."""
        return np.zeros((1, 1, 3), np.uint8)


def samples(task: str, split: str, count: int, num_nouns: int) -> list[Sample]:
    """Texts of a task with their answers or labels."""
    world = Unpainted(split, 0, num_nouns, 1)
    records = (TASKS[task](world, index, 0) for index in range(count))
    return [(record.captions[0], answer_of(record)) for record in records]


def answer_of(record: Record) -> str:
    """The answer, or the number of the label."""
    return record.answers[0] if record.answers else str(record.label)


def by_text(known: list[Sample], asked: list[str]) -> list[str]:
    """The most frequent answer to each text; for a new text, the most frequent answer of all."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for text, answer in known:
        answers[text][answer] += 1
    (usual, _), *_ = Counter(answer for _, answer in known).most_common(1)
    return [answers[text].most_common(1)[0][0] if text in answers else usual for text in asked]


def by_words(known: list[Sample], asked: list[str]) -> list[str]:
    """The answers of naive Bayes over the words of a text."""
    labels = sorted({answer for _, answer in known})
    words = {word: n for n, word in enumerate(sorted({word for text, _ in known for word in text.split()}))}
    counts = np.ones((len(labels), len(words)))
    total = np.zeros(len(labels))
    for text, answer in known:
        row = labels.index(answer)
        total[row] += 1
        counts[row, [words[word] for word in set(text.split())]] += 1
    present = np.log(counts / (total + 2)[:, None])
    absent = np.log1p(-np.minimum(counts / (total + 2)[:, None], 1 - 1e-9))
    prior = np.log(total / total.sum()) + absent.sum(1)
    found = []
    for text in asked:
        columns = [words[word] for word in set(text.split()) if word in words]
        found.append(labels[int((prior + (present - absent)[:, columns].sum(1)).argmax())])
    return found


def main() -> None:
    """Prints a line for each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--count", type=int, default=20_000, help="number of training and of test records (default: 20000)"
    )
    parser.add_argument(
        "--num-nouns", type=int, default=24, help="number of different things in the images (default: 24)"
    )
    given = parser.parse_args()
    for task in TASKS:
        known = samples(task, "train", given.count, given.num_nouns)
        asked = samples(task, "test", given.count, given.num_nouns)
        texts = [text for text, _ in asked]
        shares = {
            guesser.__name__: np.mean(
                [guess == true for guess, (_, true) in zip(guessed, asked, strict=True)]
            )
            for guesser in (by_text, by_words)
            for guessed in [guesser(known, texts)]
        }
        print(task, *(f"{name} {share:.1%}" for name, share in shares.items()))


if __name__ == "__main__":
    main()
