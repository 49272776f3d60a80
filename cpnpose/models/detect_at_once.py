"""The person detector in inference: a batch of images in a few calls, however many images there are.

torchvision's proposals go image by image and turn all anchors into boxes, of which few are looked at. Here the best
anchors are chosen first, and all images are worked on together. On a graphics card the dense part, from pixels to the
anchors' scores, is a CUDA graph, and everything behind it has a fixed number of boxes: otherwise the card would have to
be asked for their number several times for each image, and the processor would take longer to give the orders than the
card to obey.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import clip_boxes_to_image
from torchvision.ops import nms as suppress

from cpnpose.models.cpu_parts import in_parts
from cpnpose.models.cuda_graph import GraphedNetwork, Recorder, record_graph
from cpnpose.models.detector import STRIDES, Detector, PersonPyramid

_BUCKETS = (1, 4, 16)
"""Batch sizes that are recorded: to record another one takes longer than some images more."""
_MOST_RECORDINGS = 6
"""A folder may hold images of many shapes; what is a video's is recorded in two or three."""
_POOLED_LEVELS = 3
_JUDGED_AT_ONCE = 6
"""Rounds of :func:`keep_uncovered` before the card is asked whether they were enough."""


class _Dense(nn.Module):
    """Images (N, 3, H, W) to the levels that boxes are pooled from, and of all anchors, level by level, scores (N, A)
    and deltas (N, A, 4)."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.pyramid, self.head = model.pyramid, model.rpn.head

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        levels = list(self._levels(x).values())
        scores, deltas = self.head(levels)
        each = [(_by_anchor(s, 1).squeeze(-1), _by_anchor(d, 4)) for s, d in zip(scores, deltas, strict=True)]
        return *levels[:_POOLED_LEVELS], torch.cat([s for s, _ in each], 1), torch.cat([d for _, d in each], 1)

    def _levels(self, images: Tensor) -> OrderedDict[str, Tensor]:
        if isinstance(self.pyramid, PersonPyramid):
            return self.pyramid.levels(in_parts(self.pyramid.stem, images))
        return self.pyramid(images)  # type: ignore[no-any-return]


class DetectorAtOnce(nn.Module):
    """A detector in inference for batches of images of one size.

    Args:
        model: in eval mode, on its device.
        recorder: its dense part runs from recordings, see ``models/cuda_graph.py``; None records CUDA graphs on a
            graphics card and nothing elsewhere.
    """

    def __init__(self, model: Detector, recorder: Recorder | None = None) -> None:
        super().__init__()
        self.model = model
        on_card = next(model.parameters()).device.type == "cuda"
        recorder = recorder or (record_graph if on_card else None)
        dense = _Dense(model)
        self._by_rounds = recorder is not None
        self._dense = GraphedNetwork(dense, _BUCKETS, recorder, _MOST_RECORDINGS) if recorder is not None else dense
        self._anchors: dict[tuple[int, int], tuple[Tensor, list[int]]] = {}

    @torch.inference_mode()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The same people as ``model(images)`` finds, as one table for each image.

        Args:
            images: (N, 3, H, W), RGB in [-1, 1], H and W multiples of 32.

        Returns:
            Boxes (N, P, 4) xyxy in pixels of the input and scores (N, P), -1 where there are fewer than P proposals.
        """
        size = int(images.shape[2]), int(images.shape[3])
        *levels, objectness, deltas = self._dense(images)
        anchors, counts = self._anchors_of(images)
        boxes, scores, levels_of = self._candidates(objectness, deltas, anchors, counts, size)
        propose = self._proposals_by_rounds if self._by_rounds else self._proposals_by_image
        chosen = propose(boxes, scores, levels_of)
        present = chosen >= 0
        rois = boxes.gather(1, chosen.clamp_min(0)[..., None].expand(-1, -1, 4)).flatten(0, 1)
        owners = torch.arange(len(images), device=images.device).repeat_interleave(chosen.shape[1])
        heads: Any = self.model.heads
        logits, changes = heads.box_head(heads.box_roi_pool.pool(levels, rois, owners))
        found = clip_boxes_to_image(heads.box_coder.decode_single(changes, rois)[:, 4:], size)
        people = logits.softmax(-1)[:, 1].view(chosen.shape)
        return found.view(*chosen.shape, 4), torch.where(present, people, -1.0)

    def _anchors_of(self, images: Tensor) -> tuple[Tensor, list[int]]:
        """Anchors (A, 4) of an image of this size, level by level, and how many each level has."""
        height, width = images.shape[2:]
        if (height, width) not in self._anchors:
            generator: Any = self.model.rpn.anchor_generator
            shapes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
            # Anchors get the type of the maps: in bfloat16 they would be up to four pixels off.
            maps = [images.new_empty(1, 1, *shape, dtype=torch.float32) for shape in shapes]
            (anchors,) = generator(ImageList(images[:1], [(height, width)]), maps)
            per_cell = generator.num_anchors_per_location()
            counts = [h * w * n for (h, w), n in zip(shapes, per_cell, strict=True)]
            if images.device.type == "cuda":  # other threads use them on streams of their own
                torch.cuda.current_stream(images.device).synchronize()
            self._anchors[height, width] = anchors, counts
        return self._anchors[height, width]

    def _candidates(
        self, objectness: Tensor, deltas: Tensor, anchors: Tensor, counts: list[int], size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best anchors of each level as boxes (N, K, 4), their scores (N, K), -1 for boxes without an area, and
        their levels (N, K); of each image the best first."""
        rpn: Any = self.model.rpn
        start, best, level = 0, [], []
        for number, (part, count) in enumerate(zip(torch.split(objectness, counts, 1), counts, strict=True)):
            rows = part.topk(min(rpn.pre_nms_top_n(), count), dim=1).indices
            best.append(rows + start)
            level.append(torch.full_like(rows, number))
            start += count
        rows = torch.cat(best, 1)
        moves = deltas.gather(1, rows[..., None].expand(-1, -1, 4))
        boxes = rpn.box_coder.decode_single(moves.flatten(0, 1), anchors[rows.flatten()])
        boxes = clip_boxes_to_image(boxes, size).view(*rows.shape, 4)
        scores = objectness.gather(1, rows).sigmoid()
        usable = (boxes[..., 2:] - boxes[..., :2] >= rpn.min_size).all(-1) & (scores >= rpn.score_thresh)
        scores, order = torch.where(usable, scores, -1.0).sort(dim=1, descending=True, stable=True)
        return boxes.gather(1, order[..., None].expand(-1, -1, 4)), scores, torch.cat(level, 1).gather(1, order)

    def _proposals_by_image(self, boxes: Tensor, scores: Tensor, levels: Tensor) -> Tensor:
        """As :meth:`_proposals_by_rounds`, image by image and level by level: the quickest way for a processor."""
        rpn: Any = self.model.rpn
        most = rpn.post_nms_top_n()
        chosen = []
        for own_boxes, own_scores, own_levels in zip(boxes, scores, levels, strict=True):
            kept = []
            for level in range(len(STRIDES)):
                rows = ((own_levels == level) & (own_scores >= 0)).nonzero()[:, 0]
                kept.append(rows[suppress(own_boxes[rows], own_scores[rows], rpn.nms_thresh)])
            rows = torch.cat(kept).sort().values[:most]
            chosen.append(F.pad(rows, (0, most - len(rows)), value=-1))
        return torch.stack(chosen)

    def _proposals_by_rounds(self, boxes: Tensor, scores: Tensor, levels: Tensor) -> Tensor:
        """The best candidates of each image that no better one of their level covers: their places (N, P), best first,
        -1 where there are no more. The arguments are sorted as :meth:`_candidates` sorts them."""
        rpn: Any = self.model.rpn
        most = rpn.post_nms_top_n()
        alike = levels[:, :, None] == levels[:, None, :]
        kept = keep_uncovered((_overlaps(boxes) > rpn.nms_thresh) & alike) & (scores >= 0)
        rank = kept.cumsum(1)  # from 1
        slot = torch.where(kept & (rank <= most), rank - 1, most)
        places = torch.arange(boxes.shape[1], device=boxes.device).expand_as(slot)
        table = slot.new_full((len(boxes), most + 1), -1)
        return table.scatter_(1, slot, places)[:, :most]  # the last column takes all that are left out


def keep_uncovered(covers: Tensor) -> Tensor:
    """Non-maximum suppression of many images at once: which boxes (N, K) stay, of boxes sorted from the best on.

    A box goes if a better one that stays covers it. All boxes are judged at the same time, again and again, until no
    verdict changes: after the i-th time those are final whose fate hangs on a chain of i boxes, and chains are short.

    Args:
        covers: (N, K, K) bool, symmetric: which boxes overlap too much.
    """
    better = covers.tril(-1).float()  # the boxes of each row that precede it
    kept = torch.ones_like(better[..., 0])
    while True:
        before = kept
        for _ in range(_JUDGED_AT_ONCE):
            before, kept = kept, (torch.bmm(better, kept[..., None])[..., 0] == 0).float()
        if torch.equal(before, kept):
            return kept > 0


def _overlaps(boxes: Tensor) -> Tensor:
    """Intersection over union of all pairs of each image's boxes (N, K, 4): (N, K, K)."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    shared = (high - low).clamp_min(0).prod(-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    return shared / (area[:, :, None] + area[:, None, :] - shared)


def _by_anchor(level: Tensor, values: int) -> Tensor:
    """(N, anchors * values, h, w) to (N, h * w * anchors, values)."""
    n, channels, h, w = level.shape
    return level.view(n, channels // values, values, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, values)
