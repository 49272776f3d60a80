"""The commands ``track`` and ``smooth``: identities and smooth motion made anew from a record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpnpose.cli.effects import refuse_idle
from cpnpose.cli.pipeline_arguments import TRACK_MEMORY_S, Angles, Overwrite, Quiet
from cpnpose.cli.record_files import Person, Record, count_frames, open_record, record_stem, write_data
from cpnpose.cli.say import say_written
from cpnpose.errors import OptionError

if TYPE_CHECKING:
    from cpnpose.formats import Header
    from cpnpose.pipeline.smooth import OneEuroOptions
    from cpnpose.pose.types import FrameResult

Out = Annotated[
    str | None,
    typer.Option("--out", "-o", help="A .jsonl, .json or .csv file, or - for JSON Lines to standard output."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("track")(track)
    app.command("smooth")(smooth)


def track(
    record: Record,
    out: Out = None,
    memory: Annotated[
        float, typer.Option("--track-memory", min=0, help="Seconds for which a person is remembered.")
    ] = TRACK_MEMORY_S,
    angles: Angles = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Give the people of a record identities, in place of those it has. A record that was smoothed is smoothed again,
    along the new identities.

    The result stands beside the record as NAME_tracked.
    """
    header, frames, _ = open_record(record)
    _refuse_images(header)
    smoothed = "raw" in header.extras and header.settings.get("smooth") != "off"
    settings = {
        **{name: value for name, value in header.settings.items() if not name.startswith("smooth_")},
        "track": True,
        "track_memory": memory,
        "smooth": "one-euro" if smoothed else "off",
        "fill_s": 0.0,
        "repair_swaps": False,
    }
    extras = ("track_ids", "raw") if smoothed else ("track_ids",)
    kept = tuple(name for name in header.extras if name not in ("track_ids", "raw", "flags"))
    changed = replace(header, settings=settings, extras=(*extras, *kept))
    _write(record, out, "tracked", changed, _tracked(header, frames, memory, smoothed), angles, overwrite, quiet)


def smooth(
    record: Record,
    out: Out = None,
    person: Person = None,
    swaps: Annotated[
        bool, typer.Option("--repair-swaps/--no-repair-swaps", help="Exchange left and right back where confused.")
    ] = True,
    fill: Annotated[
        float, typer.Option("--fill", min=0, help="Fill gaps of up to so many seconds in a straight line, flagged.")
    ] = 0.0,
    one_euro: Annotated[bool, typer.Option("--one-euro/--no-one-euro", help="Filter the keypoints over time.")] = True,
    min_cutoff: Annotated[
        float | None,
        typer.Option("--min-cutoff", help="Cutoff frequency at rest in Hz: lower is calmer. Default: 0.5."),
    ] = None,
    beta: Annotated[float | None, typer.Option("--beta", help="How the cutoff rises with speed. Default: 15.")] = None,
    angles: Angles = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Smooth the keypoints of a record along its identities, from their raw values; these stay in the data.

    The result stands beside the record as NAME_smoothed.
    """
    from cpnpose.pipeline.smooth import OneEuroOptions

    if not one_euro:
        filtering = {"--min-cutoff": min_cutoff is not None, "--beta": beta is not None}
        refuse_idle(filtering, "they are of the filter; leave --no-one-euro out")
    header, frames, others = open_record(record, person)
    _refuse_images(header)
    given = {name: value for name, value in (("min_cutoff_hz", min_cutoff), ("beta", beta)) if value is not None}
    options = OneEuroOptions(**given) if one_euro else None
    settings = {
        **header.settings,
        "fill_s": fill,
        "smooth": "one-euro" if one_euro else "off",
        "smooth_min_cutoff_hz": None if options is None else options.min_cutoff_hz,
        "smooth_beta": None if options is None else options.beta,
        "repair_swaps": swaps,
    }
    extras = ("track_ids", "raw", "flags") if swaps or fill > 0 else ("track_ids", "raw")
    kept = tuple(name for name in header.extras if name not in ("track_ids", "raw", "flags"))
    changed = replace(header, settings=settings, extras=(*extras, *kept))
    _write(record, out, "smoothed", changed, _smoothed(frames, swaps, fill, options), angles, overwrite, quiet, others)


def _tracked(header: Header, frames: Iterable[FrameResult], memory: float, smoothed: bool) -> Iterator[FrameResult]:
    from cpnpose.pipeline.follow import Follower, as_estimated
    from cpnpose.pipeline.options import StreamOptions

    follower = Follower(
        StreamOptions(
            track_memory=memory,
            confident_score=header.settings.get("confident_score"),
            drop_below=header.settings.get("drop_below") or 0.0,
            smooth="one-euro" if smoothed else "off",
        )
    )
    for result in frames:
        poses = follower.update(result.frame, as_estimated(result.poses), header.size)
        yield replace(result, poses=poses)


def _smoothed(
    frames: Iterable[FrameResult], swaps: bool, fill: float, options: OneEuroOptions | None
) -> Iterator[FrameResult]:
    from cpnpose.pipeline.fill import FillOptions, fill_gaps
    from cpnpose.pipeline.repair import repair_swaps
    from cpnpose.pipeline.smooth import OneEuroFilter

    frames = _measured(frames)
    if swaps:
        frames = repair_swaps(frames)
    if fill > 0:
        frames = fill_gaps(frames, FillOptions(max_gap_s=fill))
    one_euro = None if options is None else OneEuroFilter(options)
    for result in frames:
        poses = result.poses if one_euro is None else one_euro.update(result.frame.time_s, result.poses)
        yield replace(result, poses=poses)


def _measured(frames: Iterable[FrameResult]) -> Iterator[FrameResult]:
    """The frames as the network saw them, with their identities."""
    from cpnpose.pipeline.fill import without_filled
    from cpnpose.pipeline.follow import as_estimated

    for result in frames:
        poses = without_filled(result.poses)
        if len(poses) > 0 and poses.track_ids is None:
            raise OptionError(
                "the record has no identities to smooth along. Run `cpnpose track` on it first, and smooth its result"
            )
        yield replace(result, poses=replace(as_estimated(poses), track_ids=poses.track_ids))


def _write(
    record: Path,
    out: str | None,
    added: str,
    header: Header,
    frames: Iterable[FrameResult],
    angles: bool,
    overwrite: bool,
    quiet: bool,
    others: int = 0,
) -> None:
    """Write the changed record and tell where it is, and how many people were left out."""
    counted = count_frames(frames)
    target = out or str(record.with_name(f"{record_stem(record)}_{added}{record.suffix}"))
    written = write_data(record, target, header, counted, angles=angles, overwrite=overwrite)
    if not quiet:
        say_written(counted.count, written, others)


def _refuse_images(header: Header) -> None:
    if header.kind == "images":
        raise OptionError("a record of images has no time along which people could be followed. Give one of a video")
