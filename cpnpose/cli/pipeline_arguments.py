"""The options that ``video``, ``images`` and ``webcam`` share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

NETWORKS, DATA, DRAWING, MOTION = "Networks", "Data out", "Drawing", "Over time"
RUN = "Run"
TRACK_MEMORY_S = 2.5


class ProgressChoice(StrEnum):
    """Values of ``--progress``."""

    BAR = "bar"
    JSON = "json"
    NONE = "none"


class SmoothChoice(StrEnum):
    """Values of ``--smooth``."""

    OFF = "off"
    ONE_EURO = "one-euro"


class BackgroundChoice(StrEnum):
    """Values of ``--background``."""

    KEEP = "keep"
    BLACK = "black"
    BLUR = "blur"


Weights = Annotated[
    str, typer.Option("--weights", rich_help_panel=NETWORKS, help="Pose network: a name of 'weights list' or a file.")
]
DetectorName = Annotated[
    str,
    typer.Option(
        "--detector",
        rich_help_panel=NETWORKS,
        help="'default', a torchvision name such as fasterrcnn_resnet50_fpn_v2, or 'none': the whole image is one "
        "person's box.",
    ),
]
DetectorWeights = Annotated[
    Path | None, typer.Option("--detector-weights", rich_help_panel=NETWORKS, help="Weights file of the detector.")
]
DetectorSize = Annotated[
    str | None,
    typer.Option(
        "--detector-size",
        rich_help_panel=NETWORKS,
        help="Height x width, about what frames are brought to for the detector: more finds smaller people and takes "
        "longer. Default: what the weights name, 480x640 with the shipped detector.",
    ),
]
Boxes = Annotated[
    Path | None,
    typer.Option(
        "--boxes",
        rich_help_panel=NETWORKS,
        help="Take people's boxes from this COCO detections file; its image_id is the frame's number from 0, or the "
        "image's file name.",
    ),
]
Score = Annotated[
    float | None,
    typer.Option(
        "--score",
        rich_help_panel=NETWORKS,
        help="Leave out people below this detection score, 0 to 1; somebody tracked may sink to half of it. Default: "
        "what the weights name, 0.75 with the shipped detector, and 0.8 for somebody new in a video.",
        min=0,
        max=1,
    ),
]
Nms = Annotated[
    float | None,
    typer.Option(
        "--nms",
        rich_help_panel=NETWORKS,
        help="Of boxes that overlap by more than this IoU keep one. Default: what the weights name, 0.55 with the "
        "shipped detector.",
        min=0,
        max=1,
    ),
]
MaxPeople = Annotated[
    int | None,
    typer.Option("--max-people", rich_help_panel=NETWORKS, help="Most people in an image. Default: 100.", min=1),
]
Flip = Annotated[
    bool,
    typer.Option(
        "--flip",
        rich_help_panel=NETWORKS,
        help="Flip test: more accurate, twice the work, and the data tell each keypoint's uncertainty in pixels.",
    ),
]
Fast = Annotated[
    bool, typer.Option("--fast", rich_help_panel=NETWORKS, help="Stop after GlobalNet: quicker, less accurate.")
]
Device = Annotated[str, typer.Option("--device", rich_help_panel=RUN, help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[str, typer.Option("--precision", rich_help_panel=RUN, help="auto, fp32, bf16 or fp16.")]
Batch = Annotated[
    int | None,
    typer.Option(
        "--batch", rich_help_panel=RUN, help="Most people in one go through the network. Default: by the device.", min=1
    ),
]
Codec = Annotated[
    str | None,
    typer.Option(
        "--codec", help="h264, hevc, av1, vp9, or an encoder of FFmpeg (h264_nvenc). Default: h264, for .webm vp9."
    ),
]
Crf = Annotated[
    int | None,
    typer.Option(
        "--crf",
        help="The codec's quality number: lower is better. Default: 20 for h264, 24 for hevc, 32 for av1 and vp9.",
        min=0,
        max=63,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", rich_help_panel=RUN, help="Replace results that exist.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=RUN, help="Say nothing but errors.")]
ProgressOption = Annotated[
    ProgressChoice,
    typer.Option("--progress", rich_help_panel=RUN, help="A bar, JSON objects line by line (on stderr), or nothing."),
]
Json = Annotated[bool, typer.Option("--json", rich_help_panel=DATA, help="Write one JSON document, beside the result.")]
Csv = Annotated[
    bool, typer.Option("--csv", rich_help_panel=DATA, help="Write a CSV table: a row per frame and person.")
]
Angles = Annotated[
    bool, typer.Option("--angles", rich_help_panel=DATA, help="Add joint angles in degrees to the data.")
]
DetectEvery = Annotated[
    int,
    typer.Option(
        "--detect-every",
        rich_help_panel=MOTION,
        help="Look for people in every N-th frame; in between, boxes follow the keypoints.",
        min=1,
    ),
]
NoTrack = Annotated[
    bool, typer.Option("--no-track", rich_help_panel=MOTION, help="Give people no identities (and do not smooth).")
]
TrackMemory = Annotated[
    float,
    typer.Option("--track-memory", rich_help_panel=MOTION, help="Seconds for which a person is remembered.", min=0),
]
Smooth = Annotated[
    SmoothChoice | None,
    typer.Option(
        "--smooth",
        rich_help_panel=MOTION,
        help="Filter of the keypoints over time; raw ones stay in the data. "
        "Default: one-euro where people are tracked.",
    ),
]
DrawThreshold = Annotated[
    float | None,
    typer.Option(
        "--draw-threshold", rich_help_panel=DRAWING, help="Joints that score less are not drawn. Default: 0.6."
    ),
]
DrawBoxes = Annotated[bool, typer.Option("--draw-boxes", rich_help_panel=DRAWING, help="Draw people's boxes.")]
DrawIds = Annotated[bool, typer.Option("--draw-ids", rich_help_panel=DRAWING, help="Draw people's identities.")]
Background = Annotated[
    BackgroundChoice, typer.Option("--background", rich_help_panel=DRAWING, help="What is under the skeletons.")
]
BlurFaces = Annotated[bool, typer.Option("--blur-faces", rich_help_panel=DRAWING, help="Make faces unrecognisable.")]
