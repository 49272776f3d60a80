"""Augmentation of a whole batch on its device: geometry in one grid sample, colour, and patches that hide joints."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cpnpose.pose.keypoints import FLIP_INDEX, LOWER_BODY, UPPER_BODY
from cpnpose.pose.types import Preprocessing
from cpnpose.training.dataset import MARGIN, PoseBatch


@dataclass(frozen=True)
class AugmentOptions:
    """Strengths of the augmentation."""

    scale: tuple[float, float] = (0.65, 1.35)
    """The crop shows this many times the person's region."""
    rotation_deg: float = 40.0
    """Rotation is uniform in plus or minus this."""
    rotation_probability: float = 0.6
    shift: float = 0.06
    """Standard deviation of the shift, as a share of the crop's sides; at most three times this."""
    flip_probability: float = 0.5
    gain: float = 0.2
    """Each colour channel is multiplied by 1 plus or minus this."""
    contrast: float = 0.3
    """Contrast and brightness change by plus or minus this share."""
    gray_probability: float = 0.1
    half_body_probability: float = 0.25
    """The crop shows only the upper or the lower body of a person with enough labelled joints."""
    occlusion_probability: float = 0.4
    """A rectangle is covered by a piece of another person's crop, or by one colour."""


PAPER = AugmentOptions(
    scale=(0.7, 1.35),
    rotation_deg=45.0,
    rotation_probability=1.0,
    shift=0.0,
    contrast=0.0,
    gray_probability=0.0,
    half_body_probability=0.0,
    occlusion_probability=0.0,
)
"""What the public implementation does: scale, rotation, flip, channel gain."""
PLAIN = AugmentOptions((1.0, 1.0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""No augmentation."""


@dataclass(frozen=True)
class Augmented:
    """A batch as the network gets it."""

    crops: Tensor
    """(B, 3, H, W) float32, normalised."""
    keypoints_xy: Tensor
    """(B, 17, 2) float32 crop pixels, corner-origin."""
    visibility: Tensor
    """(B, 17) uint8; a joint outside the crop counts as not labelled."""


def augment(
    batch: PoseBatch,
    input_size: tuple[int, int],
    options: AugmentOptions,
    preprocessing: Preprocessing,
    generator: torch.Generator,
) -> Augmented:
    """Draw a random view of every cached crop.

    Args:
        batch: cached crops, MARGIN times as high and wide as the input.
        input_size: (H, W).
        generator: on the batch's device; the only source of chance.
    """
    device, count = batch.pixels.device, len(batch.pixels)
    height, width = input_size
    size = torch.tensor([width, height], device=device, dtype=torch.float32)
    cached = torch.tensor([batch.pixels.shape[-1], batch.pixels.shape[-2]], device=device, dtype=torch.float32)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, device=device, generator=generator) * (high - low) + low

    centre, scale = _half_body(batch, uniform(0, 1, 3), options.half_body_probability, cached)
    scale = scale * uniform(*options.scale)
    turned = uniform(0, 1) < options.rotation_probability
    angle = uniform(-1, 1) * math.radians(options.rotation_deg) * turned
    shift = torch.randn(count, 2, device=device, generator=generator).clamp(-3, 3) * options.shift * size
    mirror = torch.where(uniform(0, 1) < options.flip_probability, -1.0, 1.0)

    # cached = centre + scale * ratio * R (crop - size / 2 + shift), with the crop's x mirrored first
    ratio = cached / MARGIN / size
    cos, sin = angle.cos() * scale, angle.sin() * scale
    linear = torch.stack([torch.stack([cos * mirror, -sin], -1), torch.stack([sin * mirror, cos], -1)], -2)
    linear = linear * ratio[:, None]
    offset = centre + (linear @ (shift - size / 2)[..., None])[..., 0]
    pixels = _sample(batch.pixels, linear, offset, size, cached, preprocessing)

    points = (torch.linalg.inv(linear) @ (batch.keypoints_xy - offset[:, None]).transpose(1, 2)).transpose(1, 2)
    mirrored = (mirror < 0)[:, None]
    flip = list(FLIP_INDEX)
    points = torch.where(mirrored[..., None], points[:, flip], points)
    visibility = torch.where(mirrored, batch.visibility[:, flip], batch.visibility)
    inside = ((points >= 0) & (points < size)).all(-1)
    visibility = torch.where(inside, visibility, torch.zeros_like(visibility))

    pixels = _colour(pixels, options, uniform)
    if options.occlusion_probability > 0:
        pixels = _occlude(pixels, options.occlusion_probability, uniform)
    return Augmented(pixels, points, visibility)


def centre_crops(batch: PoseBatch, input_size: tuple[int, int], preprocessing: Preprocessing) -> Augmented:
    """The crops without augmentation."""
    return augment(batch, input_size, PLAIN, preprocessing, torch.Generator(batch.pixels.device))


def _half_body(batch: PoseBatch, chance: Tensor, probability: float, cached: Tensor) -> tuple[Tensor, Tensor]:
    """Centre (B, 2) in cached pixels and scale (B,) of the region to show."""
    centre, scale = (cached / 2).expand(len(chance), 2), torch.ones_like(chance[:, 0])
    if probability <= 0:
        return centre, scale
    upper = torch.zeros(17, dtype=torch.bool, device=cached.device)
    upper[list(UPPER_BODY)] = True
    lower = torch.zeros_like(upper)
    lower[list(LOWER_BODY)] = True
    labelled = batch.visibility > 0
    part = torch.where(chance[:, 1:2] < 0.7, upper, lower) & labelled
    enough = (labelled.sum(1) >= 8) & (part.sum(1) >= 4) & (chance[:, 0] < probability)
    far = torch.full_like(batch.keypoints_xy, 1e6)
    low = torch.where(part[..., None], batch.keypoints_xy, far).amin(1)
    high = torch.where(part[..., None], batch.keypoints_xy, -far).amax(1)
    needed = ((high - low) * (1.4 + 0.4 * chance[:, 2:3]) / (cached / MARGIN)).amax(1).clamp(0.45, 1.0)
    return torch.where(enough[:, None], (low + high) / 2, centre), torch.where(enough, needed, scale)


def _sample(
    pixels: Tensor, linear: Tensor, offset: Tensor, size: Tensor, cached: Tensor, preprocessing: Preprocessing
) -> Tensor:
    """Bilinear sampling in one call; the mean is subtracted before it, so that the mean colour (zero) lies outside."""
    theta = torch.empty(len(pixels), 2, 3, device=pixels.device)
    theta[:, :, :2] = linear * size / cached[:, None]
    theta[:, :, 2] = (offset + (linear @ (size / 2)[:, None])[..., 0]) / cached * 2 - 1
    grid = F.affine_grid(theta, [len(pixels), 3, int(size[1]), int(size[0])], align_corners=False)
    mean = torch.tensor(preprocessing.mean, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(preprocessing.std, device=pixels.device).view(3, 1, 1)
    centred = pixels.contiguous().float().sub_(mean)
    return F.grid_sample(centred, grid, mode="bilinear", align_corners=False).div_(std)


def _colour(pixels: Tensor, options: AugmentOptions, uniform) -> Tensor:  # type: ignore[no-untyped-def]
    """Channel gain, contrast, brightness and, now and then, gray; on normalised values."""
    if options.gain > 0:
        pixels = pixels * uniform(1 - options.gain, 1 + options.gain, 3, 1, 1)
    if options.contrast > 0:
        pixels = pixels * uniform(1 - options.contrast, 1 + options.contrast, 1, 1, 1)
        pixels = pixels + uniform(-options.contrast, options.contrast, 1, 1, 1)
    if options.gray_probability > 0:
        gray = (uniform(0, 1, 1, 1, 1) < options.gray_probability).float()
        pixels = pixels + gray * (pixels.mean(1, keepdim=True) - pixels)
    return pixels


def _occlude(pixels: Tensor, probability: float, uniform) -> Tensor:  # type: ignore[no-untyped-def]
    """Cover a rectangle of 10 to 40 % of the sides by the neighbour's pixels or by one colour."""
    height, width = pixels.shape[-2:]
    y = torch.arange(height, device=pixels.device)[None, :, None] / height
    x = torch.arange(width, device=pixels.device)[None, None, :] / width
    sides, place = uniform(0.1, 0.4, 2, 1, 1), uniform(0, 1, 2, 1, 1)
    inside = ((y - place[:, 0]).abs() < sides[:, 0] / 2) & ((x - place[:, 1]).abs() < sides[:, 1] / 2)
    inside = inside & (uniform(0, 1, 1, 1) < probability)
    other = torch.where(uniform(0, 1, 1, 1, 1) < 0.6, pixels.roll(1, 0), uniform(-1, 1, 3, 1, 1))
    return torch.where(inside[:, None], other, pixels)
