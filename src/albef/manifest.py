"""Manifests: they show that files are still as they were written.

A manifest finds damage, not malice: whoever can change a file can change its manifest too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import xxhash

from albef.config import UserError

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 1
LARGEST = 10_000_000  # bytes of a manifest, at most
LONGEST_REASON = 300  # characters of a library's message that users see

HashName = Literal["xxh3-128", "sha256"]
# The first is as fast as memory. The second is the common one, for comparing published files.
HASHES: dict[str, Callable[[], Any]] = {"xxh3-128": xxhash.xxh3_128, "sha256": hashlib.sha256}


class Damaged(UserError):
    """A folder's files do not match its manifest. The message names them."""


@dataclass(frozen=True)
class Manifest:
    """A folder's content: name, size and hash of each file, and facts noted by the writer."""

    files: dict[str, dict[str, Any]]  # {"bytes": …, the hash's name: hexadecimal} by name
    facts: dict[str, Any]
    seal: str  # the hash of all the above


def write_manifest(folder: Path, hash_name: HashName, facts: Mapping[str, Any]) -> Manifest:
    """Writes and returns the manifest of all files in the folder. Call it last."""
    files = {
        file.name: {"bytes": file.stat().st_size, hash_name: digest(file, hash_name)}
        for file in sorted(folder.iterdir())
        if file.name != MANIFEST_FILE
    }
    noted: dict[str, Any] = json.loads(json.dumps(facts))  # as it will be read back: lists instead of tuples
    manifest = Manifest(files, noted, seal_of(files, noted))
    (folder / MANIFEST_FILE).write_text(rendered(manifest), "utf-8")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder. Raises `Damaged` if it is missing or was changed."""
    file = folder / MANIFEST_FILE
    try:
        if not file.is_file():
            raise Damaged(f"{folder}: has no {MANIFEST_FILE}, so it may be incomplete.")
        with file.open("rb") as handle:
            text = handle.read(LARGEST + 1).decode("utf-8")
        content = json.loads(text)
        version = content["format_version"]
        files = {name: dict(expected) for name, expected in dict(content["files"]).items()}
        manifest = Manifest(files, dict(content["facts"]), content["seal"])
        # Compared byte by byte, so that no change of digits or spaces is missed.
        intact = text == rendered(manifest) and manifest.seal == seal_of(manifest.files, manifest.facts)
    except Damaged:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"{file}: this manifest cannot be read ({plain(error)}).") from None
    if not intact:
        known = version == FORMAT_VERSION
        reason = "is damaged" if known else f"has format {version}, but this albef reads {FORMAT_VERSION}"
        raise Damaged(f"{file}: this manifest {reason}.")
    return manifest


def verify(folder: Path, names: Collection[str] = ()) -> Manifest:
    """Checks the files of a folder against its manifest, and returns the manifest. `names` limits the check.

    Raises `Damaged`, which names every file that is missing or has another size or content.
    """
    manifest = read_manifest(folder)
    wanted = [name for name in manifest.files if not names or name in names]
    with ThreadPoolExecutor() as readers:  # hashing is limited by one core
        faults = readers.map(lambda name: fault(folder, name, manifest.files[name]), wanted)
        problems = [problem for problem in faults if problem]
    if problems:
        raise Damaged(f"{folder}: {'; '.join(problems)}. Restore it, or copy it again.")
    return manifest


def fault(folder: Path, name: str, expected: Mapping[str, Any]) -> str:
    """What is wrong with a file of a manifest, in words. Empty if nothing is."""
    if Path(name).name != name or name in ("", ".", ".."):
        return f"the manifest names {name!r}, which is outside of this folder"
    file = folder / name
    if not file.is_file():
        return f"{name} is missing"
    hash_name = next((known for known in HASHES if known in expected), None)
    if hash_name is None:
        return f"the manifest has no known hash of {name}"
    try:
        size = file.stat().st_size
        if size != expected.get("bytes"):
            return f"{name} has {size} bytes instead of {expected.get('bytes')}"
        if digest(file, hash_name) != expected[hash_name]:
            return f"the content of {name} is not what was written"
    except OSError as error:
        return f"{name} can't be read ({plain(error)})"
    return ""


def digest(file: Path, hash_name: str) -> str:
    """The hash of a file's content, hexadecimal."""
    with file.open("rb") as handle:
        return str(hashlib.file_digest(handle, HASHES[hash_name]).hexdigest())


def seal_of(files: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """The hash of a whole folder."""
    content = json.dumps([FORMAT_VERSION, files, facts], sort_keys=True)
    return xxhash.xxh3_128_hexdigest(content.encode())


def rendered(manifest: Manifest) -> str:
    """A manifest as the text of its file."""
    content = {
        "format_version": FORMAT_VERSION,
        "seal": manifest.seal,
        "files": manifest.files,
        "facts": manifest.facts,
    }
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def plain(error: BaseException) -> str:
    """The first part of an error's message, on one line, without a full stop."""
    return " ".join((str(error) or type(error).__name__).split())[:LONGEST_REASON].rstrip(".")
