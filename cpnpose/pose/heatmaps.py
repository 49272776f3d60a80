"""Heatmaps of keypoints: the targets that a network learns, and the maps of mirrored crops. All of it batched torch.

Maps are (N, K, h, w) at stride 4 of the crop: heatmap pixel x covers crop pixels 4x to 4x + 4, its centre is 4x + 2.
A sure keypoint has a peak of about 255.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from cpnpose.pose.keypoints import FLIP_INDEX

PEAK = 255.0
"""Height of a keypoint's Gaussian."""


def target_sigmas(input_size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Sigmas in heatmap pixels of the four levels, coarse to fine (CPN paper's kernels at its two input sizes).

    They are given for input heights 256 and 384; other heights follow the line through these two, and do not fall
    below 70 % of the values at 256.
    """
    at_256, at_384 = (2.6, 2.0, 1.7, 1.4), (3.8, 2.9, 2.3, 1.7)
    position = (input_size[0] - 256) / 128
    first, second, third, fourth = (max(a + (b - a) * position, 0.7 * a) for a, b in zip(at_256, at_384, strict=True))
    return first, second, third, fourth


def gaussian_targets(
    keypoints_xy: Tensor, labelled: Tensor, sigma: float, size: tuple[int, int], *, quantised: bool = False
) -> Tensor:
    """Gaussian target maps with peak 255.

    Args:
        keypoints_xy: (N, K, 2) crop pixels, corner-origin.
        labelled: (N, K) bool; a keypoint that is not labelled gets an empty map.
        sigma: in heatmap pixels.
        size: (h, w) of the maps.
        quantised: put the peak on the heatmap pixel that holds the keypoint, as published, instead of on the
            keypoint's true place (unbiased coding).

    Returns:
        (N, K, h, w) float32.
    """
    centre = keypoints_xy.float() / 4
    centre = centre.floor() if quantised else centre - 0.5
    x = torch.arange(size[1], device=centre.device, dtype=torch.float32)
    y = torch.arange(size[0], device=centre.device, dtype=torch.float32)
    scale = -0.5 / sigma**2
    along_x = torch.exp(scale * (x - centre[..., 0:1]) ** 2)  # (N, K, w)
    along_y = torch.exp(scale * (y - centre[..., 1:2]) ** 2)  # (N, K, h)
    along_y = along_y * (labelled.float() * PEAK)[..., None]
    return along_y[..., :, None] * along_x[..., None, :]


def mirror_maps(maps: Tensor) -> Tensor:
    """Maps of a mirrored crop, turned back: columns reversed, left and right channels exchanged. Same shape."""
    return maps.flip(-1).index_select(1, _flip_index(maps.device))


@functools.lru_cache(maxsize=8)
def _flip_index(device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # training may use it, too
        return torch.tensor(FLIP_INDEX, device=device)


def merge_flipped(maps: Tensor, maps_of_mirrored: Tensor) -> Tensor:
    """Flip test: mean of the crop's maps and the turned-back maps of its mirror image, both (N, 17, h, w)."""
    return (maps + mirror_maps(maps_of_mirrored)) / 2
