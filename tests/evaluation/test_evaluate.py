"""Evaluation: names and values of the metrics, users' own pairs, the file and the table."""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from albef.config import UserError
from albef.data.pictograms.gallery import foils, gallery
from albef.data.records import Record
from albef.engine import Engine
from albef.evaluation import evaluate, ranking
from albef.evaluation.evaluate import evaluate_pairs, evaluate_pictograms, write_metrics
from albef.evaluation.tables import metrics_table
from toy import CAPTIONS


@dataclass
class Listed:
    """A source of given records."""

    records: list[Record]
    couple: int = field(default=1)

    def __len__(self) -> int:
        return len(self.records)

    def record(self, index: int, epoch: int) -> Record:
        return self.records[index]


def record(image: np.ndarray | Path, *captions: str, image_id: int | None = None) -> Record:
    return Record(image, captions, image_id, None, "somewhere")


def pictures(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8))


def oracle(engine: Engine, monkeypatch: pytest.MonkeyPatch, of_text: dict[str, int]) -> None:
    """Features, and matching, of a model that knows which text belongs to which picture."""

    def features(numbers: list[int]) -> np.ndarray:
        return np.eye(64, dtype=np.float32)[numbers]

    def encode_images(images: list[np.ndarray], batch_size: int = 64, bad: object = None) -> np.ndarray:
        return features(list(range(len(images))))

    monkeypatch.setattr(engine, "encode_images", encode_images)
    monkeypatch.setattr(engine, "text_features", lambda texts: features([of_text.get(t, 63) for t in texts]))

    def match_scores(engine: Engine, images: object, texts: list[str], pairs: np.ndarray) -> np.ndarray:
        return np.array([4.0 if of_text.get(texts[text]) == image else -4.0 for image, text in pairs])

    for module in (evaluate, ranking):
        monkeypatch.setattr(module, "match_scores", match_scores)


def test_an_oracle_reaches_everything(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = gallery("test", 5, 40, 24, engine.config.image_size)
    oracle(engine, monkeypatch, {caption: number for number, caption in enumerate(drawn.captions)})
    metrics = dict(evaluate_pictograms(engine, ["test"], 5, 40, 24, top_k=8))
    blind = {name: metrics.pop(name) for name in list(metrics) if "/blind/" in name}
    assert metrics
    low = {name: metrics.pop(name) for name in list(metrics) if name.endswith("_low")}
    assert set(metrics.values()) == {1.0}
    of_recalls = [value for name, value in low.items() if "foil" not in name]
    assert of_recalls == pytest.approx([40 / (40 + 1.96**2)] * len(of_recalls), abs=1e-5)  # of 40 pictures
    metrics |= low
    recalls = {f"{direction}_r{k}" for direction in ("t2i", "i2t") for k in (1, 5, 10)} | {"r_mean"}
    assert {name.split("/")[3] for name in blind} == {
        f"{name}{end}" for name in recalls for end in ("", "_low", "_high")
    }
    assert {value for name, value in blind.items() if "itc/" in name and "_high" not in name} == {0.0}
    kinds = {f"foil_{kind}" for kind in ("noun", "count", "size", "background", "location", "relation")}
    for score in ("itc", "itm", "sum"):
        names = {name.split("/")[2] for name in metrics if name.startswith(f"test/{score}/")}
        bounded = recalls | kinds
        assert names == recalls | kinds | {f"{name}_{end}" for name in bounded for end in ("low", "high")}


def test_a_random_model_is_near_chance_and_in_range(engine: Engine) -> None:
    pairs = list(evaluate_pictograms(engine, ["test", "unseen_vendor"], 1, 60, 24, top_k=5))
    metrics = dict(pairs)
    assert len(metrics) == len(pairs)
    assert all(0 <= value <= 1 for value in metrics.values())
    assert {name.split("/")[0] for name in metrics} == {"test", "unseen_vendor"}
    for split in ("test", "unseen_vendor"):
        for score in ("itc", "itm", "sum"):
            name = f"{split}/{score}/t2i_r1"
            assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
            assert metrics[name] < 0.2
    assert metrics == dict(evaluate_pictograms(engine, ["test", "unseen_vendor"], 1, 60, 24, top_k=5))


def test_a_model_that_cannot_match_is_measured_by_contrast(engine: Engine) -> None:
    engine.model.heads = ("contrast",)
    metrics = dict(evaluate_pictograms(engine, ["test"], 1, 20, 24, top_k=5))
    assert {name.replace("/blind", "").split("/")[1] for name in metrics} == {"itc"}


def places(order: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """How many stand before the first correct one in each row's order."""
    return np.take_along_axis(correct, order, axis=1).argmax(1)


def test_figures_are_those_of_ranking_by_hand(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recall of a model that is right now and then, otherwise for texts than for images, by another way."""
    rng, num_images, top_k = np.random.default_rng(2), 30, 6
    of_text = np.sort(np.concatenate([np.arange(num_images), rng.integers(0, num_images, 40)]))
    of_images = rng.normal(size=(num_images, 5)).astype(np.float32)
    of_texts = of_images[of_text] + 0.7 * rng.normal(size=(len(of_text), 5)).astype(np.float32)
    match = 3 * rng.normal(size=(num_images, len(of_text))) + 3 * (np.arange(num_images)[:, None] == of_text)
    monkeypatch.setattr(engine, "encode_images", lambda images, **_: of_images)
    monkeypatch.setattr(engine, "text_features", lambda texts: of_texts)
    monkeypatch.setattr(ranking, "match_scores", lambda _, __, ___, pairs: match[pairs[:, 0], pairs[:, 1]])
    shown = pictures(num_images)
    rows = [record(shown[image], f"{n} foxes", image_id=int(image)) for n, image in enumerate(of_text)]
    metrics = dict(evaluate_pairs(engine, Listed(rows), top_k=top_k))

    cosine, truth = of_images @ of_texts.T, np.arange(num_images)[:, None] == of_text
    blind = np.roll(truth, num_images // 2, axis=0)
    for way, scores, matched in (("i2t", cosine, match), ("t2i", cosine.T, match.T)):
        for name, correct in (("data", truth), ("data/blind", blind)):
            correct = correct if way == "i2t" else correct.T
            first = np.argsort(-scores, axis=1)
            best, rest = first[:, :top_k], first[:, top_k:]
            near = np.take_along_axis(matched, best, axis=1)
            added = np.take_along_axis(scores, best, axis=1) / engine.temperature + near
            orders = {"itc": first}
            for score, values in (("itm", near), ("sum", added)):
                again = np.take_along_axis(best, np.argsort(-values, axis=1), axis=1)
                orders[score] = np.concatenate([again, rest], axis=1)
            for score, order in orders.items():
                for k in (1, 5, 10):
                    share = (places(order, correct) < k).mean()
                    assert metrics[f"{name}/{score}/{way}_r{k}"] == pytest.approx(share), (
                        name,
                        score,
                        way,
                        k,
                    )
    for score in ("itc", "itm", "sum"):  # a figure in another one's place would be noticed
        assert metrics[f"data/{score}/t2i_r1"] != metrics[f"data/{score}/i2t_r1"]
    assert (metrics["data/pictures"], metrics["data/captions"]) == (30, 70)


def test_a_foil_that_fools_the_model_counts_against_its_own_kind(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = gallery("test", 5, 40, 24, engine.config.image_size)
    false = foils(drawn, 5)
    texts = [*drawn.captions, *(foil.caption for foil in false)]
    kinds = dict(zip(texts[40:], (foil.kind for foil in false), strict=True))
    oracle(engine, monkeypatch, {caption: number for number, caption in enumerate(drawn.captions)})

    def match_scores(engine: Engine, images: object, texts: list[str], pairs: np.ndarray) -> np.ndarray:
        believed = {"count": 5.0, "size": 4.0}
        return np.array([4.0 if text < 40 else believed.get(kinds[texts[text]], -4.0) for _, text in pairs])

    monkeypatch.setattr(evaluate, "match_scores", match_scores)
    metrics = dict(evaluate_pictograms(engine, ["test"], 5, 40, 24, top_k=8))
    expected = {"count": 0.0, "size": 0.5, "noun": 1.0, "background": 1.0, "location": 1.0, "relation": 1.0}
    assert {kind: metrics[f"test/itm/foil_{kind}"] for kind in expected} == expected
    assert {metrics[f"test/itc/foil_{kind}"] for kind in expected} == {1.0}
    # Contrast, 1 to 0 divided by the temperature, outweighs what matching believes.
    assert {metrics[f"test/sum/foil_{kind}"] for kind in expected} == {1.0}


def test_rows_with_one_image_id_are_one_picture(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = pictures(3)
    source = Listed(
        [
            record(first, "a fox", image_id=7),
            record(second, "two red cars in the snow", "cars"),
            record(first, "fox on grass", image_id=7),
            record(third),
        ]
    )
    oracle(engine, monkeypatch, {"a fox": 0, "fox on grass": 0, "two red cars in the snow": 1, "cars": 1})
    metrics = dict(evaluate_pairs(engine, source, top_k=2, name="mine"))
    assert metrics["mine/pictures"] == 3
    assert metrics["mine/captions"] == 4
    assert metrics["mine/skipped"] == 0
    assert {value for name, value in metrics.items() if name.count("/") == 2 and "_low" not in name} == {1.0}
    # Of three pictures five are always among the first ten; the first is never the other one's.
    assert (metrics["mine/blind/itc/t2i_r1"], metrics["mine/blind/itc/i2t_r10"]) == (0.0, 1.0)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_blind_is_what_another_gallery_would_give(engine: Engine, size: int) -> None:
    """The control equals an evaluation in which every picture really is another one's, for any size of gallery."""
    images, texts = pictures(size), [f"{CAPTIONS[n % 4]} {n}" for n in range(size)]
    metrics = dict(evaluate_pairs(engine, Listed(list(map(record, images, texts))), top_k=3, name="mine"))
    blind = {key.replace("/blind", ""): value for key, value in metrics.items() if "/blind/" in key}
    if size == 1:
        assert blind == {}
        return
    half = size // 2
    replaced = images[half:] + images[:half]
    expected = dict(evaluate_pairs(engine, Listed(list(map(record, replaced, texts))), top_k=3, name="mine"))
    for name, value in blind.items():
        assert value == pytest.approx(expected[name]), name


def test_the_mean_of_recalls_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    found = {"t2i": rng.integers(0, 20, 400), "i2t": rng.integers(0, 12, 90)}
    apart = {"t2i": (found["t2i"], range(400)), "i2t": (found["i2t"], range(400, 490))}
    metrics = dict(evaluate.recall_metrics("x", apart, seed=3))
    six = [metrics[f"x/{way}_r{k}"] for way in found for k in (1, 5, 10)]
    assert metrics["x/r_mean"] == pytest.approx(np.mean(six))
    # Variances of the two directions add up; each counts half.
    each = [np.mean([rank < k for k in (1, 5, 10)], axis=0) for rank in found.values()]
    deviation = 0.5 * np.sqrt(sum(hits.var() / len(hits) for hits in each))
    assert metrics["x/r_mean_high"] - metrics["x/r_mean_low"] == pytest.approx(2 * 1.96 * deviation, rel=0.15)


def test_unreadable_pictures_are_left_out(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"<html>")
    good = [record(image, caption) for image, caption in zip(pictures(3), CAPTIONS, strict=False)]
    broken = record(tmp_path / "broken.jpg", "a fox")
    metrics = dict(evaluate_pairs(engine, Listed([good[0], broken, *good[1:]]), top_k=2))
    assert metrics.pop("data/skipped") == 1
    expected = dict(evaluate_pairs(engine, Listed(good), top_k=2))
    assert expected.pop("data/skipped") == 0
    assert metrics == expected
    with pytest.raises(UserError, match=r"No readable image .*broken\.jpg"):
        list(evaluate_pairs(engine, Listed([broken]), top_k=2))


def test_captions_of_nothing_are_left_out(engine: Engine) -> None:
    first, second = pictures(2)
    metrics = dict(evaluate_pairs(engine, Listed([record(first, "a fox", "..."), record(second, "cars")]), 2))
    assert metrics["data/captions"] == 2
    with pytest.raises(UserError, match="No readable image with a caption"):
        list(evaluate_pairs(engine, Listed([record(first, "!?")]), 2))


def test_the_file_is_flat_and_whole(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.json", {"test/itc/t2i_r1": np.float64(0.5), "train/steps": 3})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"test/itc/t2i_r1": 0.5, "train/steps": 3.0}
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def test_the_table_has_a_row_per_split_and_score() -> None:
    metrics = {
        "test/itc/t2i_r1": 0.456,
        "test/itc/t2i_r1_low": 0.4,
        "test/itc/t2i_r1_high": 0.508,
        "test/itm/foil_noun": 0.95,
        "unseen_vendor/itc/t2i_r1": 0.2,
        "train/steps": 1700.0,
    }
    console = Console(width=80, file=io.StringIO())
    with console.capture() as shown:
        console.print(metrics_table(metrics))
    rows = [line.split() for line in shown.get().splitlines()]
    assert ["test", "itc", "45.6", "(40–51)"] in rows
    assert ["test", "itm", "95.0"] in rows
    assert ["unseen", "vendor", "itc", "20.0"] in rows


@pytest.mark.parametrize(("count", "controlled"), [(1, False), (2, True)])
def test_two_images_are_enough_for_a_control(engine: Engine, count: int, controlled: bool) -> None:
    rows = Listed([record(image, text) for image, text in zip(pictures(count), CAPTIONS, strict=False)])
    found = dict(evaluate_pairs(engine, rows, top_k=2))
    assert ("data/blind/itc/t2i_r1" in found) == controlled
