"""Speed of the pose network in its forms, and of the decoding of its heatmaps."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from cpnpose.bench_timing import race
from cpnpose.errors import OptionError
from cpnpose.models.cpn import CPN, Architecture, CPNConfig
from cpnpose.models.cuda_graph import GraphedNetwork
from cpnpose.models.fuse import fuse
from cpnpose.models.int8 import Int8Network, load_graph
from cpnpose.models.quantize import import_tools, int8_cpn
from cpnpose.pose.decode import Decoding, decode
from cpnpose.pose.heatmaps import gaussian_targets
from cpnpose.pose.keypoints import NUM_KEYPOINTS
from cpnpose.pose.types import FloatArray

DECODED_PEOPLE = 64
_MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}
_BORDER = 10


@torch.inference_mode()
def network_forms(
    architecture: Architecture,
    input_size: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
    *,
    batch: int,
    limit_s: float,
) -> list[dict[str, Any]]:
    """Time per crop of a randomly initialised network: as it is trained, in its inference form, and, on a CPU where
    NNCF and OpenVINO are installed, in int8.

    Returns:
        A row for each form: name, ms_per_crop, crops_per_s, and how many times faster than the first two rows
        (the plain form in float32, and in bfloat16 with channels-last layout).
    """
    config = CPNConfig(architecture, input_size)
    plain = CPN(config).eval().to(device)
    low = CPN(config).eval().to(device=device, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    crops = torch.randn(batch, 3, *input_size, device=device)
    crops_low = crops.to(torch.bfloat16, memory_format=torch.channels_last)
    crops_own = crops.to(dtype, memory_format=torch.channels_last)
    fused, fast = fuse(plain).to(dtype), fuse(plain, fast=True).to(dtype)
    own = GraphedNetwork(fused, buckets=(batch,)) if device.type == "cuda" else fused  # as the pipeline runs it
    name = str(dtype).removeprefix("torch.")
    calls: dict[str, Callable[[], object]] = {
        "plain float32": lambda: plain(crops),
        "plain bfloat16 channels-last": lambda: low(crops_low),
        f"inference form {name}": lambda: own(crops_own),
        f"inference form {name} --fast": lambda: fast(crops_own),
    }
    if device.type == "cuda":
        calls[f"inference form {name} without CUDA graph"] = lambda: fused(crops_own)
    if dtype != torch.float32:
        exact, crops_exact = fuse(plain), crops.to(memory_format=torch.channels_last)
        calls["inference form float32"] = lambda: exact(crops_exact)
    quantised = _int8(plain, crops) if device.type == "cpu" else None
    if quantised is not None:
        calls["int8 by OpenVINO"] = lambda: quantised(crops)
    return _rows(race(calls, limit_s=limit_s, device=device), batch, "crop")


@torch.inference_mode()
def matrix_units(
    architecture: Architecture, input_size: tuple[int, int], device: torch.device, dtype: torch.dtype, limit_s: float
) -> dict[str, float]:
    """What the inference form has to compute, beside what the device computes at best.

    Returns:
        gflop_per_crop: 1e9 floating-point operations (a multiplication and an addition are two) of the convolutions;
        tflops: 1e12 such operations per second of a product of large square matrices in ``dtype``.
    """
    network = fuse(CPN(CPNConfig(architecture, input_size)).eval())
    total = 0

    def count(conv: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal total
        assert isinstance(conv, nn.Conv2d)
        total += 2 * output.numel() * conv.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    network(torch.zeros(1, 3, *input_size))
    side = _MATRIX_SIDE.get(device.type, _MATRIX_SIDE["cpu"])
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = race({"product": lambda: left @ right}, limit_s=limit_s, device=device)["product"]
    return {"gflop_per_crop": total / 1e9, "tflops": 2 * side**3 / product.seconds / 1e12}


def _int8(plain: CPN, crops: Tensor) -> nn.Module | None:
    """The form that ``weights quantize`` makes, its ranges those of ``crops``; None where its packages are missing."""
    try:
        import_tools()
    except OptionError:
        return None
    # NNCF talks about its progress on both of the standard streams.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        entries = int8_cpn(plain, [crops.numpy()])
    return Int8Network(load_graph(Path("int8"), entries))


def network_forms_apart(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """:func:`network_forms` in a process of its own, whose memory is as PyTorch finds it by default.

    The commands keep freed memory (:func:`~cpnpose.pipeline.memory.keep_freed_memory`), which makes the plain forms
    quicker, too: they give back and get anew several times what the inference form does.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(network_forms, *args, **kwargs).result()


@torch.inference_mode()
def decoding(
    device: torch.device, dtype: torch.dtype, heatmap_size: tuple[int, int], network_s: float, limit_s: float
) -> dict[str, Any]:
    """Time to decode the heatmaps of 64 people, beside the network's and a Python loop's.

    Args:
        device, dtype: of the maps as the network gives them.
        heatmap_size: (height, width) of the maps.
        network_s: seconds of the network for as many people.
        limit_s: for all of it.

    Returns:
        Milliseconds of each way, its share of the network's time, and how many times faster it is than the published
        decoding in a loop over joints.
    """
    maps = likely_maps(DECODED_PEOPLE, heatmap_size).to(device, dtype, memory_format=torch.channels_last)
    plain_maps = maps.float().contiguous().cpu().numpy()
    ways: dict[str, nn.Module] = {"dark": _Decoder("dark"), "published": _Decoder("published")}
    if device.type == "cuda":  # as the pipeline runs it
        ways = {name: GraphedNetwork(way, buckets=(len(maps),)) for name, way in ways.items()}
    calls: dict[str, Callable[[], object]] = {name: partial(way, maps) for name, way in ways.items()}
    times = race(calls, rounds=9, limit_s=limit_s / 2, device=device)
    loop = race({"loop": lambda: decode_in_a_loop(plain_maps)}, rounds=3, limit_s=limit_s / 2)["loop"]
    report: dict[str, Any] = {"people": DECODED_PEOPLE, "network_ms": network_s * 1e3}
    for name, timing in times.items():
        report[f"{name}_ms"] = timing.seconds * 1e3
        report[f"{name}_share_of_network"] = timing.seconds / network_s
        report[f"{name}_times_faster_than_loop"] = loop.seconds / timing.seconds
    report["published_loop_ms"] = loop.seconds * 1e3
    return report


class _Decoder(nn.Module):
    """:func:`decode` as a network."""

    def __init__(self, method: Decoding) -> None:
        super().__init__()
        self.method: Decoding = method

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        return decode(maps, self.method)


def likely_maps(people: int, heatmap_size: tuple[int, int], seed: int = 0) -> Tensor:
    """Heatmaps (people, 17, h, w) float32 as a network gives them: a peak each, on a little noise."""
    generator = torch.Generator().manual_seed(seed)
    limit = torch.tensor([heatmap_size[1], heatmap_size[0]]) * 4.0
    places = torch.rand(people, NUM_KEYPOINTS, 2, generator=generator) * limit
    maps = gaussian_targets(places, torch.ones(people, NUM_KEYPOINTS), 1.4, heatmap_size)
    return maps + torch.rand(maps.shape, generator=generator) * 2


def decode_in_a_loop(maps: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The published decoding, one joint at a time, as a yardstick; arguments and results as in ``decode_published``."""
    people, joints, height, width = maps.shape
    xy, scores = np.zeros((people, joints, 2), np.float32), np.zeros((people, joints), np.float32)
    for person in range(people):
        for joint in range(joints):
            heatmap = maps[person, joint] / (maps[person, joint].max() or 1)
            padded = np.zeros((height + 2 * _BORDER, width + 2 * _BORDER))
            padded[_BORDER:-_BORDER, _BORDER:-_BORDER] = heatmap
            blurred = cv2.GaussianBlur(padded, (2 * _BORDER + 1, 2 * _BORDER + 1), 0)
            y, x = np.unravel_index(blurred.argmax(), blurred.shape)
            blurred[y, x] = -np.inf
            other_y, other_x = np.unravel_index(blurred.argmax(), blurred.shape)
            step = np.array([other_x - x, other_y - y], np.float32)
            place = np.array([x - _BORDER, y - _BORDER]) + 0.25 * step / max(float(np.hypot(*step)), 1e-3)
            place = place.clip(0, [width - 1, height - 1])
            nearest_x, nearest_y = (int(value) for value in place.round())
            xy[person, joint] = place * 4 + 2
            scores[person, joint] = maps[person, joint, nearest_y, nearest_x] / 255 + 0.5
    return xy, scores


def _rows(times: dict[str, Any], items: int, item: str) -> list[dict[str, Any]]:
    plain, low, *_ = (timing.seconds for timing in times.values())
    return [
        {
            "form": name,
            f"ms_per_{item}": timing.seconds / items * 1e3,
            f"{item}s_per_s": items / timing.seconds,
            "times_faster_than_plain_float32": plain / timing.seconds,
            "times_faster_than_plain_bfloat16": low / timing.seconds,
            "calls": timing.calls,
            "disturbed_calls": timing.disturbed,
        }
        for name, timing in times.items()
    ]
