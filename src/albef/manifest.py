"""Manifests: the proof that what is read is what was written.

A manifest proves nothing against malice (who can change a file can change its manifest): it finds damage.
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
LARGEST = 10_000_000  # bytes of a manifest that are read at most
LONGEST_REASON = 300  # characters of a library's message that a user is shown

HashName = Literal["xxh3-128", "sha256"]
# The first is as fast as memory; the second is what strangers can compare published files by.
HASHES: dict[str, Callable[[], Any]] = {"xxh3-128": xxhash.xxh3_128, "sha256": hashlib.sha256}


class Damaged(UserError):
    """A folder whose files are not those of its manifest; the message names them."""


@dataclass(frozen=True)
class Manifest:
    """What a folder holds: name, size and hash of each file, and what its writer noted."""

    files: dict[str, dict[str, Any]]  # {"bytes": …, the hash's name: hexadecimal} by name
    facts: dict[str, Any]
    seal: str  # the hash of all the above, by which the whole is known


def write_manifest(folder: Path, hash_name: HashName, facts: Mapping[str, Any]) -> Manifest:
    """The manifest of all files that are in the folder, now written beside them; call it last."""
    files = {
        file.name: {"bytes": file.stat().st_size, hash_name: digest(file, hash_name)}
        for file in sorted(folder.iterdir())
        if file.name != MANIFEST_FILE
    }
    noted: dict[str, Any] = json.loads(json.dumps(facts))  # as it is read back: lists for tuples
    manifest = Manifest(files, noted, seal_of(files, noted))
    (folder / MANIFEST_FILE).write_text(rendered(manifest), "utf-8")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder; raises `Damaged` when it is missing or not as it was written."""
    file = folder / MANIFEST_FILE
    try:
        if not file.is_file():
            raise Damaged(f"{folder}: has no {MANIFEST_FILE}, so nothing proves that it is whole.")
        with file.open("rb") as handle:
            text = handle.read(LARGEST + 1).decode("utf-8")
        content = json.loads(text)
        version = content["format_version"]
        files = {name: dict(expected) for name, expected in dict(content["files"]).items()}
        manifest = Manifest(files, dict(content["facts"]), content["seal"])
        # Byte for byte, so that no change can hide in a number's digits or in white space.
        intact = text == rendered(manifest) and manifest.seal == seal_of(manifest.files, manifest.facts)
    except Damaged:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"{file}: this manifest can't be read ({plain(error)}).") from None
    if not intact:
        known = version == FORMAT_VERSION
        reason = "is damaged" if known else f"is of format {version}, this albef reads {FORMAT_VERSION}"
        raise Damaged(f"{file}: this manifest {reason}.")
    return manifest


def verify(folder: Path, names: Collection[str] = ()) -> Manifest:
    """The manifest of a folder whose files are as it says; `names` limits the look to some of them.

    Raises `Damaged`, which names every file that is missing, of another size or of another content.
    """
    manifest = read_manifest(folder)
    wanted = [name for name in manifest.files if not names or name in names]
    with ThreadPoolExecutor() as readers:  # hashing is as fast as one core reads
        faults = readers.map(lambda name: fault(folder, name, manifest.files[name]), wanted)
        problems = [problem for problem in faults if problem]
    if problems:
        raise Damaged(f"{folder}: {'; '.join(problems)}. Restore it, or copy it again.")
    return manifest


def fault(folder: Path, name: str, expected: Mapping[str, Any]) -> str:
    """What is wrong with a file of a manifest, in words; empty when nothing is."""
    if Path(name).name != name or name in ("", ".", ".."):
        return f"the manifest names {name!r}, which is not in this folder"
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
    """The hash by which a whole folder is known."""
    content = json.dumps([FORMAT_VERSION, files, facts], sort_keys=True)
    return xxhash.xxh3_128_hexdigest(content.encode())


def rendered(manifest: Manifest) -> str:
    """A manifest as it stands in its file."""
    content = {
        "format_version": FORMAT_VERSION,
        "seal": manifest.seal,
        "files": manifest.files,
        "facts": manifest.facts,
    }
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def plain(error: BaseException) -> str:
    """The beginning of an error's message on one line, without a stop."""
    return " ".join((str(error) or type(error).__name__).split())[:LONGEST_REASON].rstrip(".")
