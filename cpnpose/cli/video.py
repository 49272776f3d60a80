"""``cpnpose video``: skeletons and keypoints of the people in videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpnpose.cli import pipeline_arguments as args
from cpnpose.cli.arguments import parse_size
from cpnpose.cli.effects import drawing_options, refuse_idle, refuse_idle_angles, refuse_idle_tracking
from cpnpose.cli.output_checks import refuse
from cpnpose.cli.outputs import Switches, is_folder, plan_videos
from cpnpose.cli.say import partly_done, say_error
from cpnpose.cli.video_checks import check_formats, check_inputs
from cpnpose.errors import CpnposeError, InputError, OptionError, OutputError

if TYPE_CHECKING:
    from cpnpose.api import PoseEstimator
    from cpnpose.cli.drawing import Draw
    from cpnpose.cli.video_task import VideoTask
    from cpnpose.pipeline.options import StreamOptions


def register(app: typer.Typer) -> None:
    """Add the command ``video``."""
    app.command("video")(video)


def video(
    inputs: Annotated[list[str], typer.Argument(metavar="IN...", help="Videos: files or addresses (http, rtsp, ...).")],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="The video to write (its ending chooses the format), a folder for several inputs, a .json, .jsonl or "
            ".csv file for data only, or - for JSON Lines on standard output. Without it, results stand beside the "
            "input as IN_pose.mp4, IN_pose.json, ...; with a data switch alone only data is written.",
        ),
    ] = None,
    json: args.Json = False,
    jsonl: Annotated[
        bool,
        typer.Option(
            "--jsonl", rich_help_panel=args.DATA, help="Write a JSON Lines record, flushed frame by frame, resumable."
        ),
    ] = False,
    csv: args.Csv = False,
    angles: args.Angles = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", rich_help_panel=args.DATA, help="Go on with the --jsonl record of a run that stopped."
        ),
    ] = False,
    no_video: Annotated[bool, typer.Option("--no-video", help="Write data only, whatever --out says.")] = False,
    start: Annotated[float, typer.Option("--start", help="Begin at this second.", min=0)] = 0.0,
    end: Annotated[
        float | None, typer.Option("--end", help="Stop before this second. Default: the end.", min=0)
    ] = None,
    every: Annotated[int, typer.Option("--every", help="Take every N-th frame.", min=1)] = 1,
    codec: args.Codec = None,
    crf: args.Crf = None,
    hwaccel: Annotated[
        str | None, typer.Option("--hwaccel", help="Decode on this kind of device (cuda), where there is one.")
    ] = None,
    weights: args.Weights = "default",
    detector: args.DetectorName = "default",
    detector_weights: args.DetectorWeights = None,
    detector_size: args.DetectorSize = None,
    boxes: args.Boxes = None,
    score: args.Score = None,
    nms: args.Nms = None,
    max_people: args.MaxPeople = None,
    flip: args.Flip = False,
    fast: args.Fast = False,
    detect_every: args.DetectEvery = 1,
    no_track: args.NoTrack = False,
    track_memory: args.TrackMemory = args.TRACK_MEMORY_S,
    smooth: args.Smooth = None,
    fill: Annotated[
        float,
        typer.Option("--fill", rich_help_panel=args.MOTION, help="Fill gaps of up to so many seconds; flagged.", min=0),
    ] = 0.0,
    repair_swaps: Annotated[
        bool,
        typer.Option(
            "--repair-swaps", rich_help_panel=args.MOTION, help="Exchange left and right back where confused; flagged."
        ),
    ] = False,
    person: Annotated[
        str | None,
        typer.Option(
            "--person",
            rich_help_panel=args.MOTION,
            help="Only this one of the whole clip: largest, longest, center, id:N.",
        ),
    ] = None,
    draw_threshold: args.DrawThreshold = None,
    draw_boxes: args.DrawBoxes = False,
    draw_ids: args.DrawIds = False,
    background: args.Background = args.BackgroundChoice.KEEP,
    blur_faces: args.BlurFaces = False,
    device: args.Device = "auto",
    precision: args.Precision = "auto",
    batch: args.Batch = None,
    overwrite: args.Overwrite = False,
    quiet: args.Quiet = False,
    progress: args.ProgressOption = args.ProgressChoice.BAR,
) -> None:
    """Draw skeletons on the people in videos, and write their keypoints as data.

    Every decoded frame comes out once with its own timestamp, upright, with the sound of the input.
    """
    from cpnpose.pipeline.person import check_choice

    switches = Switches(json, jsonl, csv, picture=False if no_video else None)
    planned = plan_videos(inputs, out, switches)
    if resume and any(outputs.jsonl is None for outputs in planned):
        raise OptionError("--resume goes on with a JSON Lines record; add --jsonl")
    if boxes is not None and len(inputs) > 1:
        raise OptionError("--boxes names frames of one video; run the inputs one by one, each with boxes of its own")
    if end is not None and end <= start:
        raise OptionError(f"--end {end:g} is not behind --start {start:g}; give a later end")
    if person is not None:
        check_choice(person)
    whole_clip = person is not None or fill > 0 or repair_swaps
    if whole_clip and no_track:
        raise OptionError("--person, --fill and --repair-swaps need identities; leave --no-track out")
    if whole_clip and resume:
        raise OptionError("--person, --fill and --repair-swaps look at the whole clip; leave --resume out")
    if no_track:
        refuse_idle_tracking(ids=draw_ids, track_memory=track_memory)
    refuse_idle_angles(angles, planned)
    if all(outputs.picture is None for outputs in planned):
        drawing = drawing_options(draw_threshold, draw_boxes, draw_ids, background, blur_faces)
        remedy = "leave --no-video out" if no_video else "name one by --out, or leave it out"
        refuse_idle(
            {"--codec": codec is not None, "--crf": crf is not None, **drawing}, f"no video is written; {remedy}"
        )
    check_inputs(inputs)
    check_formats(hwaccel, planned, codec, crf)
    if out is not None and out != "-" and (len(inputs) > 1 or is_folder(out)):
        _make_folder(Path(out))
    for outputs in planned:
        refuse(outputs, [*inputs, *([str(boxes)] if boxes else [])], overwrite=overwrite, resume=resume)

    from cpnpose.api import PoseEstimator
    from cpnpose.cli.drawing import make_drawer
    from cpnpose.cli.progress import say_notes
    from cpnpose.cli.video_task import VideoTask, open_reader
    from cpnpose.media.source import is_stored
    from cpnpose.pipeline.memory import keep_freed_memory
    from cpnpose.pipeline.options import ModelOptions, StreamOptions

    options = StreamOptions(
        detect_every=detect_every,
        track=not no_track,
        track_memory=track_memory,
        smooth=None if smooth is None else smooth.value,
    )
    model_options = ModelOptions(
        weights=weights,
        detector=detector,
        detector_weights=detector_weights,
        boxes=boxes,
        score=score,
        nms=nms,
        detector_size=None if detector_size is None else parse_size(detector_size, "--detector-size"),
        max_people=max_people,
        device=device,
        precision=precision,
        batch=batch,
        flip=flip,
        fast=fast,
    )
    extras = {
        "track_ids": options.track,
        "uncertainty": flip,
        "raw": options.smoothing != "off" or fill > 0 or repair_swaps,
        "flags": fill > 0 or repair_swaps,
        "angles": angles,
    }
    tasks = [
        VideoTask(
            source=source,
            outputs=outputs,
            start=start,
            end=end,
            every=every,
            codec=codec,
            crf=crf,
            hwaccel=hwaccel,
            overwrite=overwrite,
            resume=resume,
            extras=tuple(name for name, wanted in extras.items() if wanted),
            progress="none" if quiet else progress.value,
            person=person,
            blur_faces=blur_faces,
            fill_s=fill,
            repair_swaps=repair_swaps,
        )
        for source, outputs in zip(inputs, planned, strict=True)
    ]
    if len(tasks) == 1 and is_stored(tasks[0].source):
        open_reader(tasks[0]).close()  # say that it is no video before the networks are loaded
    draw = make_drawer(
        threshold=draw_threshold, boxes=draw_boxes, ids=draw_ids, background=background, blur_faces=blur_faces
    )
    keep_freed_memory()
    estimator = PoseEstimator(options=model_options)
    say_notes(estimator.notes, tasks[0].progress)
    run_all(tasks, estimator, options, draw)


def run_all(tasks: list[VideoTask], estimator: PoseEstimator, options: StreamOptions, draw: Draw) -> None:
    """Work through the videos; one that cannot be read does not keep the others from being done.

    Raises:
        CpnposeError: the only video's own error; for several, that some could not be read.
    """
    from cpnpose.cli.video_run import process_video

    failed: list[InputError] = []
    for task in tasks:
        try:
            process_video(task, estimator, options, draw)
        except CpnposeError as error:
            if len(tasks) == 1:
                raise
            named = error if task.source in str(error) else type(error)(f"{task.source}: {error}")
            if not isinstance(named, InputError):
                raise named from error
            say_error(named)
            failed.append(named)
    if failed:
        raise InputError(partly_done(len(failed), len(tasks), "video"))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot make this folder ({error.strerror}); choose another with --out") from error
