"""Downloads of weights: resumed where they broke off, checked by sha256, and under their name only when whole."""

from __future__ import annotations

import http.client
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from cpnpose.errors import OptionError, WeightsError
from cpnpose.models.manifest import Entry, Manifest, cache_folder, file_sha256
from cpnpose.whole_file import write_error

Progress = Callable[[int, int | None], None]
"""Called with the bytes at hand (those of an earlier try included) and the bytes of the whole file, or None."""
_CHUNK = 1 << 18
_TIMEOUT_S = 30.0


def download_entry(
    manifest: Manifest, name: str, *, folder: Path | None = None, progress: Progress | None = None
) -> Path:
    """Fetch the weights called ``name`` into ``folder`` (default: the cache folder), unless they are at hand and whole.

    Returns:
        The file.

    Raises:
        WeightsError: there is no such entry, it carries no address, or see :func:`download`.
        OutputError: the folder cannot be written.
    """
    entry: Entry = manifest.entry(name)
    at_hand = manifest.find(entry) if folder is None else folder / entry.file
    if at_hand is not None and at_hand.is_file() and file_sha256(at_hand) == entry.sha256:
        return at_hand
    if entry.url is None:
        raise WeightsError(f"the weights {entry.name!r} have no address to download from; install cpnpose anew")
    target = (folder or cache_folder()) / entry.file
    download(entry.url, target, entry.sha256, progress=progress)
    return target


def download(
    url: str, target: Path, sha256: str, *, progress: Progress | None = None, timeout_s: float = _TIMEOUT_S
) -> None:
    """Fetch ``url`` to ``target``.

    What arrives is kept in ``target`` with ``.part`` added. If such a file is there, only the rest is asked for.
    A server that cannot do that sends everything again; so it is done as well if the joined parts turn out wrong.

    Args:
        url: http or https.
        target: the file; replaced once the new one is whole and right.
        sha256: 64 lower-case hex digits that the file must have.
        progress: called after each piece.
        timeout_s: seconds without a byte after which the server counts as gone.

    Raises:
        WeightsError: no connection, the server refuses, the connection breaks (what came is kept), or wrong content
            (it is deleted).
        OutputError: ``target`` cannot be written.
        OptionError: the address is neither http nor https.
    """
    if not url.startswith(("https://", "http://")):
        raise OptionError(f"{url}: only http and https addresses can be downloaded")
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        resumed = part.is_file() and part.stat().st_size > 0
        _fetch(url, part, progress or (lambda done, total: None), timeout_s)
        if resumed and file_sha256(part) != sha256:
            part.unlink()  # the file on the server has changed since, or the old part was damaged
            _fetch(url, part, progress or (lambda done, total: None), timeout_s)
        found = file_sha256(part)
        if found != sha256:
            part.unlink()
            raise WeightsError(
                f"{url} does not give the expected file: sha256 {found} instead of {sha256}; deleted. Update cpnpose, "
                "or tell those who host the file"
            )
        os.replace(part, target)
    except urllib.error.HTTPError as error:
        raise WeightsError(
            f"{url}: the server answers {error.code} {_in_a_line(error.reason)}; check the address or try later"
        ) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise WeightsError(
            f"{url}: the download broke off ({_in_a_line(reason)}); run it again, it goes on from there"
        ) from error
    except OSError as error:
        raise write_error(target, error) from error


def _fetch(url: str, part: Path, progress: Progress, timeout_s: float) -> None:
    """Bring ``part`` to the whole length of ``url``."""
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "cpnpose"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        error.close()
        if error.headers.get("Content-Range", "").removeprefix("bytes */") == str(start):
            return  # nothing is left to fetch
        part.unlink()
        _fetch(url, part, progress, timeout_s)
        return
    with response:
        if start and not _continues(response, start):
            start = 0
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        done = start
        with part.open("ab" if start else "wb") as file:
            progress(done, total)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"after {done} of {total} bytes")


def _in_a_line(reason: object) -> str:
    """What Python says of redirects and of servers that speak no HTTP has line breaks."""
    return " ".join(str(reason).split())


def _continues(response: http.client.HTTPResponse, start: int) -> bool:
    """Whether the answer is the rest from byte ``start``, and not the whole file."""
    if response.status != http.client.PARTIAL_CONTENT:
        return False
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != start:
        raise ConnectionError(f"the server sent another range than asked for ({response.headers.get('Content-Range')})")
    return True
