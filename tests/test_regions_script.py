"""The script writes the regions of exactly the images that a run draws, for every task, and the same ones each time."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import regions
import torch
from detector import WIDTH, Seen

from albef.config import Config
from albef.data.images import BadImage
from albef.data.loader import step_records
from albef.data.pictograms.gallery import gallery
from albef.data.pictograms.painting import watching
from albef.data.pictograms.scenes import Scene
from albef.data.region_table import RegionTable, facts_of, pixels_id
from albef.data.sources import open_source
from albef.recipe import load_recipe

SETTINGS = [
    "--data.num_nouns=24",
    "--data.count=10",
    "--train.steps=3",
    "--train.batch_size=8",
    "--evaluate.count=6",
]
TASKS = ("pretrain", "retrieval", "vqa", "entailment", "nlvr", "grounding")


@pytest.fixture(scope="session")
def classified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier that was trained for two steps."""
    folder = tmp_path_factory.mktemp("regions")
    regions.classifier_in(folder, 24, 48, 2)
    return folder


def settings_of(task: str) -> list[str]:
    source = "pictograms" if task == "pretrain" else f"pictograms:{task}"
    return [*SETTINGS, f"--task.name={task}", f"--data.source={source}"]


def made(folder: Path, task: str, *options: str) -> Config:
    recipe = folder / "recipe.yaml"
    recipe.write_text("model: {size: tiny}\n")
    regions.main([str(recipe), str(folder), "--steps=2", *settings_of(task), *options])
    return load_recipe(recipe, settings_of(task))


@pytest.mark.parametrize("task", TASKS)
def test_every_image_of_a_run_has_regions(
    classified: Path, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = made(classified, task, "--detector=oracle", "--splits", "test")
    store = RegionTable(classified / "oracle", WIDTH)
    source = open_source(config.data, "train", config.train.seed, config.model.image_size, config.task.name)
    seen: list[tuple[Scene, np.ndarray]] = []
    with watching(lambda scene, image: seen.append((scene, image))):
        for step in range(3):
            for index, epoch in step_records(10, 8, step, config.train.seed, source.couple):
                record = source.record(index, epoch)
                assert isinstance(record.image, np.ndarray)
                store.of(record.image)
                if task == "nlvr":
                    assert isinstance(record.second_image, np.ndarray)
                    store.of(record.second_image)
    trained_on = next(
        classified.glob(f"oracle/{config.data.source.replace(':', '-')}-train-*-epochs-3.parquet")
    )
    assert pq.read_metadata(trained_on).num_rows == len({pixels_id(image) for _, image in seen})
    if task == "pretrain":
        drawn = gallery("test", config.evaluate.seed, 6, 24, config.model.image_size).images
        seen += [(None, image) for image in drawn]  # type: ignore[misc]
    else:
        data = load_recipe(classified / "recipe.yaml", [*settings_of(task), "--data.count=6"]).data
        tested = open_source(data, "test", config.evaluate.seed, config.model.image_size, config.task.name)
        with watching(lambda scene, image: seen.append((scene, image))):
            for index in range(6):
                tested.record(index, 0)
    for scene, image in seen:
        found = store.of(image)
        if scene is not None:
            expected = sorted(thing.box for thing in scene.things)
            np.testing.assert_allclose(sorted(found.boxes.tolist()), expected, atol=1e-6)
    assert "for 10,000 images" in capsys.readouterr().out


def test_what_the_poor_detector_writes(classified: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = made(classified, "pretrain", "--splits", "test")
    drawn = gallery("test", config.evaluate.seed, 6, 24, config.model.image_size)
    store = RegionTable(classified / "poor", WIDTH)
    for image, scene in zip(drawn.images, drawn.scenes, strict=True):
        found = store.of(image)
        assert found.object_ids is not None
        assert found.object_confidences is not None
        assert found.classes is not None
        assert found.attribute_ids is not None
        assert [0.0, 0.0, 1.0, 1.0] in found.boxes.tolist()
        assert 3 <= len(found) <= 3 + len(scene.things)
        assert (np.diff(found.object_confidences) <= 0).all()
        assert found.classes.shape == (len(found), 25)
        np.testing.assert_allclose(found.classes.sum(1), 1, atol=0.01)
        np.testing.assert_array_equal(found.classes[:, 1:].argmax(1), found.object_ids)
        assert len(found.tags) == (found.classes.argmax(1) > 0).sum()
        assert found.attribute_ids.max() < 12
    (file,) = (classified / "poor").glob("*test*")
    facts = facts_of(pq.read_metadata(file))
    assert facts["detector"] == "poor"
    assert facts["split"] == "test"
    assert facts["seed"] == config.evaluate.seed
    assert facts["parameters"] == 154_749
    assert {"seconds", "accuracy", "nouns", "attributes"} <= facts.keys()

    before = file.read_bytes()
    made(classified, "pretrain", "--splits", "test")
    assert file.read_bytes() == before
    with pytest.raises(SystemExit):
        made(classified, "pretrain", "--splits", "--seed=1")  # the file of the split test is of seed 0
    assert "-test-seed-1-images-6.parquet: was made with another detector" in capsys.readouterr().err
    made(classified, "pretrain", "--splits", "test", "--seed=1")
    other = RegionTable(file, WIDTH)
    assert not any(np.array_equal(store.of(image).boxes, other.of(image).boxes) for image in drawn.images)


def test_regions_are_those_of_their_image_and_tags_name_the_things() -> None:
    drawn = gallery("test", 0, 6, 24, 48)
    shown = [[24 - number for number in range(len(scene.things))] for scene in drawn.scenes]

    def classify(crops: np.ndarray) -> Seen:
        """Numbers the regions in features. Sees class 24 in the first of an image, 23 in the second, … and 0 at last."""
        classes = torch.nn.functional.one_hot(torch.tensor([n for own in shown for n in own]), 25) * 3.0
        classes += torch.arange(len(crops))[:, None] / 10 * (classes > 0)  # from the least sure to the surest
        classes[-1] = torch.arange(25) == 0
        return Seen(
            torch.arange(len(crops))[:, None] * torch.ones(WIDTH), classes, torch.zeros(len(crops), 12)
        )

    detector = regions.Detector("oracle", 0, classify, [f"noun {n}" for n in range(1, 25)])  # type: ignore[arg-type]
    images = {str(n): (s, i) for n, (s, i) in enumerate(zip(drawn.scenes, drawn.images, strict=True))}
    counts, arrays, tags = detector.regions(images)
    assert counts == [len(scene.things) for scene in drawn.scenes]
    start = 0
    for scene, count, own, expected in zip(drawn.scenes, counts, tags, shown, strict=True):
        rows = arrays["features"][start : start + count, 0].astype(int)
        assert sorted(rows) == list(range(start, start + count))
        np.testing.assert_allclose(
            arrays["boxes"][start : start + count], [scene.things[row - start].box for row in rows], rtol=1e-6
        )
        last = start + count == len(arrays["features"])
        assert own == [f"noun {n}" for n in expected[::-1][1 if last else 0 :]]
        start += count


def test_other_data_and_broken_classifiers_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {source: mine.json}\n")
    with pytest.raises(SystemExit) as ended:
        regions.main([str(recipe), str(tmp_path)])
    assert ended.value.code == 2
    assert "only pictograms have known boxes" in capsys.readouterr().err
    regions.classifier_in(tmp_path, 8, 32, 0)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(b"broken")
    with pytest.raises(regions.UserError, match="remove it, and it is trained again"):
        regions.classifier_in(tmp_path, 8, 32, 0)


def test_an_image_of_another_seed_has_none(classified: Path) -> None:
    made(classified, "pretrain", "--detector=oracle", "--splits", "test")
    other = gallery("test", 99, 1, 24, 48).images[0]
    with pytest.raises(BadImage, match=r"scripts/regions\.py"):
        RegionTable(classified / "oracle", WIDTH).of(other)
