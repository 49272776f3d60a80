"""torchvision's official detectors, run on uint8 images, for people only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from cpnpose.models.device_images import resized
from cpnpose.pose.types import FloatArray, Picture

PERSON = 1
"""Label of people in COCO."""
_MOST_CANDIDATES = 1000  # of all classes, before those that are no people are left out


class OfficialNetwork:
    """A Faster R-CNN of torchvision's.

    Args:
        model: list of float (3, H, W) images in [0, 1] to a list of dicts of ``boxes``, ``labels`` and ``scores``; the
            parts that cost time are converted to ``dtype`` in place, proposals and boxes stay in float32.
        device: where it runs.
        dtype: float32, bfloat16, or float16 (not on the CPU).
    """

    def __init__(
        self, model: nn.Module, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.device = torch.device(device)
        self.number_format = str(dtype).removeprefix("torch.")
        self.model = cast(Any, model.eval().to(self.device))
        heads = self.model.roi_heads
        heads.detections_per_img = _MOST_CANDIDATES
        if dtype != torch.float32:
            self.model.backbone = _InFormat(self.model.backbone, dtype)
            self.model.rpn.head = _InFormat(self.model.rpn.head, dtype)
            heads.box_head = _InFormat(heads.box_head, dtype)

    @torch.inference_mode()
    def detect(
        self, images: Sequence[Picture], *, score: float, nms: float, max_people: int = 100
    ) -> list[tuple[FloatArray, FloatArray]]:
        """People in images of one shape.

        Args:
            images: (H, W, 3) uint8 RGB each, all of the same shape.
            score: boxes below it are left out.
            nms: IoU above which the weaker of two boxes is left out.
            max_people: most boxes per image.

        Returns:
            Per image boxes (n, 4) xyxy in pixels of the image and scores (n,), float32, best first.
        """
        heads = self.model.roi_heads
        heads.score_thresh, heads.nms_thresh = score, nms
        height, width = images[0].shape[:2]
        small_height, small_width = self._network_size(height, width)
        scale = np.array([width / small_width, height / small_height] * 2, np.float32)
        people = []
        pixels = resized(images, small_height, small_width, self.device).permute(0, 3, 1, 2).float().div_(255)
        for output in self.model(list(pixels)):
            keep = (output["labels"] == PERSON) & (output["scores"] >= score)
            table = torch.cat([output["boxes"], output["scores"][:, None]], dim=1)[keep].float().cpu().numpy()
            table = table[np.argsort(-table[:, 4], kind="stable")][:max_people]
            people.append(((table[:, :4] * scale).astype(np.float32), table[:, 4].astype(np.float32)))
        return people

    def _network_size(self, height: int, width: int) -> tuple[int, int]:
        """The size to which the model would bring an image. Brought to it as uint8, it costs a fraction of the time;
        the model's own resizing then has nothing left to do."""
        transform = self.model.transform
        scale = min(transform.min_size[-1] / min(height, width), transform.max_size / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))


class _InFormat(nn.Module):
    """A part of a network that computes in ``dtype`` between float32 neighbours."""

    def __init__(self, part: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.part = part.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dtype = dtype

    def forward(self, inputs: Any) -> Any:
        return _cast(self.part(_cast(inputs, self.dtype)), torch.float32)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype)
    if isinstance(value, dict):
        return type(value)((key, _cast(item, dtype)) for key, item in value.items())
    return type(value)(_cast(item, dtype) for item in value)
