"""What ``cpnpose bench`` measures: the networks' forms, the decoding, the detector, the whole pipeline, the agreement
of quicker modes with the full one, other networks.

Everything that is compared is measured in one run, in turns; see ``bench_timing``.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torchvision

from cpnpose import __version__
from cpnpose.api import PoseEstimator
from cpnpose.bench_agreement import agreement
from cpnpose.bench_detector import detectors, noise_images, peers
from cpnpose.bench_network import DECODED_PEOPLE, decoding, matrix_units, network_forms, network_forms_apart
from cpnpose.bench_pipeline import peak_memory_bytes, pipeline
from cpnpose.errors import OptionError
from cpnpose.media.video import VideoReader
from cpnpose.models.cpn import ARCHITECTURES, STRIDE, Architecture
from cpnpose.pipeline.device import choose_device, choose_precision, device_name
from cpnpose.pipeline.memory import keep_freed_memory
from cpnpose.pipeline.options import ModelOptions, StreamOptions
from cpnpose.pose.types import ImageArray

_INFERENCE_FORM = 2
_PEER_FRAMES = 4


@dataclass(frozen=True)
class BenchOptions:
    """What to measure."""

    video: Path | None = None
    """Measure the pipeline on it, too."""
    frames: int = 150
    """Most frames of the video."""
    models: ModelOptions = field(default_factory=ModelOptions)
    """The networks of the pipeline; device and precision of everything."""
    stream: StreamOptions = field(default_factory=StreamOptions)
    architecture: Architecture = "cpn50"
    """Of the pose network whose forms are compared."""
    input_size: tuple[int, int] = (256, 192)
    """(height, width) of its crops."""
    batch: int = 16
    """Crops in one go."""
    peers: bool = False
    """Measure other public networks, too."""
    limit_s: float = 30.0
    """For each comparison."""

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise OptionError(f"--architecture {self.architecture}: use one of {', '.join(ARCHITECTURES)}")
        if any(side < 32 or side % 32 for side in self.input_size):
            raise OptionError("--size: give multiples of 32 as HEIGHTxWIDTH")
        if self.frames < 1 or self.batch < 1 or self.limit_s <= 0:
            raise OptionError("--frames, --batch and --limit: give numbers above 0")


def bench(options: BenchOptions) -> dict[str, Any]:
    """Measure and report, as plain JSON values; see the modules ``bench_*`` for the fields.

    Raises:
        CpnposeError: no such device, or the video or the weights cannot be read.
    """
    keep_freed_memory()  # as the other commands do
    device = choose_device(options.models.device)
    dtype = choose_precision(options.models.precision, device)
    report: dict[str, Any] = {
        "machine": {
            "cpnpose": __version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "processor": processor_name(),
            "threads": torch.get_num_threads(),
            "device": device_name(device),
            "precision": str(dtype).removeprefix("torch."),
        }
    }
    if options.video is not None:
        estimator = PoseEstimator(options=options.models)
        report["pipeline"] = pipeline(options.video, estimator, options.stream, options.frames)
        report["pipeline"]["peak_memory_bytes"] = peak_memory_bytes(device)
        if options.models.fast or options.stream.detect_every > 1:
            full = PoseEstimator(options=replace(options.models, fast=False))
            report["agreement"] = agreement(options.video, options.stream, estimator, full, options.frames)
    compared = (options.architecture, options.input_size, device, dtype)
    by_default, forms = (
        measure(*compared, batch=options.batch, limit_s=options.limit_s)
        for measure in (network_forms_apart, network_forms)
    )
    report["network"] = {
        "architecture": options.architecture, "input_size": list(options.input_size), "batch": options.batch,
        "forms": by_default, "forms_with_freed_memory_kept": forms,
    }  # fmt: skip
    units = matrix_units(*compared, options.limit_s)
    tflops = forms[_INFERENCE_FORM]["crops_per_s"] * units["gflop_per_crop"] / 1e3
    report["network"]["matrix_units"] = units | {"used_tflops": tflops, "share": tflops / units["tflops"]}
    network_s = DECODED_PEOPLE / forms[_INFERENCE_FORM]["crops_per_s"]
    heatmap_size = options.input_size[0] // STRIDE, options.input_size[1] // STRIDE
    report["decoding"] = decoding(device, dtype, heatmap_size, network_s, options.limit_s)
    report["detector"] = detectors(device, dtype, options.limit_s)
    if options.peers:
        report["peers"] = peers(_peer_images(options.video), device, 2 * options.limit_s)
        if "pipeline" in report:
            own = report["pipeline"]["frames_per_s"]
            for row in report["peers"]:
                row["pipeline_times_faster"] = own / row["frames_per_s"]
    return report


def processor_name() -> str:
    """The processor's name as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _peer_images(video: Path | None) -> list[ImageArray]:
    if video is None:
        return noise_images(_PEER_FRAMES)
    with VideoReader(video) as reader:
        return [frame.image for frame in islice(reader, _PEER_FRAMES)]
