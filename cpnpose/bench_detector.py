"""Speed of the person detector and of other public networks on the same frames, all randomly initialised."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torchvision

from cpnpose.bench_timing import race
from cpnpose.models.detect_batch import DetectorNetwork
from cpnpose.models.detector import DetectorConfig, build_detector
from cpnpose.models.fuse_module import use_fused_convolutions
from cpnpose.pose.types import ImageArray

DETECTOR_PEER = "fasterrcnn_mobilenet_v3_large_320_fpn"
_SIZE = (480, 640)
_BATCH = 4


@torch.inference_mode()
def detectors(device: torch.device, dtype: torch.dtype, limit_s: float) -> list[dict[str, Any]]:
    """Time per image of the person detector at 640x480, four images at once, beside torchvision's lightest one."""
    images = noise_images(_BATCH)
    model = build_detector(DetectorConfig())
    use_fused_convolutions(model)
    own = DetectorNetwork(model, device, dtype)
    peer = torchvision.models.get_model(DETECTOR_PEER, weights=None, weights_backbone=None).eval().to(device)
    calls: dict[str, Callable[[], object]] = {
        f"person detector {str(dtype).removeprefix('torch.')}": lambda: own.detect(images, score=0.5, nms=0.5),
        f"torchvision {DETECTOR_PEER}": lambda: peer([_tensor(image, device) for image in images]),
    }
    times = race(calls, limit_s=limit_s, device=device)
    first = next(iter(times.values())).seconds
    return [
        {
            "detector": name,
            "ms_per_image": timing.seconds / _BATCH * 1e3,
            "images_per_s": _BATCH / timing.seconds,
            "times_the_first": timing.seconds / first,
            "calls": timing.calls,
            "disturbed_calls": timing.disturbed,
        }
        for name, timing in times.items()
    ]


@torch.inference_mode()
def peers(images: list[ImageArray], device: torch.device, limit_s: float) -> list[dict[str, Any]]:
    """Time per frame of other pose networks, those that are installed; each as it comes, one frame at a time."""
    model = torchvision.models.get_model("keypointrcnn_resnet50_fpn", weights=None, weights_backbone=None)
    model = model.eval().to(device)
    calls: dict[str, Callable[[], object]] = {
        "torchvision keypointrcnn_resnet50_fpn": lambda: [model([_tensor(image, device)]) for image in images]
    }
    calls |= _ultralytics_calls(images, device)
    times = race(calls, rounds=3, limit_s=limit_s, device=device)
    return [
        {
            "network": name,
            "ms_per_frame": timing.seconds / len(images) * 1e3,
            "frames_per_s": len(images) / timing.seconds,
            "calls": timing.calls,
            "disturbed_calls": timing.disturbed,
        }
        for name, timing in times.items()
    ]


def _ultralytics_calls(images: list[ImageArray], device: torch.device) -> dict[str, Callable[[], object]]:
    """Ultralytics' networks by name; none where the package is not installed."""
    if importlib.util.find_spec("ultralytics") is None:
        return {}
    with contextlib.redirect_stdout(sys.stderr):  # where it tells of its settings
        ultralytics: Any = importlib.import_module("ultralytics")
        networks = {name: ultralytics.YOLO(f"{name}.yaml", verbose=False) for name in ("yolov8n-pose", "yolov8m-pose")}
    return {f"ultralytics {name}": partial(_predict, yolo, images, device) for name, yolo in networks.items()}


def _predict(yolo: Any, images: list[ImageArray], device: torch.device) -> None:
    for image in images:
        yolo.predict(image[..., ::-1], device=str(device), verbose=False)


def noise_images(count: int, size: tuple[int, int] = _SIZE) -> list[ImageArray]:
    """Images (H, W, 3) uint8 of noise."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def _tensor(image: ImageArray, device: torch.device) -> torch.Tensor:
    """An image as torchvision's detectors want it: float (3, H, W), 0 to 1."""
    return torch.from_numpy(image).to(device).permute(2, 0, 1).float() / 255
