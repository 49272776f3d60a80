"""The two losses of CPN.

Source: Chen et al., CVPR 2018, sections 3.2.1 and 3.2.2 (online hard keypoint mining).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from cpnpose.models.cpn import CPNMaps
from cpnpose.pose.heatmaps import PEAK, gaussian_targets, target_sigmas

HARD_KEYPOINTS = 8
LOCATION_SCALE = 10 / PEAK
"""Map values to logits: a perfect map's softmax then lies within a pixel of the keypoint."""


class CPNLoss(NamedTuple):
    """Scalars."""

    total: Tensor
    global_loss: Tensor
    refine_loss: Tensor


def cpn_loss(
    maps: CPNMaps,
    keypoints_xy: Tensor,
    visibility: Tensor,
    input_size: tuple[int, int],
    *,
    published: bool = False,
    hard_keypoints: int = HARD_KEYPOINTS,
    location_weight: float = 0.0,
) -> CPNLoss:
    """L2 on GlobalNet's four maps and L2 with OHKM on RefineNet's.

    A keypoint without a label (v = 0) counts in neither loss, as published in RefineNet's alone. A labelled but hidden
    one (v = 1) has an empty target in GlobalNet's maps and its Gaussian in RefineNet's. Of RefineNet's per-keypoint
    losses only the ``hard_keypoints`` largest of each person count.

    Args:
        maps: what the network gave, (B, 17, h, w).
        keypoints_xy: (B, 17, 2) crop pixels.
        visibility: (B, 17) 0, 1 or 2.
        input_size: (H, W) of the crops.
        published: as in the public implementations: peaks on whole heatmap pixels, half of GlobalNet's loss, and there
            an empty target for keypoints without a label.
        location_weight: above 0, this many times :func:`location_loss` of every map joins its loss. The squared error
            alone learns slowly where joints are: most of it is the empty background.
    """
    size = (maps.refined.shape[-2], maps.refined.shape[-1])
    labelled, visible = visibility > 0, visibility > 1
    weight = labelled.float()
    global_weight = torch.full_like(weight, 0.5) if published else weight
    sigmas = target_sigmas(input_size)
    global_loss = maps.refined.new_zeros((), dtype=torch.float32)
    for level, sigma in zip(maps.global_maps, sigmas, strict=True):
        target = gaussian_targets(keypoints_xy, visible, sigma, size, quantised=published)
        error = _mean_square(level, target)
        global_loss = global_loss + (error * global_weight).sum(1).mean() / weight.shape[1]
        if location_weight > 0:
            global_loss = global_loss + location_weight * location_loss(level, keypoints_xy, visible, sigma)
    target = gaussian_targets(keypoints_xy, labelled, sigmas[-1], size, quantised=published)
    error = _mean_square(maps.refined, target) * weight  # (B, 17)
    hardest = error.topk(hard_keypoints, dim=1).values
    refine_loss = hardest.sum(1).mean() / hard_keypoints
    if location_weight > 0:
        refine_loss = refine_loss + location_weight * location_loss(maps.refined, keypoints_xy, labelled, sigmas[-1])
    return CPNLoss(global_loss + refine_loss, global_loss, refine_loss)


def location_loss(maps: Tensor, keypoints_xy: Tensor, labelled: Tensor, sigma: float) -> Tensor:
    """Cross-entropy of each map, read as a distribution over its pixels, against a narrow Gaussian at its keypoint.

    The map's values times a fixed scale are the logits, chosen so that a map without squared error has nearly none of
    this loss either: the two agree on their optimum, and this one pulls hardest where a peak is in the wrong place.

    Args:
        maps: (B, K, h, w).
        keypoints_xy: (B, K, 2) crop pixels.
        labelled: (B, K) bool; the others count as 0.
        sigma: of the squared error's target, in heatmap pixels.

    Returns:
        A scalar: the sum over the keypoints of each person, divided by K, averaged over people.
    """
    size = (maps.shape[-2], maps.shape[-1])
    target = gaussian_targets(keypoints_xy, labelled, sigma * 0.1**0.5, size).flatten(2)
    target = target / target.sum(-1, keepdim=True).clamp_min(1e-6)
    return places_loss(maps, target)


def places_loss(maps: Tensor, places: Tensor) -> Tensor:
    """Cross-entropy of each map, read as a distribution over its pixels, against where its keypoint is.

    Args:
        maps: (B, K, h, w).
        places: (B, K, h * w) how likely the keypoint is in each pixel; all 0 for one that does not count.

    Returns:
        A scalar, as of :func:`location_loss`.
    """
    logs = torch.log_softmax(maps.float().flatten(2) * LOCATION_SCALE, dim=-1)
    return -(places * logs).sum((1, 2)).mean() / maps.shape[1]


class _MeanSquare(torch.autograd.Function):
    """Mean over the map of the squared difference, with a backward pass of a single multiplication."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, target: Tensor) -> Tensor:
        difference = target.neg_().add_(maps)  # the target belongs to this function
        ctx.save_for_backward(difference)
        ctx.dtype = maps.dtype
        return difference.square().mean((-2, -1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        scale = gradient * (2 / (difference.shape[-1] * difference.shape[-2]))
        return (difference * scale[..., None, None]).to(ctx.dtype), None


def _mean_square(maps: Tensor, target: Tensor) -> Tensor:
    """(B, K, h, w) and a fresh float32 target of that shape to (B, K); the target is overwritten."""
    return _MeanSquare.apply(maps, target)  # type: ignore[no-any-return]
