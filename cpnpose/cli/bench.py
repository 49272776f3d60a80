"""``cpnpose bench``: how fast everything is on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cpnpose.cli import pipeline_arguments as args
from cpnpose.cli.effects import refuse_idle
from cpnpose.cli.say import say_note
from cpnpose.errors import OptionError


def register(app: typer.Typer) -> None:
    """Add the command ``bench``."""
    app.command("bench")(bench_command)


def bench_command(
    video: Annotated[
        Path | None, typer.Option(help="Measure the whole pipeline and its stages on this video, too.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Most frames of the video.")] = 150,
    weights: args.Weights = "default",
    detector: args.DetectorName = "default",
    detector_weights: args.DetectorWeights = None,
    detect_every: args.DetectEvery = 1,
    flip: args.Flip = False,
    fast: args.Fast = False,
    device: args.Device = "auto",
    precision: args.Precision = "auto",
    architecture: Annotated[
        str, typer.Option(help="Network whose forms are compared: cpn50, cpn101, cpn-light.")
    ] = "cpn50",
    size: Annotated[str, typer.Option(help="Size of its crops, HEIGHTxWIDTH.")] = "256x192",
    batch: Annotated[int, typer.Option(min=1, help="Crops in one go.")] = 16,
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure torchvision's and, where installed, Ultralytics' pose networks.")
    ] = False,
    limit: Annotated[float, typer.Option(min=0.1, help="Seconds for each comparison.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure speed: the network's forms, the decoding of heatmaps, the detector, the pipeline and its stages.

    Networks that are compared are initialised randomly and measured in turns in one run, so their ratios hold where
    their times do not. Calls that other programs disturbed are left out where there are others. It takes some minutes.
    """
    if video is None:
        networks = {
            "--weights": weights != "default",
            "--detector": detector != "default",
            "--detector-weights": detector_weights is not None,
            "--detect-every": detect_every != 1,
            "--flip": flip,
            "--fast": fast,
        }
        refuse_idle(networks, "what is measured without a video has networks of its own; name a video by --video")

    from cpnpose.bench import BenchOptions, bench
    from cpnpose.pipeline.options import ModelOptions, StreamOptions

    models = ModelOptions(
        weights=weights, detector=detector, detector_weights=detector_weights, device=device, precision=precision,
        flip=flip, fast=fast,
    )  # fmt: skip
    report = bench(
        BenchOptions(
            video=video,
            frames=frames,
            models=models,
            stream=StreamOptions(detect_every=detect_every),
            architecture=architecture,  # type: ignore[arg-type]
            input_size=_parse_size(size),
            batch=batch,
            peers=peers,
            limit_s=limit,
        )
    )
    for note in report.get("pipeline", {}).get("notes", []):
        say_note(note)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _show(report)


def _parse_size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in text.split("x"))
    except ValueError:
        raise OptionError(f"--size {text}: give HEIGHTxWIDTH such as 256x192") from None
    return height, width


def _show(report: dict[str, Any]) -> None:
    from cpnpose.cli.tables import output_console

    console = output_console()
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), highlight=False)
    network, decoding = report["network"], report["decoding"]
    name = f"{network['architecture']} {'x'.join(map(str, network['input_size']))}, batch {network['batch']}"
    tables = [
        (f"{name}, memory as PyTorch gets it by default", network["forms"]),
        (f"{name}, freed memory kept, as the commands do", network["forms_with_freed_memory_kept"]),
        ("the inference form's arithmetic beside a product of large matrices", [network["matrix_units"]]),
        (f"decoding the heatmaps of {decoding['people']} people", _decoding_rows(decoding)),
        ("person detector at 640x480, batch 4", report["detector"]),
    ]
    if "pipeline" in report:
        pipeline = dict(report["pipeline"])
        del pipeline["notes"]  # are told on standard error
        tables.append(("stages of the pipeline, one after the other", pipeline.pop("stages")))
        for name, amount in pipeline.pop("peak_memory_bytes").items():
            pipeline[f"peak_memory_{name}_MB"] = amount / 1e6
        whole = [{"": key.replace("_", " "), "value": value} for key, value in pipeline.items()]
        tables.append(("the whole pipeline, its stages at the same time", whole))
    if "agreement" in report:
        tables.append(("poses beside those of the full mode, on the same frames", [report["agreement"]]))
    if "peers" in report:
        tables.append(("other networks, frame by frame", report["peers"]))
    for title, rows in tables:
        for row in rows:
            if "calls" in row:
                row["calls"] = f"{row['calls']} of {row['calls'] + row.pop('disturbed_calls')}"
        console.print(f"\n{title}", style="bold", highlight=False)
        _print_rows(console, rows)


def _decoding_rows(decoding: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each way, for the published one in a loop over joints, and for the network."""
    figures = {"ms": "ms", "share of network": "share_of_network", "times loop": "times_faster_than_loop"}
    return [
        {"": way.replace("_", " ")} | {heading: decoding.get(f"{way}_{name}") for heading, name in figures.items()}
        for way in ("dark", "published", "published_loop", "network")
    ]


_HEADINGS = {
    "times_faster_than_plain_float32": "times float32",
    "times_faster_than_plain_bfloat16": "times bfloat16",
    "times_the_first": "times as long",
    "tflops": "tflops of product",
    "used_tflops": "tflops of network",
    "calls": "undisturbed calls",
}
"""Short headings for a narrow terminal; the JSON has the long names."""


def _print_rows(console: Any, rows: list[dict[str, Any]]) -> None:
    from cpnpose.cli.tables import print_table

    headings = [_HEADINGS.get(name, name.replace("_", " ")) for name in rows[0]]
    named = isinstance(next(iter(rows[0].values())), str)
    print_table(console, headings, [list(map(_text, row.values())) for row in rows], names=named)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)
