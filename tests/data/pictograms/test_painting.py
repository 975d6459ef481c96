"""Who watches the painters sees every scene with its image, and nothing afterwards."""

import numpy as np
import pytest

from albef.data.pictograms.gallery import gallery
from albef.data.pictograms.painting import Painter, watching
from albef.data.pictograms.scenes import Scene, Scenes


def test_a_watcher_sees_every_scene_with_its_image() -> None:
    seen: list[tuple[Scene, np.ndarray]] = []
    with watching(lambda scene, image: seen.append((scene, image))):
        drawn = gallery("test", 0, 5, 12, 32)
    assert [scene for scene, _ in seen] == drawn.scenes
    np.testing.assert_array_equal([image for _, image in seen], drawn.images)
    Painter(32).paint(drawn.scenes[0])
    assert len(seen) == 5


def test_watching_ends_with_an_error_too() -> None:
    seen: list[Scene] = []
    scene = Scenes("test", 0, 12).scene(0)
    with pytest.raises(ZeroDivisionError), watching(lambda scene, image: seen.append(scene)):
        raise ZeroDivisionError
    Painter(32).paint(scene)
    assert not seen
