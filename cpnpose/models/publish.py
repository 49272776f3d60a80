"""Entering a weights file into the manifest, with what its own metadata say."""

from __future__ import annotations

import shutil
from pathlib import Path

from cpnpose.errors import OutputError
from cpnpose.models.manifest import Entry, Manifest, check_entry, file_sha256, update_entry
from cpnpose.models.weights import read_metadata
from cpnpose.whole_file import whole_file


def add_weights(
    manifest: Manifest,
    path: str | Path,
    *,
    name: str | None = None,
    url: str | None = None,
    default: bool = False,
    overwrite: bool = False,
) -> Entry:
    """Enter a weights file into ``manifest`` and write the manifest. An entry of the same name is replaced.

    Args:
        manifest: of the folder that the file is shipped in. The file is copied there if it lies elsewhere, unless a
            ``url`` says that it is to be downloaded.
        path: the weights file.
        name: of the entry; by default the name in the file's metadata, else the file's name without its ending.
        url: where users can download the file.
        default: make it the default of its kind.
        overwrite: replace another file of this name in the manifest's folder.

    Returns:
        The entry.

    Raises:
        WeightsError: the file is damaged or not one of ours, or the name cannot be used.
        OutputError: the folder cannot be written, or holds another file of this name, or one that is another entry's.
    """
    source = Path(path)
    metadata = read_metadata(source)
    entry = Entry(
        name=name or metadata.name or source.stem,
        kind=metadata.kind,
        file=source.name,
        sha256=file_sha256(source),
        licence=metadata.licence,
        data=metadata.data,
        metrics=metadata.metrics,
        url=url,
    )
    check_entry(entry)  # before anything is copied
    target = manifest.folder / source.name
    for other in manifest.entries.values():
        if other.file == entry.file and other.name != entry.name and other.sha256 != entry.sha256:
            raise OutputError(f"{target} is the file of the weights {other.name!r}; give {source} another name")
    if url is None and not (target.exists() and target.samefile(source)):
        if target.exists() and not overwrite and file_sha256(target) != entry.sha256:
            raise OutputError(f"{target} is another file already; use --overwrite to replace it")
        with whole_file(target) as temporary:
            shutil.copyfile(source, temporary)
    update_entry(manifest, entry, default=default)
    return entry
