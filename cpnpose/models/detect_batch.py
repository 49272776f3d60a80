"""Running the person detector on images: sizes, resizing, number format, thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import nms as suppress

from cpnpose.models.cuda_graph import Recorder
from cpnpose.models.detect_at_once import DetectorAtOnce
from cpnpose.models.detector import Detector, normalize
from cpnpose.models.device_images import resized
from cpnpose.models.int8_detector import Int8Pyramid
from cpnpose.pose.types import FloatArray, Picture

_CELL = 32
_MOST_ASPECT = 4.0


def network_size(height: int, width: int, pixels: int) -> tuple[int, int]:
    """The (height, width) to which an image is brought: multiples of 32, about ``pixels`` in all, close to its shape.

    Images of one shape always get one size, so a batch needs no padding; up to ~8 % of stretch is accepted for that,
    and more where one side is more than four times the other.
    """
    wanted = min(max(width / height, 1 / _MOST_ASPECT), _MOST_ASPECT)
    rows = max(1, round((pixels / wanted) ** 0.5 / _CELL))
    columns = max(1, round(pixels / (rows * _CELL * _CELL)))
    candidates = [
        (r, c) for r in (rows - 1, rows, rows + 1) for c in range(columns - 2, columns + 3) if r > 0 and c > 0
    ]

    def cost(size: tuple[int, int]) -> float:
        stretch = abs(np.log(size[1] / size[0] / wanted))
        return float(stretch + 0.5 * abs(np.log(size[0] * size[1] * _CELL * _CELL / pixels)))

    best = min(candidates, key=cost)
    return best[0] * _CELL, best[1] * _CELL


class DetectorNetwork(nn.Module):
    """A detector ready to find people in uint8 images.

    Args:
        model: it is put into eval mode and, for ``dtype`` other than float32, its convolutions and linear layers are
            converted in place; proposals and boxes are computed in float32 all the same.
        device: where it runs.
        dtype: float32, bfloat16 or (CUDA only) float16.
        size: (height, width) that has about as many pixels as images are brought to; None takes what ``model`` was
            trained for.
        recorder: see :class:`~cpnpose.models.detect_at_once.DetectorAtOnce`.
    """

    def __init__(
        self,
        model: Detector,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        size: tuple[int, int] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        super().__init__()
        self.device, self.dtype = torch.device(device), dtype
        self.model = model.eval().to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if dtype != torch.float32:
            self.model.to(dtype)
        self.input_pixels = model.config.input_pixels if size is None else size[0] * size[1]
        self._at_once = DetectorAtOnce(self.model, recorder)

    @property
    def number_format(self) -> str:
        """``float32``, ``bfloat16``, ``float16`` or ``int8``, of the convolutions."""
        return "int8" if isinstance(self.model.pyramid, Int8Pyramid) else str(self.dtype).removeprefix("torch.")

    @torch.inference_mode()
    def detect(
        self, images: Sequence[Picture], *, score: float, nms: float, max_people: int = 100
    ) -> list[tuple[FloatArray, FloatArray]]:
        """People in images of one shape.

        Args:
            images: (H, W, 3) uint8 RGB each, all of the same shape, arrays or tensors on the device.
            score: boxes below it are left out.
            nms: intersection over union above which the weaker of two boxes is left out; 1 keeps all.
            max_people: most boxes per image.

        Returns:
            Per image boxes (n, 4) xyxy in pixels of the image and scores (n,), float32, best first.
        """
        if not len(images):
            return []
        height, width = images[0].shape[:2]
        small_height, small_width = network_size(height, width, self.input_pixels)
        pixels = normalize(resized(images, small_height, small_width, self.device), self.dtype)
        factors = np.array([width / small_width, height / small_height] * 2, np.float32)
        results = []
        for boxes, scores in self._people(pixels):
            rows = np.flatnonzero(scores >= score)
            rows = rows[np.argsort(-scores[rows], kind="stable")]
            if nms < 1 and len(rows) > 1:
                kept = suppress(torch.from_numpy(boxes[rows]), torch.from_numpy(scores[rows]), nms)
                rows = rows[kept.numpy()]
            rows = rows[:max_people]
            results.append((boxes[rows] * factors, scores[rows]))
        return results

    def _people(self, pixels: Tensor) -> list[tuple[FloatArray, FloatArray]]:
        """Of each image (N, 3, h, w) boxes (n, 4) and scores (n,), float32, in the processor's memory: there the few
        that are people are chosen sooner than a graphics card is asked to."""
        boxes, scores = self._at_once(pixels)
        tables = torch.cat([boxes, scores[..., None]], 2).float().cpu().numpy()  # one transfer back
        return [(table[:, :4], table[:, 4]) for table in tables]

    def forward(self, images: Sequence[Picture], **options: Any) -> list[tuple[FloatArray, FloatArray]]:
        """The same as :meth:`detect`."""
        return self.detect(images, **options)
