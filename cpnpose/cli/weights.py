"""``cpnpose weights``: what is at hand, is it whole, where to get more, and how to bring in checkpoints of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cpnpose.cli.arguments import parse_size
from cpnpose.cli.effects import refuse_idle
from cpnpose.cli.help import Group
from cpnpose.cli.say import number_of
from cpnpose.errors import OptionError, OutputError, WeightsError

_PEOPLE, _IMAGES = 320, 100  # on which quantize measures a CPN and a detector
FolderOption = Annotated[
    Path | None, typer.Option("--folder", help="Folder of the manifest. Default: that of the shipped weights.")
]


def register(app: typer.Typer) -> None:
    """Add the command group ``weights``."""
    group = typer.Typer(cls=Group, no_args_is_help=True, help="List, check, fetch, convert and register weights.")
    group.command("list")(list_weights)
    group.command("verify")(verify_weights)
    group.command("download")(download_weights)
    group.command("import")(import_weights)
    group.command("quantize")(quantize_weights)
    group.command("average")(average_weights)
    group.command("add")(add_weights_file)
    app.add_typer(group, name="weights")


def list_weights(folder: FolderOption = None) -> None:
    """Show the weights that are known by name, where each file is, and what was measured with it."""
    from cpnpose.models.manifest import load_manifest

    manifest = load_manifest(folder)
    if not manifest.entries:
        typer.echo(
            f"No weights are registered in {manifest.folder}. "
            "Give weights files by their path, or register one by 'cpnpose weights add FILE'."
        )
        return
    for name, entry in sorted(manifest.entries.items()):
        path = manifest.find(entry)
        if path is not None:
            place = f"{path.stat().st_size / 1e6:.1f} MB, {path}"
        else:
            place = "not downloaded" if entry.url else "file missing"
        defaults = (manifest.default_pose, manifest.default_detector)
        mark = f" (default {entry.kind})" if name in defaults else ""
        typer.echo(f"{name}{mark}: {entry.kind}, {place}")
        figures = ", ".join(f"{key} {value}" for key, value in entry.metrics.items())
        for label, text in (("measured", figures), ("data", entry.data), ("licence", entry.licence)):
            if text:
                typer.echo(f"    {label}: {text}")


def verify_weights(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Which weights. Default: all that are here.")
    ] = None,
    folder: FolderOption = None,
) -> None:
    """Check weights files against the sha256 of the manifest."""
    from cpnpose.models.manifest import load_manifest, verify

    manifest = load_manifest(folder)
    entries = [manifest.entry(name) for name in names] if names else [e for _, e in sorted(manifest.entries.items())]
    if not entries:
        typer.echo(f"No weights are registered in {manifest.folder}: nothing to check.")
    faults = 0
    for entry in entries:
        if not names and entry.url and manifest.find(entry) is None:
            typer.echo(f"{entry.name}: not downloaded")
            continue
        try:
            typer.echo(f"{entry.name}: ok, {verify(manifest, entry)}")
        except WeightsError as error:
            faults += 1
            typer.echo(f"{entry.name}: {error}", err=True)
    if faults:
        raise WeightsError(f"{faults} of {len(entries)} weights files are not as the manifest says; see above")


def download_weights(
    name: Annotated[str, typer.Argument(help="Which weights, as 'cpnpose weights list' names them.")],
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    folder: FolderOption = None,
) -> None:
    """Fetch weights; a download that broke off goes on where it stopped."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from cpnpose.models.download import download_entry
    from cpnpose.models.manifest import load_manifest

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    manifest = load_manifest(folder)
    manifest.entry(name)  # an unknown name is told before there is a bar
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task(name, total=None, visible=False)
        path = download_entry(
            manifest,
            name,
            progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True),
        )
    typer.echo(str(path))


def import_weights(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of pytorch-cpn (.pth.tar).")],
    out: Annotated[Path, typer.Option("--out", help="Weights file to write (.safetensors).")],
    size: Annotated[
        str | None,
        typer.Option("--size", help="Input size HxW. Default: the one in the file's name, else 256x192."),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16"], typer.Option("--precision", help="fp16 halves the file and rounds the weights.")
    ] = "fp32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Convert a checkpoint of pytorch-cpn (ResNet-50 or ResNet-101) into a weights file."""
    _check_target(out, overwrite)
    input_size = None if size is None else parse_size(size)

    import torch

    from cpnpose.models.foreign import import_checkpoint, size_in_name

    dtype = torch.float16 if precision == "fp16" else torch.float32
    metadata = import_checkpoint(checkpoint, out, input_size=input_size, dtype=dtype)
    height, width = metadata.input_size
    typer.echo(
        f"{out}: {metadata.architecture}, input {height}x{width}, {out.stat().st_size / 1e6:.1f} MB, {precision}"
    )
    if input_size is None and size_in_name(checkpoint.name) is None:
        typer.echo("The input size is not told by the file; 256x192 is taken. If it is another, give --size.", err=True)


def quantize_weights(
    weights: Annotated[str, typer.Argument(help="Weights of a CPN or a person detector: a name or a file.")],
    images: Annotated[
        list[Path],
        typer.Argument(help="Images of people, or folders of them, with all folders in these: such as will be used."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Weights file to write (.safetensors).")],
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            min=1,
            help="Of how many people, for a detector images, the ranges are measured. Default: 320, 100.",
        ),
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="What finds the people for a CPN; see 'cpnpose video --help'. Default: default.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name. Default: the old one with -int8.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write an int8 form of weights, for CPUs: OpenVINO runs it. Needs cpnpose's extra 'quantize'."""
    _check_target(out, overwrite)

    from cpnpose.media.images import find_images
    from cpnpose.models.quantize import import_tools, quantize, quantize_detector, read_source
    from cpnpose.pipeline.calibrate import people_in, pictures
    from cpnpose.pipeline.load_detector import make_detector
    from cpnpose.pipeline.options import ModelOptions

    import_tools()  # a missing package is told before there is work
    metadata = read_source(weights)
    found = find_images(images, recursive=True)
    if metadata.kind == "detector":
        refuse_idle({"--detector": detector is not None}, f"{weights} is a detector itself; leave it out")
        taken = min(count or _IMAGES, len(found))
        made = quantize_detector(weights, pictures(found, taken), out, name=name or "")
        measured = number_of(taken, "image")
        command = "evaluate-boxes --detector-weights"
    else:
        find = make_detector(ModelOptions(detector=detector or "default", device="cpu"))
        crops = people_in(found, find, metadata.input_size, metadata.preprocessing, count or _PEOPLE)
        made = quantize(weights, crops, out, name=name or "")
        measured = f"{len(crops)} people"
        command = "evaluate --weights"
    typer.echo(f"{out}: {made.name}, int8, {out.stat().st_size / 1e6:.1f} MB, from {measured}")
    typer.echo(f"int8 may cost accuracy: 'cpnpose {command}' measures it.", err=True)


def average_weights(
    weights: Annotated[list[str], typer.Argument(help="Two or more weights of one network: names or files.")],
    out: Annotated[Path, typer.Option("--out", help="Weights file to write (.safetensors).")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write the mean of weights, of runs that went on from the same ones."""
    _check_target(out, overwrite)
    if len(weights) < 2:
        raise OptionError(f"{weights[0]}: give two or more weights")

    from cpnpose.models.average import average

    made = average(weights, out)
    typer.echo(f"{out}: {made.architecture}, mean of {len(weights)}")


def add_weights_file(
    file: Annotated[Path, typer.Argument(help="Weights file that cpnpose wrote.")],
    default: Annotated[bool, typer.Option("--default", help="Make it the default of its kind.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="Name. Default: the one in its metadata.")] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Where users download it; the file is then not copied.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another file of that name.")] = False,
    folder: FolderOption = None,
) -> None:
    """Register a weights file in the manifest, by its sha256 and metadata, and copy it beside the manifest."""
    from cpnpose.models.manifest import load_manifest
    from cpnpose.models.publish import add_weights

    manifest = load_manifest(folder)
    entry = add_weights(manifest, file, name=name, url=url, default=default, overwrite=overwrite)
    typer.echo(f"{entry.name}: {entry.kind}, {entry.file}, sha256 {entry.sha256}")


def _check_target(out: Path, overwrite: bool) -> None:
    if out.suffix != ".safetensors":
        raise OptionError(f"--out {out}: weights files end in .safetensors")
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists; use --overwrite to replace it")
