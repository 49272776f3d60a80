"""``cpnpose evaluate``: COCO keypoint metrics of a pose network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpnpose.cli.output_checks import check_reports
from cpnpose.cli.say import say_note
from cpnpose.errors import OptionError


def register(app: typer.Typer) -> None:
    """Add the command ``evaluate``."""
    app.command("evaluate")(evaluate_command)


def evaluate_command(
    annotations: Annotated[Path, typer.Option(help="COCO keypoint file.")],
    data: Annotated[Path, typer.Option(help="Folder that the annotations' file names start from.")],
    boxes: Annotated[str, typer.Option(help="gt, detector, or a COCO detections file.")] = "gt",
    weights: Annotated[str, typer.Option(help="Pose weights: a name of the manifest or a file.")] = "default",
    detector: Annotated[str, typer.Option(help="Name of the detector for --boxes detector.")] = "default",
    detector_weights: Annotated[Path | None, typer.Option(help="A weights file in place of the named one.")] = None,
    flip: Annotated[bool, typer.Option(help="Flip test.")] = True,
    fast: Annotated[bool, typer.Option(help="GlobalNet's finest map only.")] = False,
    decoding: Annotated[str, typer.Option(help="weights (what the weights name), published, or dark.")] = "weights",
    oks_nms: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Drop poses more alike than this OKS (detected boxes only); 1 keeps all. Default: 0.9."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16.")] = "auto",
    batch: Annotated[int | None, typer.Option(min=1, help="Crops in one go.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
    results: Annotated[Path | None, typer.Option(help="Write the predictions as a COCO results file.")] = None,
) -> None:
    """Measure a pose network on annotated images by COCO's rules."""
    from cpnpose.cli.tables import output_console, print_table
    from cpnpose.evaluate import EvaluationOptions, evaluate_pose, write_json
    from cpnpose.pipeline.memory import keep_freed_memory

    if decoding not in ("weights", "published", "dark"):
        raise OptionError(f"--decoding {decoding}: use weights, published or dark")
    options = EvaluationOptions(
        annotations=annotations, data=data, boxes=boxes, weights=weights, detector=detector,
        detector_weights=detector_weights, flip=flip, fast=fast,
        decoding=None if decoding == "weights" else decoding,  # type: ignore[arg-type]
        device=device, precision=precision, batch=batch, oks_nms=oks_nms,
    )  # fmt: skip
    check_reports({"--report": report, "--results": results}, (annotations, boxes, weights, detector_weights))
    keep_freed_memory()
    measured = evaluate_pose(options)
    for note in measured.notes:
        say_note(note)
    for path, content in ((report, measured.report), (results, measured.results)):
        if path is not None:
            write_json(path, content)
    protocol = measured.report["protocol"]
    console = output_console()
    protocol_text = ", ".join(f"{key}: {value}" for key, value in protocol.items())
    console.print(protocol_text, markup=False, highlight=False)
    print_table(console, list(measured.metrics), [[f"{value:.1f}" for value in measured.metrics.values()]], names=False)
    console.print(f"PCK within {protocol['pck_alpha']} of the box's longer side, percent", highlight=False)
    print_table(console, ("joint", "left", "right", "middle"), _pck_rows(measured.report["pck"]))
    console.print(f"mean 1 - OKS: {measured.report['mean_oks_error']} over {measured.report['people']} people")


def _pck_rows(pck: dict[str, float]) -> list[list[str]]:
    """A row for each joint, left and right beside each other."""
    rows = []
    for joint in dict.fromkeys(name.removeprefix("left_").removeprefix("right_") for name in pck):
        sides = (pck.get(name) for name in (f"left_{joint}", f"right_{joint}", joint))
        rows.append([joint, *("" if value is None else str(value) for value in sides)])
    return rows
