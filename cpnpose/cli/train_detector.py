"""``cpnpose train detector``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cpnpose.cli.arguments import parse_size


def register(train_app: typer.Typer) -> None:
    """Add the command ``detector`` to ``cpnpose train``."""
    train_app.command("detector")(detector)


def detector(
    data: Annotated[Path, typer.Option(help="Folder of the images.", metavar="IMAGES")],
    annotations: Annotated[
        list[str], typer.Option(help="COCO files with boxes of people; repeat, list, or separate by commas.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run; a run found there is resumed.")],
    more: Annotated[list[str] | None, typer.Argument(help="Further annotation files.", metavar="[A.json ...]")] = None,
    val: Annotated[Path | None, typer.Option(help="COCO file to evaluate on.")] = None,
    incomplete: Annotated[
        list[Path] | None, typer.Option(help="An annotation file in which people may have no box; may be repeated.")
    ] = None,
    backbone_weights: Annotated[Path | None, typer.Option(help="ImageNet weights of MobileNetV2 (.npz).")] = None,
    init: Annotated[str | None, typer.Option(help="Detector weights to start from.")] = None,
    size: Annotated[str, typer.Option(help="About what frames are brought to, height x width.")] = "480x640",
    steps: Annotated[int, typer.Option(min=1, help="Length of the schedule.")] = 8000,
    minutes: Annotated[
        float | None, typer.Option(min=0.0, help="End the schedule after this time, if that is sooner.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Square canvases of half the size's pixels in a step.")] = 16,
    lr: Annotated[
        float, typer.Option(min=0.0, max=100.0, help="Learning rate relative to the size of each layer's weights.")
    ] = 2e-2,
    turn: Annotated[float, typer.Option(min=0, max=1, help="Share of the images that are turned.")] = 0.4,
    turn_degrees: Annotated[float, typer.Option(min=0, max=180, help="By how much at most, to either side.")] = 45.0,
    evaluate_every: Annotated[int, typer.Option(min=1, help="Steps between evaluations.")] = 1000,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 250,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of the random numbers.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of the network; 0: all cores.")] = 0,
) -> None:
    """Train the person detector. Files given by --incomplete count as annotations too."""
    import torch

    from cpnpose.errors import OptionError
    from cpnpose.models.detector import DetectorConfig
    from cpnpose.pipeline.memory import keep_freed_memory
    from cpnpose.training.detector_options import DetectorTraining
    from cpnpose.training.train_detector import train_detector

    if precision not in ("auto", "fp32", "bf16"):
        raise OptionError(f"--precision {precision}: use auto, fp32 or bf16")
    if threads:
        torch.set_num_threads(threads)
    height, width = parse_size(size)
    named = [Path(name) for entry in [*annotations, *(more or [])] for name in entry.split(",")]
    files = dict.fromkeys([*named, *(incomplete or [])])
    options = DetectorTraining(
        data=data,
        annotations=tuple(files),
        val=val,
        out=out,
        incomplete=tuple(incomplete or []),
        backbone_weights=backbone_weights,
        init=init,
        steps=steps,
        stop_after=minutes,
        batch=batch,
        lr=lr,
        turn=turn,
        turn_degrees=turn_degrees,
        evaluate_every=evaluate_every,
        checkpoint_every=checkpoint_every,
        seed=seed,
        device=device,
        precision=precision,  # type: ignore[arg-type]
        config=DetectorConfig(input_pixels=height * width),
    )
    keep_freed_memory(training=True)
    metrics = train_detector(options, on_step=_show)
    for name, value in metrics.items():
        typer.echo(f"{name}: {value:g}")


def _show(entry: dict[str, Any]) -> None:
    """One line for an entry of the log."""
    typer.echo("  ".join(f"{name} {value:g}" for name, value in entry.items()))
