"""The report page: its data, that it loads nothing, and that a real browser draws and plays it."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cpnpose.cli.main import app
from cpnpose.errors import InputError, OptionError, OutputError
from cpnpose.formats import Header, JsonlWriter, JsonWriter, read_record
from cpnpose.formats.report import write_report
from cpnpose.formats.report_breaks import BreakFinder
from cpnpose.formats.report_data import gather
from cpnpose.pose.types import FLAG_FILLED, FLAG_SWAPPED, Frame, FrameResult, Poses

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
HEADER = Header(source="a <b> </script>.mp4", size=(480, 640), fps=Fraction(25), extras=("track_ids", "flags"))


def frame(index: int, people: dict[int, float], *, score: float = 1.2, flags: int = 0) -> FrameResult:
    """people: id -> x of a person 200 pixels high, 25 frames a second."""
    count = len(people)
    x = np.array(list(people.values()), np.float32).reshape(count, 1, 1)
    shape = np.stack([np.linspace(-30, 30, 17) * (-1) ** np.arange(17), np.linspace(150, 340, 17)], axis=1)
    points = (shape[None] + x * (1, 0)).astype(np.float32)
    poses = Poses(
        keypoints_xy=points,
        keypoint_scores=np.full((count, 17), score, np.float32),
        scores=np.ones(count, np.float32),
        boxes_xyxy=np.concatenate([points.min(axis=1) - 5, points.max(axis=1) + 5], axis=1),
        box_scores=np.ones(count, np.float32),
        track_ids=np.array(list(people), np.int64),
        flags=np.full((count, 17), flags, np.uint8),
    )
    image = np.zeros((0, 0, 3), np.uint8)
    return FrameResult(Frame(index, index, Fraction(1, 25), index / 25, image), poses)


def clip() -> list[FrameResult]:
    """100 frames: 1 walks throughout; 2 is away from frame 40 to 69, uncertain from 80 to 84, and jumps at 90."""
    frames = []
    for index in range(100):
        people = {1: 100.0 + 2 * index}
        if not 40 <= index < 70:
            people[2] = 500.0 if index < 90 else 300.0
        if index == 20:
            people[-1] = 50.0
        frames.append(frame(index, people, score=0.6 if 80 <= index < 85 else 1.2, flags=FLAG_FILLED * (index == 10)))
    frames[95] = FrameResult(frames[95].frame, Poses.empty())
    frames[95] = replace(frames[95], poses=replace(Poses.empty(), track_ids=np.zeros(0, np.int64)))
    return frames


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "clip.jsonl"
    with JsonlWriter(path, HEADER) as writer:
        for result in clip():
            writer.write(result)
    return path


def page_data(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    result: dict[str, Any] = json.loads(found[1])
    return result


def column(data: dict[str, Any], name: str) -> np.ndarray:
    kinds = {"Float64Array": "<f8", "Int32Array": "<i4", "Int16Array": "<i2", "Uint8Array": "u1"}
    packed = data["columns"][name]
    return np.frombuffer(base64.b64decode(packed["data"]), kinds[packed["kind"]])


def test_page_holds_the_record(record: Path, tmp_path: Path) -> None:
    assert write_report(record, tmp_path / "page.html") == 100
    data = page_data(tmp_path / "page.html")
    frames = list(read_record(record)[1])
    assert (data["frameCount"], data["emptyFrames"], data["title"]) == (100, 1, HEADER.source)
    np.testing.assert_allclose(column(data, "time"), [r.frame.time_s for r in frames])
    first = column(data, "first")
    assert len(first) == 101
    for number in (0, 20, 50, 95, 99):
        rows = slice(first[number], first[number + 1])
        poses = frames[number].poses
        assert list(column(data, "id")[rows]) == list(poses.track_ids)  # type: ignore[arg-type]
        points = column(data, "xy").reshape(-1, 17, 2)[rows] / data["scale"]
        np.testing.assert_allclose(points, poses.keypoints_xy, atol=0.05)
    visits = {person["id"]: person["visits"] for person in data["people"]}
    assert visits == {1: [[0.0, 3.96]], 2: [[0.0, 1.56], [2.8, 3.96]]}


def test_breaks_are_found(record: Path) -> None:
    finder = BreakFinder()
    for result in clip():
        finder.add(result)
    found = {(b.kind, b.track_id): b for b in finder.breaks}
    assert set(found) == {
        ("gap", 1), ("gap", 2), ("jump", 2), ("low-confidence", 1), ("low-confidence", 2), ("filled", 1), ("filled", 2),
        ("no-id", -1),
    }  # fmt: skip
    gaps = [b for b in finder.breaks if b.kind == "gap" and b.track_id == 2]
    assert [(b.start_s, b.end_s, b.frames) for b in gaps] == [(1.56, 2.8, 30), (3.76, 3.84, 1)]
    low = found["low-confidence", 1]
    assert (low.start_s, low.end_s, low.frames) == (3.2, 3.36, 5)
    assert low.worst == pytest.approx(0.6)
    assert found["jump", 2].start_s == 3.6
    assert found["jump", 2].worst == pytest.approx(200 * 25 / 200, rel=0.01)
    swapped = BreakFinder()
    swapped.add(frame(0, {1: 50.0}, flags=FLAG_SWAPPED))
    assert [b.kind for b in swapped.breaks] == ["swapped"]


def test_many_breaks_and_long_records_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    finder = BreakFinder()
    for index in range(3000):
        finder.add(frame(index, {1: 50.0} if index % 2 else {}))
    assert (len(finder.breaks), finder.counts["gap"]) == (500, 1499)
    monkeypatch.setattr("cpnpose.formats.report_data.MOST_ROWS", 60)
    data = gather(HEADER, lambda: iter(clip()))
    assert data["every"] == 3
    assert list(column(data, "index")) == list(range(0, 100, 3))
    assert data["frameCount"] == 100


def test_odd_records(tmp_path: Path) -> None:
    """No ids, NaN keypoints, no size, a single frame; .json as well."""
    poses = replace(frame(0, {1: 60.0}).poses, track_ids=None, flags=None)
    poses.keypoints_xy[0, 3] = np.nan
    record = tmp_path / "odd.json"
    with JsonWriter(record, Header(source="odd.mp4")) as writer:
        writer.write(replace(frame(0, {}), poses=poses))
    assert write_report(record, tmp_path / "odd.html") == 1
    data = page_data(tmp_path / "odd.html")
    assert data["people"] == []
    assert data["breakCounts"] == {"no-id": 1}
    assert (column(data, "xy").reshape(17, 2)[3] == -32768).all()


def test_errors(record: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        write_report(record, page)
    assert page.read_text() == "mine"
    write_report(record, page, overwrite=True)
    with JsonlWriter(tmp_path / "empty.jsonl", HEADER):
        pass
    with pytest.raises(InputError, match="without frames"):
        write_report(tmp_path / "empty.jsonl", tmp_path / "empty.html")
    assert not (tmp_path / "empty.html").exists()
    with JsonlWriter(tmp_path / "images.jsonl", replace(HEADER, kind="images")):
        pass
    with pytest.raises(OptionError, match="images"):
        write_report(tmp_path / "images.jsonl", tmp_path / "images.html")


def test_command(record: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(record)])
    assert result.exit_code == 0, result.output
    assert page_data(tmp_path / "clip.html")["frameCount"] == 100
    assert CliRunner().invoke(app, ["report", str(record)]).exit_code == OutputError.exit_code


def test_page_asks_for_nothing_from_outside(record: Path, tmp_path: Path) -> None:
    write_report(record, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|\bsrc=|\bhref=|fetch\(|XMLHttpRequest", text)
    assert "@@" not in text
    assert "default-src 'none'" in text
    assert text.count("</script>") == 2
    assert "<title>a &lt;b&gt; &lt;/script&gt;.mp4: poses</title>" in text


PROBE = """
<script>
const seen = { errors: [] };
// The virtual time of the headless mode brings hardly any animation frames; timers follow it.
window.requestAnimationFrame = (callback) => setTimeout(() => callback(performance.now()), 16);
window.addEventListener("error", (event) => seen.errors.push(event.message));
const paint = (id) => {
  const canvas = document.getElementById(id);
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let painted = 0, sum = 0;
  for (let i = 0; i < pixels.length; i += 4) {
    painted += pixels[i + 3] > 0;
    sum = (sum * 31 + pixels[i] + 2 * pixels[i + 1] + 3 * pixels[i + 2] + pixels[i + 3]) % 1000003;
  }
  return [painted, sum];
};
const clock = () => document.getElementById("clock").textContent;
const key = (name) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
window.addEventListener("load", () => {
  seen.ready = document.body.dataset.ready;
  seen.title = document.getElementById("title").textContent;
  const canvases = ["player", "timeline", "confidence", "trajectories", "angles"];
  seen.painted = Object.fromEntries(canvases.map((id) => [id, paint(id)[0]]));
  seen.start = clock();
  const before = paint("player")[1];
  key("ArrowRight"); key("ArrowRight"); key("ArrowLeft");
  seen.stepped = clock();
  seen.redrawn = before !== paint("player")[1];
  document.querySelector("#breaks tbody tr:last-child").click();
  seen.sought = clock();
  const chart = document.getElementById("timeline");
  const middle = 52 + (chart.clientWidth - 64) / 2;
  const box = chart.getBoundingClientRect();
  chart.dispatchEvent(new MouseEvent("click", { clientX: box.left + middle, clientY: box.top + 10, bubbles: true }));
  seen.clicked = clock();
  const angle = document.getElementById("angle");
  const drawn = paint("angles")[1];
  angle.value = "8";
  angle.dispatchEvent(new Event("change"));
  seen.angleChanged = drawn !== paint("angles")[1];
  const person = document.getElementById("person");
  const all = paint("player")[0];
  person.value = "2";
  person.dispatchEvent(new Event("change"));
  seen.onlyOne = paint("player")[0] < all;
  person.value = "0";
  person.dispatchEvent(new Event("change"));
  document.getElementById("speed").value = "4";
  document.getElementById("speed").dispatchEvent(new Event("change"));
  key(" ");
  seen.playing = document.getElementById("play").textContent;
  const began = performance.now();
  const watch = setInterval(() => {
    seen.stopped = document.getElementById("play").textContent;
    if (seen.stopped === "Stop" && performance.now() - began < 25000) return;
    clearInterval(watch);
    seen.played = clock();
    const result = document.createElement("pre");
    result.id = "probe";
    result.textContent = JSON.stringify(seen);
    document.body.append(result);
  }, 50);
});
</script>
"""


def in_browser(page: Path, profile: Path) -> str:
    """The page's document as the browser has made it after half a minute of the page's own time."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={profile}", "--window-size=1000,1400", "--virtual-time-budget=30000"]
    return subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=110, check=False
    ).stdout


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine; apt-get install chromium")
def test_the_player_begins_where_somebody_is(tmp_path: Path) -> None:
    frames = clip()
    with JsonlWriter(tmp_path / "late.jsonl", HEADER) as writer:
        for result in frames:
            empty = replace(Poses.empty(), track_ids=np.zeros(0, np.int64))
            writer.write(replace(result, poses=empty) if result.frame.index < 7 else result)
    write_report(tmp_path / "late.jsonl", tmp_path / "page.html")
    assert "0:00.28  frame 7" in in_browser(tmp_path / "page.html", tmp_path / "profile")


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine; apt-get install chromium")
def test_a_thinned_page_says_so(record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpnpose.formats.report_data.MOST_ROWS", 100)
    write_report(record, tmp_path / "page.html")
    assert "The page shows one of every 2 frames." in in_browser(tmp_path / "page.html", tmp_path / "profile")


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine; apt-get install chromium")
def test_page_in_a_real_browser(record: Path, tmp_path: Path) -> None:
    write_report(record, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    probed = tmp_path / "probed.html"
    probed.write_text(text.replace("<header>", PROBE + "<header>", 1), encoding="utf-8")
    shown = in_browser(probed, tmp_path / "profile")
    found = re.search(r'<pre id="probe">(.*?)</pre>', shown, re.DOTALL)
    assert found is not None, shown[-2000:]
    seen = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert seen["errors"] == []
    assert seen["ready"] == "yes"
    assert seen["title"] == HEADER.source
    assert min(seen["painted"].values()) > 500, seen["painted"]
    assert seen["start"] == "0:00.00  frame 0"
    assert seen["stepped"] == "0:00.04  frame 1"
    assert seen["redrawn"]
    assert seen["sought"].endswith(("frame 94", "frame 90"))
    assert seen["clicked"].endswith(("frame 49", "frame 50"))
    assert seen["angleChanged"]
    assert seen["onlyOne"]
    assert (seen["playing"], seen["stopped"]) == ("Stop", "Play")
    assert seen["played"] == "0:03.96  frame 99"


def test_memory_of_the_first_pass_does_not_hold_frames(make_result: Callable[..., FrameResult]) -> None:
    """Frames are taken one by one: none but the last ones are alive in either pass."""
    import weakref

    alive: list[weakref.ref[Any]] = []
    most = 0

    def frames() -> Any:
        nonlocal most
        for index in range(50):
            result = frame(index, {1: 10.0 * index})
            alive.append(weakref.ref(result.poses))
            most = max(most, sum(ref() is not None for ref in alive))
            yield result
            del result

    gather(HEADER, frames)
    assert most <= 3
