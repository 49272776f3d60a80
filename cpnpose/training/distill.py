"""Distillation: a trained network teaches a new one what the labels do not say.

Sources: Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531) for the maps; Romero et al.,
"FitNets: Hints for Thin Deep Nets" (ICLR 2015, arXiv 1412.6550) for the backbone's features.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpnpose.errors import WeightsError
from cpnpose.models.cpn import CPN, CPNMaps
from cpnpose.models.fuse import fuse
from cpnpose.models.weights import load_cpn
from cpnpose.pose.heatmaps import PEAK
from cpnpose.pose.types import Preprocessing
from cpnpose.training.loss import LOCATION_SCALE, places_loss

_LEAST_DEVIATION = 1e-3
"""Channels of the teacher that vary less than this over a batch hint at nothing."""


class TeacherLoss(NamedTuple):
    """Scalars."""

    hints: Tensor
    """Mean squared distance of the features from the teacher's, each of whose channels has variance 1; summed over
    the levels C5..C2, so that features that explain nothing cost 4."""
    locations: Tensor
    """Cross-entropy against the places the teacher sees the unlabelled keypoints at, over all five maps."""


class Teacher(nn.Module):
    """A trained CPN, and the 1x1 convolutions that turn a student's features into its own.

    The convolutions are parameters of this module; the teacher is not among them and stays as it is.

    Args:
        weights: of the teacher: a file, or a name of the manifest.
        student: the network to be taught.
        preprocessing: of the student's crops.
        dtype: that the teacher computes in.

    Raises:
        WeightsError: the weights cannot be loaded, are no CPN's, or want other crops.
    """

    def __init__(self, weights: str, student: CPN, preprocessing: Preprocessing, dtype: torch.dtype) -> None:
        super().__init__()
        teacher, metadata = load_cpn(weights)
        if metadata.preprocessing != preprocessing:
            raise WeightsError(f"{weights}: wants crops normalised in another way; choose a teacher trained by cpnpose")
        self._teacher = (fuse(teacher.to(dtype).requires_grad_(False)),)
        self._dtype = dtype
        mine, theirs = student.backbone.channels, teacher.backbone.channels
        self.hints = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in zip(mine, theirs, strict=True))  # type: ignore[arg-type]

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Moves the teacher along to another device."""
        self._teacher[0]._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    def forward(self, crops: Tensor, maps: CPNMaps, visibility: Tensor) -> TeacherLoss:
        """What the student has still to learn from the teacher.

        Args:
            crops: (B, 3, H, W) as the student got them; brought to the teacher's size where it is another.
            maps: what the student made of them, features included.
            visibility: (B, 17); the teacher tells the places of keypoints with v = 0, as far as it is sure.
        """
        teacher = self._teacher[0]
        with torch.no_grad(), torch.autocast(crops.device.type, enabled=False):
            wanted = teacher.config.input_size
            if crops.shape[-2:] != torch.Size(wanted):
                crops = F.interpolate(crops, wanted, mode="bilinear", align_corners=False)
            features, taught = teacher.with_features(crops.to(self._dtype))
        pairs = zip(self.hints, maps.features, features, strict=True)
        hints = torch.stack([_hint_loss(hint(mine), theirs) for hint, mine, theirs in pairs]).sum()
        size = (maps.refined.shape[-2], maps.refined.shape[-1])
        places = _places(taught, size) * (visibility == 0)[..., None]
        locations = torch.stack([places_loss(level, places) for level in (*maps.global_maps, maps.refined)]).sum()
        return TeacherLoss(hints, locations)


def _hint_loss(mine: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared distance from the teacher's features, averaged to this size and standardised by channel."""
    target = F.adaptive_avg_pool2d(theirs.float(), (mine.shape[-2], mine.shape[-1]))
    deviation, mean = torch.std_mean(target, dim=(0, 2, 3), keepdim=True, correction=0)
    varies = deviation > _LEAST_DEVIATION
    target = (target - mean) / deviation.clamp_min(_LEAST_DEVIATION)
    return ((mine.float() - target).square() * varies).mean()


def _places(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Where the teacher sees each keypoint, times how sure it is: (B, K, h, w) to (B, K, size[0] * size[1])."""
    maps = maps.float()
    sure = (maps.amax((-2, -1)) / PEAK).clamp(0, 1)
    chances = torch.softmax(maps.flatten(2) * LOCATION_SCALE, -1).view_as(maps)
    places = F.adaptive_avg_pool2d(chances, size).flatten(2)
    return places / places.sum(-1, keepdim=True) * sure[..., None]
