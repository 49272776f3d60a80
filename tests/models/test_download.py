from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from cpnpose.errors import OptionError, OutputError, WeightsError
from cpnpose.models.download import download, download_entry
from cpnpose.models.manifest import Entry, Manifest

CONTENT = np.random.default_rng(0).bytes(700_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """A server on this machine that gives CONTENT, and notes what it was asked for."""

    url: str = ""
    ranges: bool = True
    breaks_after: int | None = None
    """Closes the connection after so many bytes of an answer, once."""
    wrong_range: bool = False
    asked: list[str | None] = field(default_factory=list)
    """The Range header of each request."""


@pytest.fixture
def site() -> Iterator[Site]:
    state = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            if self.path in ("/moved", "/circle"):
                self.send_response(302)
                self.send_header("Location", "/file" if self.path == "/moved" else "/circle")
                self.end_headers()
                return
            if self.path not in ("/file", "/no-length", "/odd-length"):
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.ranges else 0
            if start >= len(CONTENT):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
                self.end_headers()
                return
            body = CONTENT[start:]
            self.send_response(206 if start else 200)
            if start:
                told = start + 1 if state.wrong_range else start
                self.send_header("Content-Range", f"bytes {told}-{len(CONTENT) - 1}/{len(CONTENT)}")
            if self.path == "/file":
                self.send_header("Content-Length", str(len(body)))
            if self.path == "/odd-length":
                self.send_header("Content-Length", "unknown")
            self.end_headers()
            if state.breaks_after is not None:
                body, state.breaks_after = body[: state.breaks_after], None
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/file"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_download_gives_the_file_and_tells_how_far_it_is(site: Site, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "new" / "w.safetensors"
    download(site.url, target, SHA256, progress=lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert _names(target.parent) == ["w.safetensors"]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert len(seen) > 2


def test_redirects_and_answers_without_length(site: Site, tmp_path: Path) -> None:
    download(site.url.replace("/file", "/moved"), tmp_path / "a", SHA256)
    seen: list[tuple[int, int | None]] = []
    download(site.url.replace("/file", "/no-length"), tmp_path / "b", SHA256, progress=lambda *step: seen.append(step))
    assert seen[-1] == (len(CONTENT), None)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == CONTENT


def test_broken_download_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "w"
    site.breaks_after = 300_000
    with pytest.raises(WeightsError, match=r"broke off .*300000 of 700000.*run it again"):
        download(site.url, target, SHA256)
    assert _names(tmp_path) == ["w.part"]
    assert (tmp_path / "w.part").read_bytes() == CONTENT[:300_000]
    seen: list[tuple[int, int | None]] = []
    download(site.url, target, SHA256, progress=lambda done, total: seen.append((done, total)))
    assert site.asked == [None, "bytes=300000-"]
    assert seen[0] == (300_000, len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert _names(tmp_path) == ["w"]


def test_server_without_ranges_sends_everything_again(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    (tmp_path / "w.part").write_bytes(CONTENT[:1000])
    download(site.url, tmp_path / "w", SHA256)
    assert site.asked == ["bytes=1000-"]
    assert (tmp_path / "w").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"other content", CONTENT + b"too long", b"x" * len(CONTENT)])
def test_a_wrong_part_is_fetched_anew(site: Site, tmp_path: Path, part: bytes) -> None:
    (tmp_path / "w.part").write_bytes(part)
    download(site.url, tmp_path / "w", SHA256)
    assert (tmp_path / "w").read_bytes() == CONTENT
    assert site.asked == [f"bytes={len(part)}-", None]
    assert _names(tmp_path) == ["w"]


def test_a_complete_part_needs_no_bytes(site: Site, tmp_path: Path) -> None:
    (tmp_path / "w.part").write_bytes(CONTENT)
    download(site.url, tmp_path / "w", SHA256)
    assert (tmp_path / "w").read_bytes() == CONTENT
    assert site.asked == [f"bytes={len(CONTENT)}-"]


def test_another_range_than_asked_for_is_refused(site: Site, tmp_path: Path) -> None:
    site.wrong_range = True
    (tmp_path / "w.part").write_bytes(CONTENT[:1000])
    with pytest.raises(WeightsError, match="another range"):
        download(site.url, tmp_path / "w", SHA256)
    assert (tmp_path / "w.part").read_bytes() == CONTENT[:1000]


def test_wrong_content_is_deleted_and_the_old_file_stays(site: Site, tmp_path: Path) -> None:
    (tmp_path / "w").write_text("old")
    with pytest.raises(WeightsError, match=f"sha256 {SHA256} instead of {'0' * 64}"):
        download(site.url, tmp_path / "w", "0" * 64)
    assert _names(tmp_path) == ["w"]
    assert (tmp_path / "w").read_text() == "old"


def test_refusals_of_the_server_are_told(site: Site, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"/absent: the server answers 404"):
        download(site.url.replace("/file", "/absent"), tmp_path / "w", SHA256)
    assert _names(tmp_path) == []


def test_odd_answers_are_told_in_one_line_or_read(site: Site, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"^\S+/circle: the server answers 302 .+; check the address or try later$"):
        download(site.url.replace("/file", "/circle"), tmp_path / "w", SHA256)
    download(site.url.replace("/file", "/odd-length"), tmp_path / "w", SHA256)
    assert (tmp_path / "w").read_bytes() == CONTENT


def test_no_server_is_told(tmp_path: Path) -> None:
    closed = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    port = closed.server_address[1]
    closed.server_close()
    with pytest.raises(WeightsError, match=rf"127\.0\.0\.1:{port}/w: the download broke off"):
        download(f"http://127.0.0.1:{port}/w", tmp_path / "w", SHA256)


def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/w"
        with pytest.raises(WeightsError, match="timed out"):
            download(url, tmp_path / "w", SHA256, timeout_s=0.2)


def test_bad_addresses_and_folders(site: Site, tmp_path: Path) -> None:
    for url in ("file:///etc/hostname", "ftp://localhost/w", "w"):
        with pytest.raises(OptionError, match="only http and https"):
            download(url, tmp_path / "w", SHA256)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file/w"):
        download(site.url, tmp_path / "file" / "w", SHA256)


def test_entries_are_fetched_once(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPNPOSE_CACHE", str(tmp_path / "cache"))
    far, near = Entry("far", "pose", "far.safetensors", SHA256, url=site.url), Entry("near", "pose", "near.s", SHA256)
    manifest = Manifest(tmp_path / "shipped", {"far": far, "near": near})
    path = tmp_path / "cache" / "far.safetensors"
    assert download_entry(manifest, "far") == path
    assert download_entry(manifest, "far") == path
    assert len(site.asked) == 1
    path.write_bytes(b"damaged")
    assert download_entry(manifest, "far").read_bytes() == CONTENT
    assert len(site.asked) == 2
    with pytest.raises(WeightsError, match="'near' have no address"):
        download_entry(manifest, "near")
    with pytest.raises(WeightsError, match="no weights called 'else'"):
        download_entry(manifest, "else")
