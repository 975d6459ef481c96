"""Does a model know which of two things is where? Captions of two things against their swaps; chance is 50 %.

Foils of location are about the only thing in a picture, so a bag of words and places is enough for them. Here it is not:
in a picture of a fox on the left and a car on the right, "a fox on the left" is told from "a fox on the right" only by
who looks at the fox.
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
    """One thing and where it is."""
    return Claim((Mention(noun, location=place),))


def swaps(scene: Scene) -> Iterator[tuple[str, Claim, Claim]]:
    """What is true of a scene of two things, and the same with the two swapped: what it is about, both claims."""
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
    """By what is swapped: whether contrast and matching prefer the true caption, bool [captions, 2]."""
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
    """ "a [MASK] on the left" of the first thing; empty where its article tells the two nouns apart."""
    here = location(scene.things[0])
    own, other = (word(placed(thing.noun, here), wording).replace(thing.noun, MASK) for thing in scene.things)
    return own if own == other else ""


def filled(engine: Engine, scenes: list[Scene], pictures: list[np.ndarray]) -> np.ndarray:
    """Whether the masked noun of "a [MASK] on the left" is rather that thing than the other one, bool [captions]."""
    found = []
    for index, (scene, picture) in enumerate(zip(scenes, pictures, strict=True)):
        text = masked(scene, choices(generator("two things", index)))
        if not text:
            continue
        own, other = (thing.noun for thing in scene.things)
        (pieces,) = engine.fill_mask(text, picture, k=engine.config.vocab_size)
        chances = dict(pieces)
        if own in chances and other in chances:  # nouns of several pieces aside
            found.append(chances[own] > chances[other])
    return np.array(found)


def covered(thing: Thing, grid: int) -> np.ndarray:
    """Which patches have their centre in the thing's box, bool [grid²], row by row."""
    x0, y0, x1, y1 = thing.box
    centre = (np.arange(grid) + 0.5) / grid
    across, down = (x0 < centre) & (centre < x1), (y0 < centre) & (centre < y1)
    return (down[:, None] & across).ravel()


def looks(engine: Engine, scenes: list[Scene], pictures: list[np.ndarray]) -> np.ndarray:
    """Of the attention that a noun pays: the shares on its own thing, the other and the class token, [layers, 3].

    The noun is that of "a fox on the left", in its last piece; means over heads and scenes.
    """
    model, grid = engine.model, engine.config.grid
    found = []
    for index, (scene, picture) in enumerate(zip(scenes, pictures, strict=True)):
        own, other = scene.things
        text = word(placed(own.noun, location(own)), choices(generator("two things", index)))
        ids, mask = engine.text_tokens([text])
        until, _ = engine.text_tokens([text[: text.index(own.noun) + len(own.noun)]])
        last = until.shape[1] - 1 - engine.config.append_sep
        memory = model.image_memory(model.encode_image(engine.pixels(picture)[None]))
        fused = model.fuse(model.encode_text(ids, mask).tokens, mask, memory, keep_attention=True)
        noun = torch.stack(fused.attention)[:, 0, :, last].mean(1).numpy()  # [layers, tokens]
        patches, rest = noun[:, -(grid**2) :], noun[:, : -(grid**2)]
        shares = [patches[:, covered(thing, grid)].sum(1) for thing in (own, other)]
        found.append(np.stack([*shares, rest.sum(1)], 1))
    return np.mean(found, 0)


def main() -> None:
    """Parses the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a run or a model directory")
    parser.add_argument(
        "--num-nouns", type=int, default=24, help="that the model was trained with (default 24)"
    )
    parser.add_argument("--count", type=int, default=300, help="scenes of two things (default 300)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the shares here too")
    given = parser.parse_args()
    engine = Engine.load(given.model)
    source = Scenes("test", 7, given.num_nouns, mix={"pair": 1.0}, twin_share=0.0)
    scenes = [source.scene(index) for index in range(given.count)]
    painter = Painter(2 * engine.config.image_size)
    pictures = [painter.paint(scene) for scene in scenes]
    table = Table(
        "what is swapped", "captions", "ITC", "ITM", "MLM", title="the true caption is preferred, %"
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
        "fusion layer", "own thing", "other", "class token", title="where a noun looks, % of its attention"
    )
    with torch.no_grad():
        for layer, shares in enumerate(looks(engine, scenes, pictures)):
            looked.add_row(str(layer), *(f"{100 * share:.0f}" for share in shares))
    console = Console()
    console.print(table)
    console.print(looked)


if __name__ == "__main__":
    main()
