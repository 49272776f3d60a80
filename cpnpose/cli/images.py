"""``cpnpose images``: skeletons and keypoints of the people in still images."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpnpose.cli import pipeline_arguments as args
from cpnpose.cli.arguments import parse_size
from cpnpose.cli.effects import drawing_options, refuse_idle, refuse_idle_angles
from cpnpose.cli.output_checks import refuse, refuse_inputs
from cpnpose.cli.outputs import (
    ADDED,
    DRAWN_SUFFIX,
    IMAGE_SUFFIXES,
    Outputs,
    Switches,
    is_folder,
    picture_path,
    plan_images,
)
from cpnpose.cli.say import partly_done
from cpnpose.errors import InputError, OutputError

if TYPE_CHECKING:
    from cpnpose.cli.drawing import Draw


def register(app: typer.Typer) -> None:
    """Add the command ``images``."""
    app.command("images")(images)


def images(
    inputs: Annotated[
        list[str], typer.Argument(metavar="IN...", help="Folders, files or patterns: JPEG, PNG, WebP, BMP, TIFF.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the drawn images, the drawn image for a single file, a .json, .jsonl or .csv file for "
            "data only, or - for JSON Lines on standard output. Without it, results stand beside the input as "
            "DIR_pose/, DIR_pose.json, ...; with a data switch alone only data is written.",
        ),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into the folders' folders too.")] = False,
    json: args.Json = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", rich_help_panel=args.DATA, help="Write a JSON Lines record, image by image.")
    ] = False,
    csv: args.Csv = False,
    angles: args.Angles = False,
    no_draw: Annotated[bool, typer.Option("--no-draw", help="Write data only, whatever --out says.")] = False,
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
    draw_threshold: args.DrawThreshold = None,
    draw_boxes: args.DrawBoxes = False,
    background: args.Background = args.BackgroundChoice.KEEP,
    blur_faces: args.BlurFaces = False,
    device: args.Device = "auto",
    precision: args.Precision = "auto",
    batch: args.Batch = None,
    overwrite: args.Overwrite = False,
    quiet: args.Quiet = False,
    progress: args.ProgressOption = args.ProgressChoice.BAR,
) -> None:
    """Draw skeletons on the people in images, and write their keypoints as data.

    Images that cannot be read are named and left out, and the exit code is then 3.
    """
    from cpnpose.cli.images_run import ImageSet, process_images
    from cpnpose.media.images import find_images

    paths = find_images(inputs, recursive=recursive)
    if any(".." in path.parts or path.is_absolute() for path in paths) and len(inputs) > 1:
        # So that they have a common folder; and the same image by two names is one.
        paths = list(dict.fromkeys(Path(os.path.normpath(path.absolute())) for path in paths))
    base = base_folder(inputs, paths)
    switches = Switches(json, jsonl, csv, picture=False if no_draw else None)
    outputs = plan(inputs, base, out, switches, single=len(paths) == 1)
    refuse_idle_angles(angles, [outputs])
    if outputs.picture is None:
        drawing = drawing_options(draw_threshold, draw_boxes, False, background, blur_faces)
        remedy = "leave --no-draw out" if no_draw else "name their folder by --out, or leave it out"
        refuse_idle(drawing, f"no images are drawn; {remedy}")
    names = [path.relative_to(base).as_posix() for path in paths]
    refuse(outputs, [str(path) for path in (*paths, *([boxes] if boxes else []))], overwrite=overwrite)
    drawn: list[Path] = []
    if outputs.picture is not None:
        single = len(names) == 1 and not (out is not None and is_folder(out))
        drawn = [picture_path(outputs.picture, name, single=single) for name in names]
        refuse_inputs(drawn, paths)
        if len(set(drawn)) < len(drawn):
            twice = next(path for path in drawn if drawn.count(path) > 1)
            raise OutputError(f"two images would both be drawn to {twice}; run them one by one")

    from cpnpose.api import PoseEstimator
    from cpnpose.cli.drawing import make_drawer
    from cpnpose.cli.progress import say_notes
    from cpnpose.pipeline.memory import keep_freed_memory
    from cpnpose.pipeline.options import ModelOptions

    draw: Draw = make_drawer(
        threshold=draw_threshold, boxes=draw_boxes, ids=False, background=background, blur_faces=blur_faces
    )
    options = ModelOptions(
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
    task = ImageSet(
        source=inputs[0] if len(inputs) == 1 else str(base),
        paths=paths,
        names=names,
        drawn=drawn,
        outputs=outputs,
        overwrite=overwrite,
        extras=tuple(name for name, wanted in (("uncertainty", flip), ("angles", angles)) if wanted),
        progress="none" if quiet else progress.value,
    )
    keep_freed_memory()
    estimator = PoseEstimator(options=options, names=names)
    say_notes(estimator.notes, task.progress)
    unreadable = process_images(task, estimator, draw)
    if unreadable:
        raise InputError(partly_done(unreadable, len(paths), "image"))


def base_folder(inputs: list[str], paths: list[Path]) -> Path:
    """The folder to which the images' names are relative: the one that was given, else the deepest common one."""
    if len(inputs) == 1 and Path(inputs[0]).is_dir():
        return Path(inputs[0])
    common = paths[0].parent
    while not all(path.is_relative_to(common) for path in paths):
        if common == common.parent:
            raise InputError("the images lie on different drives; run the command once for each")
        common = common.parent
    return common


def plan(inputs: list[str], base: Path, out: str | None, switches: Switches, *, single: bool) -> Outputs:
    """The outputs: for a single file beside it, else beside the folder."""
    only = Path(inputs[0])
    if len(inputs) == 1 and only.is_file():
        outputs = plan_images(only.parent, only.stem + ADDED, out, switches)
        if out is None and outputs.picture is not None:
            suffix = only.suffix if only.suffix.lower() in IMAGE_SUFFIXES else DRAWN_SUFFIX
            return replace(outputs, picture=outputs.picture.with_name(outputs.picture.name + suffix))
        return outputs
    folder = base.resolve()
    return plan_images(base.parent if base.name else folder.parent, folder.name + ADDED, out, switches, single=single)
