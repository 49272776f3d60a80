"""The published decoding, against numbers of the public implementation and against OpenCV's blur."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from cpnpose.pose.decode_published import decode_published
from cpnpose.pose.heatmaps import gaussian_targets


@pytest.fixture(scope="module")
def shared() -> Path:
    folder = Path(os.environ.get("CPNPOSE_SHARED") or Path(__file__).resolve().parents[2].parent / "shared")
    if not (folder / "parity").is_dir():
        pytest.skip("needs ../shared/parity")
    return folder


@pytest.mark.parametrize("size", [(256, 192), (384, 288)])
def test_decoding_agrees_with_the_public_implementation(size: tuple[int, int], shared: Path) -> None:
    data = np.load(shared / "parity" / f"decode_{size[0]}x{size[1]}.npz")
    xy, scores = decode_published(torch.from_numpy(data["heatmaps"]))
    corner, opposite = data["crop_xyxy"][:, None, :2], data["crop_xyxy"][:, None, 2:]
    image_xy = corner + xy.double().numpy() / (size[1], size[0]) * (opposite - corner)
    assert np.abs(image_xy - data["keypoints"][..., :2]).max() < 1e-4
    assert np.abs(scores.numpy() - data["keypoints"][..., 2]).max() < 1e-6
    instance = data["box_scores"] * scores.double().numpy().mean(1)
    assert np.abs(instance - data["instance_scores"]).max() < 1e-6


def _one_by_one(heatmap: npt.NDArray[np.float32]) -> tuple[float, float, float]:
    """x, y in crop pixels and score of one map (h, w), step by step as CPN.md tells it."""
    height, width = heatmap.shape
    padded = np.pad(heatmap.astype(np.float64) / heatmap.max(), 10)
    blurred = cv2.GaussianBlur(padded, (21, 21), 0)
    best = np.array(np.unravel_index(blurred.argmax(), blurred.shape))
    blurred[tuple(best)] = -np.inf
    step = np.array(np.unravel_index(blurred.argmax(), blurred.shape)) - best
    y, x = best - 10 + 0.25 * step / np.hypot(*step)
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    return 4 * x + 2, 4 * y + 2, float(heatmap[round(y), round(x)]) / 255 + 0.5


@pytest.mark.parametrize(("scale", "noise"), [(1.0, 0.01), (1.0, 20.0), (0.01, 0.1), (0.0, 1.0)])
@pytest.mark.parametrize("spread", [1.0, 1.3])
def test_decoding_agrees_with_opencv(scale: float, noise: float, spread: float) -> None:
    generator = torch.Generator().manual_seed(0)
    middle = torch.tensor([96.0, 128.0])
    places = middle + (torch.rand(6, 17, 2, generator=generator) * 2 - 1) * middle * spread  # 1.3: some lie outside
    maps = gaussian_targets(places, torch.ones(6, 17, dtype=torch.bool), 1.4, (64, 48)) * scale
    maps = maps + noise * torch.randn(maps.shape, generator=generator) + 1e-3
    xy, scores = decode_published(maps)
    expected = np.array([[_one_by_one(m) for m in person] for person in maps.numpy()])
    assert np.abs(xy.numpy() - expected[..., :2]).max() < 1e-3
    assert np.abs(scores.numpy() - expected[..., 2]).max() < 1e-5
