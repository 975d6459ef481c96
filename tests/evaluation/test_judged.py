"""Evaluation of the tasks by cases counted by hand, with broken pictures and the blind control."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

import toy
from albef.config import DataConfig, TaskName, UserError
from albef.data.sources import open_source
from albef.data.text import Tokenizer
from albef.engine import Engine, Grounding
from albef.engine import engine as engine_module
from albef.evaluation import vqa
from albef.evaluation.classes import consistencies, evaluate_entailment, evaluate_nlvr
from albef.evaluation.grounding import activation, best_proposal, evaluate_grounding, ground_all, overlap
from albef.evaluation.judged import Judged, another, shown
from albef.evaluation.tables import tables, task_table
from albef.evaluation.vqa import Asking, check_answers, evaluate_vqa, frequent_answers
from albef.model.albef import ALBEF
from albef.model.answering import rank_answers
from albef.model.maps import box_of_map
from albef.model.text_encoder import KeyValues
from albef.model_directory import save_model

BOX = st.tuples(*[st.floats(0, 50)] * 2, *[st.floats(0.5, 50)] * 2)


def engine_for(*heads: str) -> Engine:
    torch.manual_seed(0)
    model = ALBEF(toy.ENGINE_MODEL, heads)
    return Engine(model, Tokenizer.train(toy.CAPTIONS, toy.ENGINE_MODEL.vocab_size), quiet=True)


def pictures(folder: Path, count: int) -> list[str]:
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return [f"{number}.png" for number in range(count)]


def source_of(folder: Path, task: TaskName, rows: list[dict[str, object]], **settings: str):
    (folder / "rows.json").write_text(json.dumps(rows))
    return open_source(DataConfig(source=str(folder / "rows.json"), **settings), "test", 0, 16, task)


def test_overlap_by_hand() -> None:
    assert overlap((0, 0, 2, 2), (1, 1, 2, 2)) == pytest.approx(1 / 7)
    assert overlap((0, 0, 4, 4), (0, 0, 4, 2)) == 0.5
    assert overlap((0, 0, 1, 1), (1, 0, 1, 1)) == 0.0


@given(BOX, BOX)
def test_overlap_is_symmetric_and_a_share(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    assert overlap(a, b) == pytest.approx(overlap(b, a))
    assert 0 <= overlap(a, b) <= 1 + 1e-9
    assert overlap(a, a) == pytest.approx(1.0)


def test_the_proposal_with_the_most_of_the_map_wins_and_size_is_no_help() -> None:
    map_ = np.zeros((20, 20), np.float32)
    map_[5:9, 5:9] = 1.0
    boxes = [(0.0, 0.0, 20.0, 20.0), (5.0, 5.0, 4.0, 4.0), (12.0, 12.0, 4.0, 4.0)]
    assert best_proposal(map_, boxes) == boxes[1]
    assert best_proposal(np.zeros((20, 20)), boxes) == boxes[0]
    map_[15, 15] = 0.4
    assert box_of_map(map_) == boxes[1]


def test_proposals_are_cut_to_pixels_as_published() -> None:
    # The far sides are cut after they are added, and the area is that of the box as it is given: where both sides are
    # cut apart, 2.4 + 3.8 pixels end a pixel earlier, and the area shrinks from 13.68 to 9.
    map_ = np.zeros((10, 10), np.float32)
    map_[2:6, 5] = 1.0
    assert activation(map_, (2.4, 2.4, 3.8, 3.6)) == pytest.approx(4 / 13.68**0.5)
    whole, cut = (2.4, 2.4, 3.8, 3.6), (5.0, 2.0, 1.0, 1.0)
    assert best_proposal(map_, [cut, whole]) == whole
    assert activation(map_, (2.0, 2.0, 0.0, 3.0)) == 0


def test_consistency_counts_statements() -> None:
    keys = ["dev-1-0-0", "dev-1-1-0", "dev-1-0-1", "dev-2-0-0"]
    found = [Judged(n, "True", "True", 1.0, right, n // 2) for n, right in enumerate((1.0, 0.0, 1.0, 1.0))]
    right, clusters = consistencies(keys, found)
    assert (right.tolist(), clusters) == ([0.0, 1.0, 1.0], [0, 1, 1])


def test_classes_with_a_broken_picture(tmp_path: Path) -> None:
    names = pictures(tmp_path, 6)
    (tmp_path / "2.png").write_bytes(b"<html>")
    rows: list[dict[str, object]] = [
        {"image": name, "sentence": "a fox", "label": ("contradiction", "neutral", "entailment")[n % 3]}
        for n, name in enumerate(names)
    ]
    engine = engine_for("entailment")
    metrics = dict(evaluate_entailment(engine, source_of(tmp_path, "entailment", rows), "data"))
    assert (metrics["data/count"], metrics["data/skipped"]) == (5.0, 1.0)
    shares = {name: value for name, value in metrics.items() if "share" in name}
    assert sum(shares.values()) == pytest.approx(1.0)
    own = sum(shares[f"data/share_{label}_{label}"] for label in ("contradiction", "neutral", "entailment"))
    assert metrics["data/accuracy"] == pytest.approx(own)
    said = engine.entails(tmp_path / "0.png", "a fox")
    assert sum(said.values()) == pytest.approx(1.0)


def test_pairs_of_pictures(tmp_path: Path) -> None:
    names = pictures(tmp_path, 4)
    rows: list[dict[str, object]] = [
        {"images": [a, b], "sentence": "a fox", "label": "True", "identifier": f"dev-{n // 2}-{n % 2}-0"}
        for n, (a, b) in enumerate(zip(names, names[::-1], strict=True))
    ]
    engine, source = engine_for("nlvr"), source_of(tmp_path, "nlvr", rows)
    metrics = dict(evaluate_nlvr(engine, source, "data"))
    judged = [engine.judge(tmp_path / r["images"][0], tmp_path / r["images"][1], "a fox") > 0.5 for r in rows]
    assert metrics["data/accuracy"] == pytest.approx(np.mean(judged))
    both = [judged[0] and judged[1], judged[2] and judged[3]]
    assert metrics["data/consistency"] == pytest.approx(np.mean(both))


def test_blind_every_record_sees_another_ones_picture(tmp_path: Path) -> None:
    names = pictures(tmp_path, 5)
    rows: list[dict[str, object]] = [{"image": n, "sentence": "a", "label": "neutral"} for n in names]
    engine, source = engine_for("entailment"), source_of(tmp_path, "entailment", rows)
    (seen,), (blind,) = (list(shown(engine, source, shuffled, {})) for shuffled in (False, True))
    assert [record.image.name for record in blind.records] == names
    for row in range(5):
        others = [other for other in range(5) if torch.equal(blind.visual[row], seen.visual[other])]
        assert others
        assert row not in others
    assert len({tuple(pixels.flatten()[:9].tolist()) for pixels in blind.visual}) == 5


def test_the_blind_control_never_shows_the_own_picture(tmp_path: Path) -> None:
    names = pictures(tmp_path, 2)
    images = [names[0], names[0], names[1], names[0]]
    rows: list[dict[str, object]] = [{"image": n, "sentence": "a", "label": "neutral"} for n in images]
    source = source_of(tmp_path, "entailment", rows)
    for index, own in enumerate(images):
        seen = another(source, index, source.record(index, 0))
        assert seen is not None
        assert seen.image.name == names[own == names[0]]
    for few in (rows[:1], rows[:2]):  # two of one picture
        source = source_of(tmp_path, "entailment", few)
        assert another(source, 0, source.record(0, 0)) is None
        with pytest.raises(UserError, match=r"row 1: no row has another image"):
            list(shown(engine_for("entailment"), source, True, {}))


def test_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = pictures(tmp_path, 3)
    rows: list[dict[str, object]] = [
        {"image": name, "question": "how many", "answer": answer, "question_id": 10 + n}
        for n, (name, answer) in enumerate(zip(names, (["2"] * 10, ["yes"] * 10, ["fox"] * 10), strict=True))
    ]
    engine, source = engine_for("answer"), source_of(tmp_path, "vqa", rows)
    assert frequent_answers(source) == ["2", "yes", "fox"]
    monkeypatch.setattr(vqa, "PAINTED", 1)  # of a file all rows are counted
    assert frequent_answers(source) == ["2", "yes", "fox"]
    file = tmp_path / "results.json"
    asking = Asking(["2", "yes", "fox"], k=3)
    metrics = dict(evaluate_vqa(engine, source, asking, "data", results=file))
    results = json.loads(file.read_text())
    assert [row["question_id"] for row in results] == [10, 11, 12]
    right = [row["answer"] == answer for row, answer in zip(results, ("2", "yes", "fox"), strict=True)]
    assert metrics["data/accuracy"] == pytest.approx(np.mean(right))
    types = ("number", "yes_no", "other")
    assert [metrics[f"data/accuracy_{kind}"] for kind in types] == [float(one) for one in right]
    ranked = engine.answer(tmp_path / "0.png", "how many", ["2", "yes", "fox"], k=2)
    assert len(ranked) == 2
    assert ranked[0][0] == results[0]["answer"]
    assert engine.answer(tmp_path / "0.png", "how many", k=3)[0][1] <= 1  # written freely: no list is known
    written = [engine.answer(tmp_path / name, "how many", [], k=1)[0][0] for name in names]
    right = [answer == true for answer, true in zip(written, ("2", "yes", "fox"), strict=True)]
    assert metrics["data/open_accuracy"] == pytest.approx(np.mean(right))
    free = dict(evaluate_vqa(engine, source, Asking([], k=3, beams=2), "data", results=file))
    assert "data/accuracy" not in free
    beams = [engine.answer(tmp_path / name, "how many", [], k=2)[0][0] for name in names]
    assert [row["answer"] for row in json.loads(file.read_text())] == beams
    with pytest.raises(UserError, match="has none of the answers of the data"):
        check_answers(Path("answers.json"), ["a cat"], source)


def test_questions_without_answers_are_answered_and_not_judged(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"image": name, "question": "how many", "question_id": n, "dataset": "vqa"}
        for n, name in enumerate(pictures(tmp_path, 3))
    ]
    (tmp_path / "1.png").write_bytes(b"<html>")
    file = tmp_path / "results.json"
    source = source_of(tmp_path, "vqa", rows)
    metrics = dict(
        evaluate_vqa(engine_for("answer"), source, Asking(["2", "yes"], k=2), "data", results=file)
    )
    assert metrics == {"data/count": 2.0, "data/skipped": 1.0}
    results = json.loads(file.read_text())
    assert [row["question_id"] for row in results] == [0, 1, 2]
    assert [row["answer"] == "" for row in results] == [False, True, False]


def test_questions_with_answers_under_another_name_are_not_judged_as_if_nobody_had_asked(
    tmp_path: Path,
) -> None:
    rows: list[dict[str, object]] = [
        {"image": name, "question": "how many", "answers": [{"answer": "2"}]}
        for name in pictures(tmp_path, 3)
    ]
    source = source_of(tmp_path, "vqa", rows)
    message = (
        r'rows\.json: none of the 3 questions has an "answer" \(found "answers"\): there is nothing to judge'
    )
    with pytest.raises(UserError, match=message):
        dict(evaluate_vqa(engine_for("answer"), source, Asking([], k=2), "data"))
    rows[1]["answer"] = "2"
    source = source_of(tmp_path, "vqa", rows)
    assert source.notes[0].endswith('2 of 3 questions have no "answer" (found "answers") and are not judged.')
    assert dict(evaluate_vqa(engine_for("answer"), source, Asking([], k=2), "data"))["data/count"] == 1


def test_the_official_rule_is_for_the_official_questions_alone(tmp_path: Path) -> None:
    row = {"image": pictures(tmp_path, 1)[0], "question": "is it", "answer": ["Yes"] * 10}
    for dataset, people, right in (("vqa", 10, 0.0), ("vqa", 9, 1.0), ("mine", 10, 1.0), ("vqa", 1, 1.0)):
        own: dict[str, object] = row | {"dataset": dataset, "answer": ["Yes"] * people}
        source = source_of(tmp_path, "vqa", [own])
        metrics = dict(evaluate_vqa(engine_for("answer"), source, Asking(["yes"], k=1), "data"))
        assert metrics["data/accuracy"] == right, (dataset, people)


def test_grounding(tmp_path: Path) -> None:
    names = pictures(tmp_path, 3)
    rows: list[dict[str, object]] = [
        {"image": name, "text": "a fox", "ref_id": n, "box": [0, 0, 30, 20]} for n, name in enumerate(names)
    ]
    engine = engine_for("contrast", "itm")
    metrics = dict(evaluate_grounding(engine, source_of(tmp_path, "grounding", rows), "data"))
    assert metrics["data/itm_pointing"] == metrics["data/itc_pointing"] == 1.0  # the box is the whole picture
    assert "data/itm_proposals" not in metrics
    boxes = tmp_path / "dets.json"
    boxes.write_text(json.dumps({n: [[0, 0, 30, 20], [1, 1, 2, 2]] for n in range(3)}))
    source = source_of(tmp_path, "grounding", rows, detections=str(boxes))
    assert 0 <= dict(evaluate_grounding(engine, source, "data"))["data/itm_proposals"] <= 1
    for box in ([100, 0, 30, 20], [-9, 0, 9, 9], [0, 5, 30, 20]):
        boxes.write_text(json.dumps({n: [[0, 0, 31.5, 20], box] for n in range(3)}))
        source = source_of(tmp_path, "grounding", rows, detections=str(boxes))
        with pytest.raises(UserError, match=r"row 1: the proposed box .* another image"):
            dict(evaluate_grounding(engine, source, "data"))
    for layer in (-1, 2):
        with pytest.raises(UserError, match=f"no fusion layer {layer}. Choose one from 0 to 1"):
            engine.ground(tmp_path / "0.png", "a fox", layer=layer)
    found = engine.ground(tmp_path / "0.png", "a fox")
    assert isinstance(found, Grounding)
    assert found.map.shape == (20, 30)
    assert [word for word, _ in found.words] == ["a", "fox"]
    assert all(map_.shape == (20, 30) for _, map_ in found.words)
    published = engine.ground(tmp_path / "0.png", "a fox", layer=0)
    assert not np.allclose(published.map, found.map)
    del rows[0]["box"]
    source = source_of(tmp_path, "grounding", rows)
    assert dict(evaluate_grounding(engine, source, "data"))["data/count"] == 2
    assert source.notes == [f'{tmp_path / "rows.json"}: 1 of 3 phrases have no "box" and are left out.']
    bare = [{"image": name, "text": "a fox", "bbox": [0, 0, 30, 20]} for name in names]
    with pytest.raises(
        UserError, match=r'none of the 3 phrases has a "box" \(found "bbox"\): there is nothing'
    ):
        source_of(tmp_path, "grounding", bare)


@pytest.mark.parametrize(("score", "layer"), [("itc", None), ("itm", None), ("itm", 0)])
def test_maps_are_as_high_as_the_phrase_is_probable(
    tmp_path: Path, score: Literal["itc", "itm"], layer: int | None
) -> None:
    pictures(tmp_path, 1)
    engine = engine_for("contrast", "itm")
    for odds in (-6.0, 0.0, 6.0):
        with torch.no_grad():
            engine.model.itm_head.bias.copy_(torch.tensor([0.0, odds]))
        found = engine.ground(tmp_path / "0.png", "a fox on grass", score, layer)
        assert found.probability == engine.match([tmp_path / "0.png"], ["a fox on grass"])[0]
        assert found.map.max() == pytest.approx(found.probability)
        assert max(map_.max() for _, map_ in found.words) == pytest.approx(found.probability)
        left, top, width, height = found.box
        row, column = np.unravel_index(int(found.map.argmax()), found.map.shape)
        assert left <= column < left + width
        assert top <= row < top + height


def test_boxes_are_of_pictures_as_stored(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    found = []
    for name, exif in (("plain", {}), ("turned", {"exif": turned})):
        (tmp_path / name).mkdir()
        for number in range(2):
            with Image.open(tmp_path / f"{number}.png") as picture:
                picture.save(tmp_path / name / f"{number}.jpg", **exif)
        rows: list[dict[str, object]] = [
            {"image": f"{number}.jpg", "text": "a fox", "box": [0, 0, 30, 20]} for number in range(2)
        ]
        source = source_of(tmp_path / name, "grounding", rows)
        batches = list(ground_all(engine_for("contrast", "itm"), source, None, False, {}))
        found.append([answer.phrase["itm"] for answer in batches])
    assert found[0] == found[1]


def test_a_verb_of_another_task_says_what_the_model_was_trained_for(tmp_path: Path) -> None:
    (name,) = pictures(tmp_path, 1)
    picture, engine = tmp_path / name, engine_for("entailment")
    for ask in (
        lambda: engine.answer(picture, "how many"),
        lambda: engine.judge(picture, picture, "a fox"),
        lambda: engine.ground(picture, "a fox"),
    ):
        with pytest.raises(UserError, match="trained for entailment"):
            ask()


def test_answers_are_saved_with_the_model(tmp_path: Path) -> None:
    engine = engine_for("answer")
    save_model(tmp_path / "model", engine.model, engine.tokenizer, "", ["yes", "no"])
    assert Engine.load(tmp_path / "model").answers == ["yes", "no"]
    (tmp_path / "model" / "answers.json").write_text('{"yes": 1}')
    with pytest.raises(UserError, match="not a list of answers"):
        Engine.load(tmp_path / "model")


def test_ranking_a_gallery_of_any_size(tmp_path: Path) -> None:
    names = [tmp_path / name for name in pictures(tmp_path, 3)]
    engine = engine_for("contrast", "itm")
    assert [hit.number for hit in engine.rank("a fox", names[:1])] == [0]
    hits = engine.rank("a fox", names, k=2)
    assert len(hits) == 2
    texts = ["a fox", "two red cars", "a small tree"]
    best = engine.rank_texts(names[0], texts)
    assert sorted(hit.number for hit in best) == [0, 1, 2]
    odds = engine.match([names[0]] * 3, texts)
    cosine = (engine.encode_images([names[0]]) @ engine.encode_texts(texts).T)[0]
    scores = cosine / engine.temperature + np.log(odds / (1 - odds))
    assert [hit.number for hit in best] == np.argsort(-scores).tolist()
    np.testing.assert_allclose([hit.score for hit in best], -np.sort(-scores), rtol=1e-4)
    np.testing.assert_allclose(
        [hit.similarity for hit in best], cosine[[hit.number for hit in best]], rtol=1e-4
    )


def test_the_table_shows_what_the_picture_adds() -> None:
    metrics = {f"test/{blind}accuracy{end}": 0.5 for blind in ("", "blind/") for end in ("", "_low", "_high")}
    table = task_table(metrics)
    assert table.row_count == 1
    assert [column._cells for column in table.columns] == [
        ["test/accuracy"], ["50.0 (50–50)"], ["50.0 (50–50)"],
    ]  # fmt: skip


@pytest.mark.parametrize("metrics", [{}, {"train/steps": 3.0}, {"data/count": 8.0, "data/skipped": 1.0}])
def test_without_figures_there_is_no_table(metrics: dict[str, float]) -> None:
    assert list(tables(metrics)) == []


def test_answers_are_scored_so_many_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, rows = engine_for("answer"), []
    pixels = engine.visual([tmp_path / name for name in pictures(tmp_path, 5)])
    memory = engine.question_memory(["is there a fox", "what is left", "a", "b", "where"], pixels)
    answers = ["fox", "red car", "two", "house", "tree"]
    whole = engine.ranked_answers(memory, answers, 3)

    def counted(model: ALBEF, part: KeyValues, *rest: object) -> object:
        rows.append(len(part))
        return rank_answers(model, part, *rest)

    monkeypatch.setattr(engine_module, "rank_answers", counted)
    monkeypatch.setattr(engine_module, "ANSWERS_AT_ONCE", 7)
    parts = engine.ranked_answers(memory, answers, 3)
    assert rows == [2, 2, 1]
    for one, other in zip(whole, parts, strict=True):
        assert [answer for answer, _ in one] == [answer for answer, _ in other]
        assert [chance for _, chance in one] == pytest.approx([chance for _, chance in other], rel=1e-4)
