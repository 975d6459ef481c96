"""Does a model know which of two things is where? It chooses between a true caption and the same with both swapped.

Chance is 50 %. In an image of a fox on the left and a car on the right, "a fox on the left" is true and "a fox on the
right" is false. A model that only knows which words and places occur in the image cannot tell the two apart.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from albef import Engine
from albef.data.pictograms.captions import Claim, Mention, choices, word
from albef.data.pictograms.chance import generator
from albef.data.pictograms.painting import Painter
from albef.data.pictograms.scenes import Scene, Scenes
from albef.data.pictograms.things import OPPOSITE, Location, Thing, location, relation
from albef.data.text import MASK
from albef.writing import write_json


def placed(noun: str, place: Location) -> Claim:
    """The claim that a thing is at a place, such as "a fox on the left"."""
    return Claim((Mention(noun, location=place),))


def swaps(scene: Scene) -> Iterator[tuple[str, Claim, Claim]]:
    """For a scene of two things: what is swapped, a true claim, and the false one with the two things swapped."""
    a, b = scene.things
    here, there, to = location(a), location(b), relation(a, b)
    assert to is not None
    yield "one is placed", placed(a.noun, here), placed(a.noun, there)
    both = Mention(a.noun, location=here), Mention(b.noun, location=there)
    swapped = Mention(a.noun, location=there), Mention(b.noun, location=here)
    yield "both are placed", Claim(both), Claim(swapped)
    nouns = Mention(a.noun), Mention(b.noun)
    yield "how they lie", Claim(nouns, to), Claim(nouns, OPPOSITE[to])
    if a.size != b.size:
        sized = Mention(a.noun, size=a.size), Mention(b.noun, size=b.size)
        yield "their sizes", Claim(sized), Claim((Mention(a.noun, size=b.size), Mention(b.noun, size=a.size)))


def preferences(engine: Engine, scenes: list[Scene], pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
    """By what is swapped: whether ITC and ITM prefer the true caption, bool [captions, 2]."""
    asked = defaultdict(list)
    for index, scene in enumerate(scenes):
        wording = choices(generator("two things", index))
        for about, true, false in swaps(scene):
            asked[about].append((index, word(true, wording), word(false, wording)))
    images = engine.encode_images(pictures)
    found = {}
    for about, rows in asked.items():
        numbers, *texts = zip(*rows, strict=True)
        features = images[list(numbers)]
        similarity = [(features * engine.encode_texts(given)).sum(1) for given in texts]
        odds = [engine.match([pictures[n] for n in numbers], given) for given in texts]
        found[about] = np.stack([similarity[0] > similarity[1], odds[0] > odds[1]], 1)
    return found


def masked(scene: Scene, wording: tuple[float, ...]) -> str:
    """A text such as "a [MASK] on the left" about the first thing; empty if the article gives the noun away."""
    here = location(scene.things[0])
    own, other = (word(placed(thing.noun, here), wording).replace(thing.noun, MASK) for thing in scene.things)
    return own if own == other else ""


def filled(engine: Engine, scenes: list[Scene], pictures: list[np.ndarray]) -> np.ndarray:
    """Whether MLM prefers the right noun to the other one in "a [MASK] on the left", bool [captions]."""
    found = []
    for index, (scene, picture) in enumerate(zip(scenes, pictures, strict=True)):
        text = masked(scene, choices(generator("two things", index)))
        if not text:
            continue
        own, other = (thing.noun for thing in scene.things)
        (pieces,) = engine.fill_mask(text, picture, k=engine.config.vocab_size)
        chances = dict(pieces)
        if own in chances and other in chances:  # leaves out nouns of several word pieces
            found.append(chances[own] > chances[other])
    return np.array(found)


def covered(thing: Thing, grid: int) -> np.ndarray:
    """Which patches have their centre in the box of the thing, bool [grid²], row by row."""
    x0, y0, x1, y1 = thing.box
    centre = (np.arange(grid) + 0.5) / grid
    across, down = (x0 < centre) & (centre < x1), (y0 < centre) & (centre < y1)
    return (down[:, None] & across).ravel()


def looks(engine: Engine, scenes: list[Scene], pictures: list[np.ndarray]) -> np.ndarray:
    """Shares of a noun's attention: on its own thing, on the other thing, and on the class token, [layers, 3].

    Measured at the last word piece of "fox" in "a fox on the left"; means over heads and scenes.
    """
    model, grid = engine.model, engine.config.grid
    found = []
    for index, (scene, picture) in enumerate(zip(scenes, pictures, strict=True)):
        own, other = scene.things
        text = word(placed(own.noun, location(own)), choices(generator("two things", index)))
        ids, mask = engine.text_tokens([text])
        until, _ = engine.text_tokens([text[: text.index(own.noun) + len(own.noun)]])
        last = until.shape[1] - 1 - engine.config.append_sep
        memory = model.image_memory(model.encode_image(engine.visual([picture])))
        fused = model.fuse(model.encode_text(ids, mask).tokens, mask, memory, keep_attention=True)
        noun = torch.stack(fused.attention)[:, 0, :, last].mean(1).numpy()  # [layers, tokens]
        patches, rest = noun[:, -(grid**2) :], noun[:, : -(grid**2)]
        shares = [patches[:, covered(thing, grid)].sum(1) for thing in (own, other)]
        found.append(np.stack([*shares, rest.sum(1)], 1))
    return np.mean(found, 0)


def main() -> None:
    """Measures a model and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="run or model directory")
    parser.add_argument(
        "--num-nouns",
        type=int,
        default=24,
        help="number of different things that the model was trained on (default: 24)",
    )
    parser.add_argument("--count", type=int, default=300, help="number of scenes (default: 300)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the shares to this JSON file (default: no file)"
    )
    given = parser.parse_args()
    engine = Engine.load(given.model)
    source = Scenes("test", 7, given.num_nouns, mix={"pair": 1.0}, twin_share=0.0)
    scenes = [source.scene(index) for index in range(given.count)]
    painter = Painter(2 * engine.config.image_size)
    pictures = [painter.paint(scene) for scene in scenes]
    table = Table(
        "what is swapped", "captions", "ITC", "ITM", "MLM", title="how often the true caption wins, in %"
    )
    shares = {}
    for about, preferred in preferences(engine, scenes, pictures).items():
        itc, itm = map(float, preferred.mean(0))
        shares |= {f"{about}/itc": itc, f"{about}/itm": itm}
        table.add_row(about, str(len(preferred)), f"{100 * itc:.1f}", f"{100 * itm:.1f}", "")
    nouns = filled(engine, scenes, pictures)
    shares["the noun at a place/mlm"] = float(nouns.mean())
    if given.json:
        write_json(given.json, shares)
    table.add_row(
        f"a {MASK} somewhere".replace("[", r"\["), str(len(nouns)), "", "", f"{100 * nouns.mean():.1f}"
    )
    looked = Table(
        "fusion layer", "own thing", "other", "class token", title="where a noun looks, in % of its attention"
    )
    with torch.no_grad():
        for layer, shares in enumerate(looks(engine, scenes, pictures)):
            looked.add_row(str(layer), *(f"{100 * share:.0f}" for share in shares))
    console = Console()
    console.print(table)
    console.print(looked)


if __name__ == "__main__":
    main()
