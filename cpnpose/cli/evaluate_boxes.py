"""``cpnpose evaluate-boxes``: COCO box metrics of a detector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpnpose.cli.arguments import parse_size
from cpnpose.cli.output_checks import check_reports

_RAW_SCORE = 0.02
_RAW_NMS = 0.95


def register(app: typer.Typer) -> None:
    """Add the command ``evaluate-boxes``."""
    app.command("evaluate-boxes")(evaluate_boxes_command)


def evaluate_boxes_command(
    annotations: Annotated[Path, typer.Option(help="COCO file with boxes of people.")],
    data: Annotated[Path, typer.Option(help="Folder that the annotations' file names start from.")],
    detector: Annotated[str, typer.Option(help="Name of a detector.")] = "default",
    detector_weights: Annotated[Path | None, typer.Option(help="A weights file in place of the named one.")] = None,
    size: Annotated[
        str | None, typer.Option(help="As --detector-size of 'cpnpose video'. Default: what the weights name.")
    ] = None,
    nms: Annotated[
        float | None, typer.Option(min=0, max=1, help="IoU of the suppression. Default: the best of a sweep.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only as many images, evenly chosen.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16.")] = "auto",
    report: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Measure a detector of people on annotated images by COCO's rules, and find the thresholds that suit it."""

    from cpnpose.cli.tables import output_console, print_table
    from cpnpose.evaluate import write_json
    from cpnpose.evaluate_box_truth import check_sizes, read_truth
    from cpnpose.evaluate_boxes import box_metrics, detect_all, recall_by_height, suppressed, sweep_thresholds
    from cpnpose.pipeline.device import check_precision
    from cpnpose.pipeline.load_detector import load_detector
    from cpnpose.training.distributed import check_one_process

    check_one_process("evaluate-boxes")
    check_reports({"--report": report}, (annotations, detector_weights))
    truth = read_truth(annotations)
    check_sizes(truth)  # told before a detector works
    find = load_detector(
        detector,
        weights=detector_weights,
        device=device,
        precision=precision,
        nms=_RAW_NMS,
        max_people=300,
        size=None if size is None else parse_size(size),
    )
    check_precision(precision, {"the detector": find.network.number_format})
    raw = detect_all(find.with_score(_RAW_SCORE), truth, data, limit=limit)
    thresholds = sweep_thresholds(truth, raw)
    chosen = thresholds["best"]["nms"] if nms is None else nms
    metrics = box_metrics(truth, suppressed(raw, chosen))
    heights = recall_by_height(truth, suppressed(raw, chosen), find.score)
    if report is not None:
        content = {
            **metrics,
            "nms": chosen,
            "images": len(raw),
            "detector": str(detector_weights or detector),
            "precision": find.network.number_format,
            "thresholds": thresholds,
            "score": find.score,
            "recall_by_height": heights,
        }
        write_json(report, content)
    console = output_console()
    title = f"{detector_weights or detector}: boxes of people on {len(raw)} images, NMS {chosen:g}"
    console.print(title, markup=False, highlight=False)
    print_table(console, list(metrics), [[f"{value:.1f}" for value in metrics.values()]], names=False)
    best = thresholds["best"]
    console.print(f"best NMS by AP50: {best['nms']:g}; there, of people above 32x32 pixels:")
    for name, measure in (("score", "F2"), ("track_score", "F1")):
        row = best[name]
        figures = f"precision {row['precision']:g} %, recall {row['recall']:g} %"
        console.print(f"  {name} by the best {measure}: {row['threshold']:g} ({figures})")
    told = ", ".join(f"{name}: {row['recall']:g} % of {row['people']}" for name, row in heights.items())
    console.print(f"found at the default score {find.score:g}, by height in pixels of a 640x480 image: {told}")
