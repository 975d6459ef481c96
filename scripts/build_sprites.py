"""Builds the drawings of the built-in data set `pictograms` from two npm packages.

Download and unpack the packages, then run the script. It also needs `pip install resvg-py==0.5.0`:

    npm pack @iconify/json@2.2.535 emojibase-data@17.0.0
    mkdir iconify && tar xzf iconify-json-2.2.535.tgz -C iconify --strip-components 1
    mkdir emojibase && tar xzf emojibase-data-17.0.0.tgz -C emojibase --strip-components 1
    python scripts/build_sprites.py iconify emojibase --out src/albef/data/pictograms

It reads `nouns.tsv` beside it: a hand-made list of nouns, the easiest first. Columns: noun; plural; label of the emoji
in emojibase; `names`, separated by spaces. In `names` a word is another icon name to try in every set, `set=name` is
the name in that set only, and `-set` leaves a set out because it draws something else.
"""

import argparse
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import resvg_py
from PIL import Image

# Sets by the same artists are one vendor: their drawings are nearly the same, so they are held out together.
VENDORS = {
    "noto": "noto",
    "noto-v1": "noto",
    "fluent-emoji": "fluent",
    "fluent-emoji-flat": "fluent",
    "twemoji": "twemoji",
    "emojione": "emojione",
    "fxemoji": "fxemoji",
    "streamline-emojis": "streamline",
}
LICENCES = {"Apache-2.0", "CC-BY-4.0", "MIT"}
# The MIT licence asks that its text and the copyright lines go with every copy.
MIT = """Copyright (c) Microsoft Corporation (fluent-emoji, fluent-emoji-flat)
Copyright (c) 2017-2019 Miles Johnson (emojibase-data)

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
MIN_SETS = 5
SIDE = 64
RENDER_SIDE = 512  # pixels; scaled down afterwards, so that thin outlines survive

SCHEMA = pa.schema(
    [
        ("noun", pa.string()),
        ("plural", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("set", pa.string()),
        ("vendor", pa.string()),
        ("author", pa.string()),
        ("licence", pa.string()),
        ("webp", pa.binary()),
    ]
)


def slug(label: str) -> str:
    """The icon name that most sets derive from an emoji's label: "man’s shoe" -> "mans-shoe"."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower().replace("’", "")).strip("-")


class IconSet:
    """One iconify set: SVG text by icon name, author and licence."""

    def __init__(self, package: Path, name: str, collection: dict):
        data = _read(package / "json" / f"{name}.json")
        self.name = name
        self.author = collection["author"]["name"]
        self.url = collection["author"].get("url", "")
        self.licence = collection["license"]["spdx"]
        if self.licence not in LICENCES:
            raise SystemExit(f"{name}: licence {self.licence} is not one of {sorted(LICENCES)}.")
        self._data = data
        self._parents = {alias: entry["parent"] for alias, entry in data.get("aliases", {}).items()}

    def find(self, label: str, names: str) -> str | None:
        """The name of this set's icon for an emoji label and the list's `names`, or None if it has none."""
        words = names.split()
        if f"-{self.name}" in words:
            return None
        own = [word.partition("=")[2] for word in words if word.startswith(f"{self.name}=")]
        candidates = own or [slug(label), *(word for word in words if "=" not in word and word[0] != "-")]
        for name in candidates:
            for variant in (name, name.replace("-", "")):
                variant = self._parents.get(variant, variant)
                if variant in self._data["icons"]:
                    return variant
        return None

    def svg(self, name: str) -> str:
        """The icon as a standalone SVG document."""
        icon = self._data["icons"][name]
        left, top, width, height = (
            icon.get(key, self._data.get(key, default))
            for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        )
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
        )


def sprite(svg: str) -> bytes:
    """The drawing as a [64, 64] RGBA WebP: trimmed to what is visible, longest side 64, centred."""
    rendered = resvg_py.svg_to_bytes(svg_string=svg, width=RENDER_SIDE, skip_system_fonts=True)
    image = Image.open(io.BytesIO(bytes(rendered))).convert("RGBA")
    visible = image.getchannel("A").point(lambda alpha: 255 if alpha > 16 else 0)
    image = image.crop(visible.getbbox())
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # "RGBa" is premultiplied: invisible pixels do not bleed their colour into the edge
    image = image.convert("RGBa").resize(size, Image.Resampling.BOX).convert("RGBA")
    canvas = Image.new("RGBA", (SIDE, SIDE))
    canvas.paste(image, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    out = io.BytesIO()
    canvas.save(out, "WEBP", quality=80, alpha_quality=90, method=6)
    return out.getvalue()


def rows(nouns: list[dict[str, str]], emoji: dict[str, dict], sets: list[IconSet]) -> Iterator[dict]:
    """Rows of the bank, in the order of the list; stops on a noun that too few sets draw."""
    for entry in nouns:
        found = [(icons, icons.find(entry["label"], entry["names"])) for icons in sets]
        drawn = [(icons, name) for icons, name in found if name is not None]
        if len(drawn) < MIN_SETS:
            raise SystemExit(f"{entry['noun']}: only {len(drawn)} sets draw it, {MIN_SETS} are needed.")
        for icons, name in drawn:
            yield {
                "noun": entry["noun"],
                "plural": entry["plural"],
                "tags": emoji[entry["label"]]["tags"],
                "set": icons.name,
                "vendor": VENDORS[icons.name],
                "author": icons.author,
                "licence": icons.licence,
                "webp": sprite(icons.svg(name)),
            }


def attribution(sets: list[IconSet], table: pa.Table, versions: list[str]) -> str:
    """The text of ATTRIBUTION.md: who drew what, under which licence, and what was changed."""
    counts = {name: table["set"].to_pylist().count(name) for name in VENDORS}
    lines = "\n".join(
        f"| {s.name} | {VENDORS[s.name]} | {s.author} | {s.licence} | {counts[s.name]} | <{s.url}> |"
        for s in sets
    )
    return f"""# Attribution

The drawings in `sprites.parquet` come from the icon sets below, as packed in {versions[0]};
the tags come from {versions[1]} (MIT, Miles Johnson). `scripts/build_sprites.py` made the file.
Changes: each drawing was rasterised, trimmed to its visible part, scaled to 64 pixels on its longest side and
stored as lossy WebP; nouns were given by hand. Authors and licences are those that the icon package states;
they stand beside every sprite in the file.

| set | vendor | author | licence | sprites | source |
|---|---|---|---|---|---|
{lines}

Licence texts: [Apache-2.0](https://www.apache.org/licenses/LICENSE-2.0),
[CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/), MIT below.
None of the authors endorses this project.

## MIT

{MIT}"""


def _read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("iconify", type=Path, help="folder of the unpacked package @iconify/json")
    parser.add_argument("emojibase", type=Path, help="folder of the unpacked package emojibase-data")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for sprites.parquet and ATTRIBUTION.md"
    )
    args = parser.parse_args()

    collections = _read(args.iconify / "collections.json")
    sets = [IconSet(args.iconify, name, collections[name]) for name in VENDORS]
    data = _read(args.emojibase / "en" / "data.json")
    emoji = {entry["label"]: entry for entry in data}
    with (Path(__file__).parent / "nouns.tsv").open(encoding="utf-8", newline="") as file:
        nouns = list(csv.DictReader(file, delimiter="\t", restval=""))

    table = pa.Table.from_pylist(list(rows(nouns, emoji, sets)), schema=SCHEMA)
    pq.write_table(table, args.out / "sprites.parquet", compression="zstd")
    packages = [_read(folder / "package.json") for folder in (args.iconify, args.emojibase)]
    versions = [f"the npm package {package['name']} {package['version']}" for package in packages]
    (args.out / "ATTRIBUTION.md").write_text(attribution(sets, table, versions), encoding="utf-8")


if __name__ == "__main__":
    main()
