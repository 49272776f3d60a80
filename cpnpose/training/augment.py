"""Augmentation of a whole batch on its device: geometry in one grid sample, colour, and patches that hide joints."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cpnpose.pose.keypoints import FLIP_INDEX, LOWER_BODY, UPPER_BODY
from cpnpose.pose.types import Preprocessing
from cpnpose.training.dataset import MARGIN, PoseBatch

Draw = Callable[..., Tensor]
"""``draw(low, high, *shape)``: uniform numbers (B, *shape), one row for each person."""


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
    """A rectangle is covered by the same piece of the neighbour's crop, or by one colour."""

    def scaled(self, strength: float) -> AugmentOptions:
        """Everything but the flip this many times as strong (0 to 1): short trainings of small networks want less."""
        others = ("rotation_deg", "rotation_probability", "shift", "gain", "contrast", "gray_probability",
                  "half_body_probability", "occlusion_probability")  # fmt: skip
        low, high = self.scale
        changed: dict[str, Any] = {name: getattr(self, name) * strength for name in others}
        return replace(self, scale=(1 - (1 - low) * strength, 1 + (high - 1) * strength), **changed)


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
    *,
    part: tuple[int, int] = (0, 1),
) -> Augmented:
    """Draw a random view of every cached crop.

    Args:
        batch: cached crops, MARGIN times as high and wide as the input.
        input_size: (H, W).
        generator: on the batch's device; the only source of chance.
        part: (i, n), where the batch is the i-th of n equal parts of one step. Chance is drawn for the whole step, so
            that a step gives the same views however many processes share it (neighbours are people 2k and 2k + 1 of
            a part: the same where parts are even).
    """
    device, count = batch.pixels.device, len(batch.pixels)
    height, width = input_size
    size = torch.tensor([width, height], device=device, dtype=torch.float32)
    cached = torch.tensor([batch.pixels.shape[-1], batch.pixels.shape[-2]], device=device, dtype=torch.float32)

    mine = slice(part[0] * count, (part[0] + 1) * count)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(part[1] * count, *shape, device=device, generator=generator)[mine] * (high - low) + low

    centre, scale = _half_body(batch, uniform(0, 1, 3), options.half_body_probability, cached)
    scale = scale * uniform(*options.scale)
    turned = uniform(0, 1) < options.rotation_probability
    angle = uniform(-1, 1) * math.radians(options.rotation_deg) * turned
    normal = torch.randn(part[1] * count, 2, device=device, generator=generator)[mine]
    shift = normal.clamp(-3, 3) * options.shift * size
    mirror = torch.where(uniform(0, 1) < options.flip_probability, -1.0, 1.0)

    # cached = centre + scale * ratio * R (crop - size / 2 + shift), with the crop's x mirrored first
    ratio = cached / MARGIN / size
    cos, sin = angle.cos() * scale, angle.sin() * scale
    linear = torch.stack([torch.stack([cos * mirror, -sin], -1), torch.stack([sin * mirror, cos], -1)], -2)
    linear = linear * ratio[:, None]
    offset = centre + (linear @ (shift - size / 2)[..., None])[..., 0]
    sample = _sample_on_cpu if device.type == "cpu" else _sample_on_device
    pixels = _colour(sample(batch.pixels, linear, offset, input_size, preprocessing), options, preprocessing, uniform)
    if options.occlusion_probability > 0:
        pixels = _occlude(pixels, options.occlusion_probability, uniform)

    points = (torch.linalg.inv(linear) @ (batch.keypoints_xy - offset[:, None]).transpose(1, 2)).transpose(1, 2)
    mirrored = (mirror < 0)[:, None]
    flip = list(FLIP_INDEX)
    points = torch.where(mirrored[..., None], points[:, flip], points)
    visibility = torch.where(mirrored, batch.visibility[:, flip], batch.visibility)
    inside = ((points >= 0) & (points < size)).all(-1)
    visibility = torch.where(inside, visibility, torch.zeros_like(visibility))

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


def _sample_on_device(
    pixels: Tensor, linear: Tensor, offset: Tensor, input_size: tuple[int, int], preprocessing: Preprocessing
) -> Tensor:
    """Bilinear sampling in one call: (B, 3, h, w) uint8 to (B, 3, H, W) float32 minus the mean; outside it is 0."""
    size = linear.new_tensor([input_size[1], input_size[0]])
    cached = linear.new_tensor([pixels.shape[-1], pixels.shape[-2]])
    theta = torch.empty(len(pixels), 2, 3, device=pixels.device)
    theta[:, :, :2] = linear * size / cached[:, None]
    theta[:, :, 2] = (offset + (linear @ (size / 2)[:, None])[..., 0]) / cached * 2 - 1
    grid = F.affine_grid(theta, [len(pixels), 3, *input_size], align_corners=False)
    mean = torch.tensor(preprocessing.mean, device=pixels.device).view(3, 1, 1)
    return F.grid_sample(pixels.float().sub_(mean), grid, mode="bilinear", align_corners=False)


def _sample_on_cpu(
    pixels: Tensor, linear: Tensor, offset: Tensor, input_size: tuple[int, int], preprocessing: Preprocessing
) -> Tensor:
    """The same by OpenCV on the uint8 pixels, six times as fast there; equal up to rounding."""
    source = pixels.permute(0, 2, 3, 1).numpy()
    affines = torch.cat([linear, (offset + linear.sum(2) / 2 - 0.5)[..., None]], 2).double().numpy()
    views = np.empty((len(source), *input_size, 3), np.uint8)
    for image, affine, view in zip(source, affines, views, strict=True):
        view[:] = cv2.warpAffine(
            image, affine, (input_size[1], input_size[0]), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT, borderValue=preprocessing.mean,
        )  # fmt: skip
    return torch.from_numpy(views).float().sub_(torch.tensor(preprocessing.mean)).permute(0, 3, 1, 2)


def _colour(pixels: Tensor, options: AugmentOptions, preprocessing: Preprocessing, uniform: Draw) -> Tensor:
    """Divide by the standard deviation; channel gain, contrast, brightness and, now and then, gray.

    All of it is one 3x3 matrix and one offset for each person. Returns channels_last memory.
    """
    gain = 1 / torch.tensor(preprocessing.std, device=pixels.device).expand(len(pixels), 3)
    brightness = torch.zeros(len(pixels), 1, 3, device=pixels.device)
    if options.gain > 0:
        gain = gain * uniform(1 - options.gain, 1 + options.gain, 3)
    if options.contrast > 0:
        gain = gain * uniform(1 - options.contrast, 1 + options.contrast, 1)
        brightness = brightness + uniform(-options.contrast, options.contrast, 1, 1)
    matrix = torch.diag_embed(gain)  # (B, 3 in, 3 out)
    if options.gray_probability > 0:
        gray = (uniform(0, 1, 1, 1) < options.gray_probability).float()
        matrix = matrix + gray * (matrix.mean(2, keepdim=True) - matrix)
    changed = torch.baddbmm(brightness, pixels.flatten(2).transpose(1, 2), matrix)  # (B, H W, 3)
    return changed.view(len(pixels), *pixels.shape[2:], 3).permute(0, 3, 1, 2)


def _occlude(pixels: Tensor, probability: float, uniform: Draw) -> Tensor:
    """Cover a rectangle of 10 to 40 % of the sides by the neighbour's pixels or by one colour."""
    height, width = pixels.shape[-2:]
    y = torch.arange(height, device=pixels.device)[None, :, None] / height
    x = torch.arange(width, device=pixels.device)[None, None, :] / width
    sides, place = uniform(0.1, 0.4, 2, 1, 1), uniform(0, 1, 2, 1, 1)
    inside = ((y - place[:, 0]).abs() < sides[:, 0] / 2) & ((x - place[:, 1]).abs() < sides[:, 1] / 2)
    inside = inside & (uniform(0, 1, 1, 1) < probability)
    neighbour = (torch.arange(len(pixels), device=pixels.device) ^ 1).clamp_max(len(pixels) - 1)
    copied = (uniform(0, 1, 1, 1, 1) < 0.6).float()
    other = pixels[neighbour].mul_(copied).add_(uniform(-1, 1, 3, 1, 1) * (1 - copied))
    return torch.where(inside[:, None], other, pixels)
