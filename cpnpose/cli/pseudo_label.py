"""``cpnpose train pseudo-label``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpnpose.cli.output_checks import check_reports


def register(group: typer.Typer) -> None:
    """Add ``pseudo-label`` to the group ``train``."""
    group.command("pseudo-label")(pseudo_label_command)


def pseudo_label_command(
    weights: Annotated[str, typer.Option(help="Trained pose weights: a file or a name.")],
    data: Annotated[Path, typer.Option(help="Folder that the annotations' file names start from.")],
    boxes_annotations: Annotated[Path, typer.Option(help="COCO file with boxes of people without keypoints.")],
    out: Annotated[Path, typer.Option(help="COCO keypoint file to write, for 'train pose --annotations'.")],
    min_score: Annotated[float, typer.Option(help="Lowest keypoint score that is believed (0.5 to 1.5).")] = 0.8,
    max_uncertainty: Annotated[
        float, typer.Option(help="Greatest disagreement with the mirrored crop, as a share of the box's longer side.")
    ] = 0.03,
    min_keypoints: Annotated[int, typer.Option(min=1, max=17, help="Believed keypoints that a person needs.")] = 6,
    min_side: Annotated[float, typer.Option(help="Pixels that the longer side of a box needs.")] = 32.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16.")] = "auto",
    batch: Annotated[int | None, typer.Option(min=1, help="Crops in one go.")] = None,
) -> None:
    """Label people who only have a box with the keypoints that a trained network is sure of (self-training)."""
    from rich.console import Console
    from rich.progress import Progress

    from cpnpose.training.pseudo_label import PseudoLabelOptions, pseudo_label

    options = PseudoLabelOptions(
        weights=weights, data=data, boxes_annotations=boxes_annotations, out=out, min_score=min_score,
        max_uncertainty=max_uncertainty, min_keypoints=min_keypoints, min_side=min_side, device=device,
        precision=precision, batch=batch,
    )  # fmt: skip
    check_reports({"--out": out}, (boxes_annotations, weights))
    console = Console(stderr=True)
    with Progress(console=console) as progress:
        task = progress.add_task("images", total=None)
        counts = pseudo_label(options, progress=lambda done, total: progress.update(task, completed=done, total=total))
    console.print(
        f"{out}: {counts.labelled} of {counts.people} people, {counts.keypoints / counts.labelled:.1f} keypoints each",
        markup=False,
    )
