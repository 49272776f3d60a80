"""``cpnpose webcam``: skeletons on live pictures."""

from __future__ import annotations

from typing import Annotated

import typer

from cpnpose.cli import pipeline_arguments as args
from cpnpose.cli.arguments import parse_size
from cpnpose.cli.effects import drawing_options, refuse_idle, refuse_idle_angles, refuse_idle_tracking
from cpnpose.cli.output_checks import refuse
from cpnpose.cli.outputs import Outputs, Switches, plan_videos
from cpnpose.cli.video_checks import check_formats


def register(app: typer.Typer) -> None:
    """Add the command ``webcam``."""
    app.command("webcam")(webcam)


def webcam(
    camera: Annotated[
        str, typer.Option("--camera", help="Number of a camera, an address (rtsp, http, ...), or a video file.")
    ] = "0",
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="Record to this video, at true speed; a .json, .jsonl or .csv file for data only; or - for JSON "
            "Lines on standard output.",
        ),
    ] = None,
    json: args.Json = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", rich_help_panel=args.DATA, help="Write a JSON Lines record, frame by frame.")
    ] = False,
    csv: args.Csv = False,
    angles: args.Angles = False,
    preview: Annotated[
        bool, typer.Option("--preview/--no-preview", help="Show a window, where there is a screen.")
    ] = True,
    max_frames: Annotated[int | None, typer.Option("--max-frames", help="End after so many frames.", min=1)] = None,
    duration: Annotated[float | None, typer.Option("--duration", help="End after so many seconds.", min=0)] = None,
    codec: args.Codec = None,
    crf: args.Crf = None,
    weights: args.Weights = "default",
    detector: args.DetectorName = "default",
    detector_weights: args.DetectorWeights = None,
    detector_size: args.DetectorSize = None,
    score: args.Score = None,
    nms: args.Nms = None,
    max_people: args.MaxPeople = None,
    flip: args.Flip = False,
    fast: args.Fast = False,
    detect_every: args.DetectEvery = 1,
    no_track: args.NoTrack = False,
    track_memory: args.TrackMemory = args.TRACK_MEMORY_S,
    smooth: args.Smooth = None,
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
    """Draw skeletons on live pictures, and record them.

    Always the newest picture is taken; older ones are dropped and counted. Ctrl-C ends the run with whole files; so do
    the keys q and Escape in the preview.
    """
    name = f"camera{camera}" if camera.isdecimal() else camera
    outputs = Outputs()
    if out is not None or json or jsonl or csv:
        outputs = plan_videos([name], out, Switches(json, jsonl, csv))[0]
    if no_track:
        refuse_idle_tracking(ids=draw_ids, track_memory=track_memory)
    refuse_idle_angles(angles, [outputs])
    if outputs.picture is None:
        encoding = {"--codec": codec is not None, "--crf": crf is not None}
        refuse_idle(encoding, "no video is recorded; name one by --out, or leave it out")
        if not preview:
            drawing = drawing_options(draw_threshold, draw_boxes, draw_ids, background, blur_faces)
            refuse_idle(drawing, "nothing is shown or recorded; leave --no-preview out, or name a video by --out")
    check_formats(None, [outputs], codec, crf)
    refuse(outputs, [camera], overwrite=overwrite)

    from cpnpose.api import PoseEstimator
    from cpnpose.cli.drawing import make_drawer
    from cpnpose.cli.progress import say_notes
    from cpnpose.cli.webcam_run import LiveTask, process_live
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
        "raw": options.smoothing != "off",
        "angles": angles,
    }
    task = LiveTask(
        camera=camera,
        outputs=outputs,
        preview=preview,
        max_frames=max_frames,
        duration_s=duration,
        codec=codec,
        crf=crf,
        overwrite=overwrite,
        extras=tuple(name for name, wanted in extras.items() if wanted),
        progress="none" if quiet else progress.value,
    )
    draw = make_drawer(
        threshold=draw_threshold, boxes=draw_boxes, ids=draw_ids, background=background, blur_faces=blur_faces
    )
    keep_freed_memory()
    estimator = PoseEstimator(options=model_options)
    say_notes(estimator.notes, task.progress)
    process_live(task, estimator, options, draw)
