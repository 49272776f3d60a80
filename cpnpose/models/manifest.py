"""The manifest of weights: which names exist, which file each is, and where on this machine it lies."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from cpnpose.errors import WeightsError
from cpnpose.whole_file import whole_file

MANIFEST_FILE = "manifest.toml"
EntryKind = Literal["pose", "detector"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Entry:
    """One weights file of the manifest."""

    name: str
    kind: EntryKind
    file: str
    """Name of the file, without a folder."""
    sha256: str
    """Of the whole file, 64 lower-case hex digits."""
    licence: str = ""
    data: str = ""
    metrics: Mapping[str, float | int | str] = field(default_factory=dict)
    url: str | None = None
    """Where the file can be downloaded, or None where it is shipped."""


@dataclass(frozen=True)
class Manifest:
    """All entries, by name, and the names that are used when the user names none."""

    folder: Path
    """Where the manifest lies; shipped weights lie beside it."""
    entries: Mapping[str, Entry] = field(default_factory=dict)
    default_pose: str | None = None
    default_detector: str | None = None

    def entry(self, name: str) -> Entry:
        """The entry called ``name``; ``default`` is the default pose network.

        Raises:
            WeightsError: there is none.
        """
        if name == "default":
            if self.default_pose is None:
                raise WeightsError(
                    f"{self.folder / MANIFEST_FILE} names no default pose weights; give a weights file by its path"
                )
            name = self.default_pose
        if name not in self.entries:
            known = ", ".join(sorted(self.entries)) or "none so far"
            raise WeightsError(f"there are no weights called {name!r}; known: {known}. Or give the path of a file")
        return self.entries[name]

    def find(self, entry: Entry) -> Path | None:
        """The entry's file: beside the manifest, else among the downloaded ones, else None."""
        shipped = self.folder / entry.file
        if shipped.is_file():
            return shipped
        downloaded = cache_folder() / entry.file
        return downloaded if downloaded.is_file() else None


def shipped_folder() -> Path:
    """The folder of the shipped weights: inside an installed package, else the repository's ``weights/``."""
    inside = _PACKAGE / "shipped_weights"
    return inside if inside.is_dir() else _PACKAGE.parent / "weights"


def cache_folder() -> Path:
    """Where downloaded weights lie: ``$CPNPOSE_CACHE``, else the place that the system gives to such files.

    Raises:
        WeightsError: the user has no home folder, as in a container, and the environment names no other place.
    """
    try:
        if chosen := os.environ.get("CPNPOSE_CACHE"):
            return Path(chosen).expanduser()
        if sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        elif sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise WeightsError(f"no folder for downloaded weights ({error}); set CPNPOSE_CACHE to one") from error
    return base / "cpnpose" / "weights"


def load_manifest(folder: str | Path | None = None) -> Manifest:
    """Read ``manifest.toml`` of ``folder`` (default: the shipped folder). Without the file there are no entries.

    Raises:
        WeightsError: the file is not what a manifest looks like.
    """
    place = shipped_folder() if folder is None else Path(folder)
    path = place / MANIFEST_FILE
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Manifest(place)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot read the manifest ({error}); mend it or install cpnpose anew") from error
    try:
        rows = tables.get("weights", {})
        entries = {name: _checked(Entry(name=name, **row)) for name, row in rows.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path}: {error}; mend it or install cpnpose anew") from error
    manifest = Manifest(place, entries, tables.get("default_pose"), tables.get("default_detector"))
    for kind, name in (("pose", manifest.default_pose), ("detector", manifest.default_detector)):
        if name is not None and (name not in entries or entries[name].kind != kind):
            raise WeightsError(f"{path}: default_{kind} = {name!r} is no {kind} entry; mend it")
    return manifest


def locate(name: str, manifest: Manifest | None = None) -> Path:
    """The file of the entry called ``name``.

    Raises:
        WeightsError: there is no such entry, or its file is not on this machine.
    """
    manifest = manifest or load_manifest()
    entry = manifest.entry(name)
    path = manifest.find(entry)
    if path is None:
        remedy = f"run 'cpnpose weights download {entry.name}'" if entry.url else "install cpnpose anew"
        raise WeightsError(f"{entry.file} of the weights {entry.name!r} is not in {manifest.folder}; {remedy}")
    return path


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, 64 lower-case hex digits.

    Raises:
        WeightsError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot read it ({error.strerror}); check the path") from error


def verify(manifest: Manifest, entry: Entry) -> Path:
    """Check the entry's file against its sha256.

    Returns:
        The file.

    Raises:
        WeightsError: the file is not on this machine, or its content is another.
    """
    path = locate(entry.name, manifest)
    found = file_sha256(path)
    if found != entry.sha256:
        remedy = f"delete it and run 'cpnpose weights download {entry.name}'" if entry.url else "install cpnpose anew"
        raise WeightsError(f"{path} is damaged: sha256 {found} instead of {entry.sha256}; {remedy}")
    return path


def update_entry(manifest: Manifest, entry: Entry, *, default: bool = False) -> Manifest:
    """Put ``entry`` into the manifest, in the place of one of the same name, and write the file anew.

    Args:
        manifest: to change; the object itself is not.
        entry: the new one.
        default: make it the default of its kind. The first entry of a kind becomes the default anyway.

    Raises:
        WeightsError: the entry has a bad name, file name, kind or sha256.
        OutputError: the manifest cannot be written.
    """
    check_entry(entry)
    changed = replace(manifest, entries={**manifest.entries, entry.name: entry})
    if entry.kind == "pose" and (default or manifest.default_pose is None):
        changed = replace(changed, default_pose=entry.name)
    if entry.kind == "detector" and (default or manifest.default_detector is None):
        changed = replace(changed, default_detector=entry.name)
    write_manifest(changed)
    return changed


def check_entry(entry: Entry) -> None:
    """Raise a WeightsError where an entry has a bad name, file name, kind or sha256."""
    try:
        _checked(entry)
    except ValueError as error:
        raise WeightsError(f"{error}; give another") from error


def write_manifest(manifest: Manifest) -> None:
    """Write ``manifest.toml`` into the manifest's folder, whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    lines = ["# The weights that cpnpose knows by name; written by 'cpnpose weights add'."]
    for key in ("default_pose", "default_detector"):
        if (value := getattr(manifest, key)) is not None:
            lines.append(f"{key} = {_toml(value)}")
    for name, entry in sorted(manifest.entries.items()):
        lines += ["", f"[weights.{_toml(name)}]"]
        lines += [f"{key} = {_toml(getattr(entry, key))}" for key in ("kind", "file", "sha256", "licence", "data")]
        lines += [f"url = {_toml(entry.url)}"] if entry.url is not None else []
        lines += ["metrics = {" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in entry.metrics.items()) + "}"]
    with whole_file(manifest.folder / MANIFEST_FILE) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _checked(entry: Entry) -> Entry:
    if not _NAME.fullmatch(entry.name) or entry.name == "default":
        raise ValueError(f"{entry.name!r} is no name for weights (letters, digits, '.', '_', '-'; not 'default')")
    if not _NAME.fullmatch(entry.file):
        raise ValueError(f"{entry.name}: {entry.file!r} is no plain file name")
    if entry.kind not in get_args(EntryKind):
        raise ValueError(f"{entry.name}: {entry.kind!r} is no kind of weights (pose, detector)")
    if not _SHA256.fullmatch(entry.sha256):
        raise ValueError(f"{entry.name}: {entry.sha256!r} is no sha256 of 64 lower-case hex digits")
    return entry


def _toml(value: str | float | int) -> str:
    # A JSON string is a TOML basic string but for DEL, which TOML wants escaped; numbers are the same in both.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
