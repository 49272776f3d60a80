"""People in images: a detector, boxes from a file, or the whole image as one person's box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from cpnpose.errors import CpnposeError
from cpnpose.pipeline.device import is_out_of_memory
from cpnpose.pose.types import Detections, ImageArray

PERSON = 1
"""Label of people in COCO and in the shipped detector."""
_MOST_CANDIDATES = 1000  # of all classes, before those that are no people are left out


class Detector(Protocol):
    """What the pipeline asks of whatever finds people."""

    def __call__(self, images: list[ImageArray], indices: Sequence[int] | None = None) -> list[Detections]:
        """People of each image (H, W, 3) uint8 RGB; ``indices`` are the images' numbers in the input."""
        ...


class PersonDetector:
    """A Faster R-CNN of torchvision's make that returns people only. May be called from several threads.

    The boxes are (x1, y1, x2, y2) in the pixels of each image, best first.

    Args:
        model: list of float (3, H, W) images in [0, 1] to a list of dicts of ``boxes``, ``labels`` and ``scores``.
        device: where it runs.
        dtype: of the parts that cost time; proposals and boxes stay in float32.
        score: people below it are left out.
        nms: IoU above which the weaker of two boxes is left out.
        max_people: per image.
        batch: most images in one go.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        score: float = 0.5,
        nms: float = 0.5,
        max_people: int = 100,
        batch: int | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.model = cast(Any, model.eval().to(self.device))
        self.score = score
        self.max_people = max_people
        self.batch = batch or (4 if self.device.type == "cpu" else 16)
        heads = self.model.roi_heads
        heads.score_thresh, heads.nms_thresh = score, nms
        heads.detections_per_img = max(_MOST_CANDIDATES, max_people)
        if dtype != torch.float32:
            self.model.backbone = _InFormat(self.model.backbone, dtype)
            self.model.rpn.head = _InFormat(self.model.rpn.head, dtype)
            heads.box_head = _InFormat(heads.box_head, dtype)

    def __call__(self, images: list[ImageArray], indices: Sequence[int] | None = None) -> list[Detections]:
        """People of each image, at most ``max_people``, best first.

        Out of memory, the batch is halved for this and all later calls.

        Raises:
            CpnposeError: not even a single image fits into memory.
        """
        found = [Detections.empty()] * len(images)
        waiting = self._by_shape(images)
        while waiting:
            rows = waiting.pop(0)
            size = self.batch
            rows, rest = rows[:size], rows[size:]
            if rest:
                waiting.insert(0, rest)
            try:
                for row, people in zip(rows, self._detect([images[row] for row in rows]), strict=True):
                    found[row] = people
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if len(rows) == 1:
                    height, width = images[rows[0]].shape[:2]
                    raise CpnposeError(
                        f"not enough memory on {self.device} to look for people in a single {width}x{height} image; "
                        "close other programs, or use --device cpu"
                    ) from error
                self.batch = min(self.batch, len(rows) // 2)
                waiting.insert(0, rows)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
        return found

    @staticmethod
    def _by_shape(images: list[ImageArray]) -> list[list[int]]:
        """Rows of images of one size each: a batch of several sizes would be padded, and its boxes would differ."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, image in enumerate(images):
            groups.setdefault(image.shape, []).append(row)
        return list(groups.values())

    @torch.inference_mode()
    def _detect(self, images: list[ImageArray]) -> list[Detections]:
        height, width = images[0].shape[:2]
        small_height, small_width = self._network_size(height, width)
        smalls = [_resized(image, small_height, small_width) for image in images]
        tensors = [self._tensor(small) for small in smalls]
        scale = np.array([width / small_width, height / small_height] * 2, np.float32)
        limit = np.array([width, height] * 2, np.float32)
        people = []
        for output in self.model(tensors):
            keep = (output["labels"] == PERSON) & (output["scores"] >= self.score)
            table = torch.cat([output["boxes"], output["scores"][:, None]], dim=1)[keep].float().cpu().numpy()
            table = table[np.argsort(-table[:, 4], kind="stable")][: self.max_people]
            boxes = np.clip(table[:, :4] * scale, 0, limit)
            people.append(Detections(boxes.astype(np.float32), table[:, 4].astype(np.float32)))
        return people

    def _tensor(self, image: ImageArray) -> Tensor:
        pixels = torch.from_numpy(image).to(self.device, non_blocking=True)
        return pixels.permute(2, 0, 1).float().div_(255)

    def _network_size(self, height: int, width: int) -> tuple[int, int]:
        """The size to which the model would bring an image. Brought to it as uint8, it costs a fraction of the time;
        the model's own resizing then has nothing left to do."""
        transform = self.model.transform
        shortest = transform.min_size[-1] if isinstance(transform.min_size, (tuple, list)) else transform.min_size
        scale = min(shortest / min(height, width), transform.max_size / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))


class WholeImageDetector:
    """One person per image, whose box is the whole image."""

    def __call__(self, images: list[ImageArray], indices: Sequence[int] | None = None) -> list[Detections]:
        """A box (0, 0, width, height) of score 1 for each image."""
        boxes = (np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32) for image in images)
        return [Detections(box, np.ones(1, np.float32)) for box in boxes]


class _InFormat(nn.Module):
    """A part of a network that computes in ``dtype`` between float32 neighbours."""

    def __init__(self, part: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.part = part.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dtype = dtype

    def forward(self, inputs: Any) -> Any:
        return _cast(self.part(_cast(inputs, self.dtype)), torch.float32)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("part"), name)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        if value.ndim == 4 and dtype != torch.float32:
            return value.to(dtype, memory_format=torch.channels_last)
        return value.to(dtype)
    if isinstance(value, dict):
        return type(value)((key, _cast(item, dtype)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(_cast(item, dtype) for item in value)
    return value


def _resized(image: ImageArray, height: int, width: int) -> ImageArray:
    """Bilinear, as the model itself would resize; first shrunk by area where it is more than twice too large."""
    if image.shape[:2] == (height, width):
        return image
    way = cv2.INTER_AREA if image.shape[0] > 2 * height else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=way), np.uint8)
