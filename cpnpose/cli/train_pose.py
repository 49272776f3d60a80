"""``cpnpose train pose``."""

from __future__ import annotations

import math
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cpnpose.cli.arguments import parse_size
from cpnpose.errors import OptionError


class Model(StrEnum):
    """Architectures by name."""

    LIGHT = "cpn-light"
    R50 = "cpn50"
    R101 = "cpn101"


class RecipeName(StrEnum):
    """Training recipes."""

    MODERN = "modern"
    PAPER = "paper"


def register(group: typer.Typer) -> None:
    """Add ``pose`` to the group ``train``."""
    group.command("pose", context_settings={"allow_extra_args": False})(train_pose_command)


def train_pose_command(
    data: Annotated[Path, typer.Option(help="Folder that the annotations' file names start from.")],
    annotations: Annotated[
        list[str], typer.Option(help="COCO keypoint files; repeat the option or separate by commas.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the run: checkpoint, log, curves, weights. Resumed if it has one.")
    ],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[ANNOTATIONS]...", help="Further annotation files.")
    ] = None,
    val: Annotated[Path | None, typer.Option(help="COCO keypoint file to evaluate on.")] = None,
    model: Annotated[Model, typer.Option(help="Architecture.")] = Model.R50,
    size: Annotated[str, typer.Option(help="Input, height x width.")] = "256x192",
    mix: Annotated[
        str, typer.Option(help="Share of each annotation file in an epoch, such as 1,1,0.5. Default: all of each.")
    ] = "",
    recipe: Annotated[RecipeName, typer.Option(help="'paper' is the published one.")] = RecipeName.MODERN,
    batch: Annotated[int, typer.Option(min=1, help="People in a step of one process.")] = 32,
    epochs: Annotated[float, typer.Option(min=0.0, max=1e6, help="Length of the schedule.")] = 60.0,
    minutes: Annotated[
        float | None, typer.Option(min=0.0, help="End the schedule after this time, if that is sooner.")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(min=0.0, max=100.0, help="Highest learning rate. Default: 0.001, by --recipe paper 0.0005."),
    ] = None,
    location_weight: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Share of the location loss beside the squared error. Default: 400, by --recipe paper 0."
        ),
    ] = None,
    augment_strength: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the augmentation; less for short trainings.")
    ] = 1.0,
    teacher: Annotated[
        str | None, typer.Option(help="Trained weights whose features and keypoints this network learns from as well.")
    ] = None,
    hint_weight: Annotated[
        float | None, typer.Option(min=0.0, help="Share of the distance from the teacher's features. Default: 1000.")
    ] = None,
    init: Annotated[str | None, typer.Option(help="Weights to start from: a file or a name.")] = None,
    backbone_weights: Annotated[
        Path | None, typer.Option(help=".npz of an ImageNet MobileNetV2 for cpn-light.")
    ] = None,
    freeze_bn: Annotated[bool, typer.Option(help="Leave the statistics of batch normalisation alone.")] = False,
    freeze_blocks: Annotated[
        int, typer.Option(min=0, help="Leave the backbone's first parts as they are: 4 of cpn-light save a quarter.")
    ] = 0,
    evaluate_every: Annotated[int, typer.Option(min=1, help="Steps between evaluations.")] = 1000,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 200,
    seed: Annotated[int, typer.Option(min=0, max=2**23 - 1, help="Of the random numbers.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16.")] = "auto",
    compile_: Annotated[bool, typer.Option("--compile", help="torch.compile the network.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder of the cached crops. Default: in --out.")] = None,
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Measure the loop's speed against the network's alone, and end.")
    ] = False,
) -> None:
    """Train a Cascaded Pyramid Network on COCO keypoint files. Run it again with the same --out to resume."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from cpnpose.pipeline.memory import keep_freed_memory
    from cpnpose.training.pose_options import PoseTraining, paper_recipe
    from cpnpose.training.train_pose import train_pose

    if precision not in ("auto", "fp32", "bf16"):
        raise OptionError(f"--precision {precision}: use auto, fp32 or bf16")
    files = tuple(Path(name) for text in [*annotations, *(more or [])] for name in text.split(","))
    weights = _shares(mix)
    if weights and len(weights) != len(files):
        raise OptionError(f"--mix {mix}: {len(files)} annotation files need {len(files)} numbers")
    options = PoseTraining(
        data=data, annotations=files, val=val, out=out, model=model.value, size=parse_size(size), weights=weights,
        recipe=recipe.value, batch=batch, epochs=epochs, stop_after=minutes, init=init,
        backbone_weights=backbone_weights, freeze_bn=freeze_bn, evaluate_every=evaluate_every,
        checkpoint_every=checkpoint_every, seed=seed, device=device, precision=precision,  # type: ignore[arg-type]
        compile=compile_, cache=cache, augment_strength=augment_strength, freeze_blocks=freeze_blocks,
        teacher=teacher,
    )  # fmt: skip
    if recipe is RecipeName.PAPER:
        options = paper_recipe(options)
    if lr is not None:
        options = replace(options, lr=lr)
    if location_weight is not None:
        options = replace(options, location_weight=location_weight)
    if hint_weight is not None:
        options = replace(options, hint_weight=hint_weight)
    console = Console(stderr=True)
    keep_freed_memory(training=True)
    if benchmark:
        from cpnpose.training.benchmark import benchmark as measure

        speed = measure(options)
        typer.echo(
            f"{model.value} {size} batch {batch}: loop {speed.loop:.1f} people/s, forward and backward alone "
            f"{speed.network:.1f} people/s, share {speed.share:.1%}"
        )
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn(), TextColumn("{task.fields[note]}"))  # fmt: skip
    with Progress(*columns, console=console) as progress:
        crops = progress.add_task("crops", total=None, visible=False, note="")

        def on_cache(done: int, total: int) -> None:
            progress.update(crops, completed=done, total=total, visible=True)

        training = progress.add_task("training", total=1000, note="")

        def on_step(entry: dict[str, object]) -> None:
            if "fraction" in entry:
                note = f"step {entry['step']} loss {entry['loss']} {entry['samples_per_s']} people/s"
                progress.update(training, completed=round(float(str(entry["fraction"])) * 1000), note=note)
            elif "AP" in entry:
                console.print(
                    f"step {entry['step']}: " + ", ".join(f"{k} {v}" for k, v in entry.items() if k != "step")
                )

        metrics = train_pose(options, on_step=on_step, on_cache=on_cache)
    figures = ", ".join(f"{name} {value}" for name, value in metrics.items())
    written = ", ".join(name for name in ("last.safetensors", "best.safetensors") if (out / name).exists())
    console.print(f"{out}: {figures or 'done'} (weights: {written})", markup=False, highlight=False)


def _shares(mix: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(value) for value in mix.split(",")) if mix else ()
    except ValueError as error:
        raise OptionError(f"--mix {mix}: write one number for each annotation file, such as 1,1,0.5") from error
    if shares and not (min(shares) >= 0 and 0 < sum(shares) < math.inf):
        raise OptionError(f"--mix {mix}: the shares must not be negative, and one must be above 0")
    return shares
