"""Proposals and box head of the person detector: torchvision's, with regions on which nothing is known, and a RoIAlign
that is quick on a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import clip_boxes_to_image

_MOSTLY_INSIDE = 0.5
"""A box belongs to a region when this share of its area lies in it."""
_DOUBTFUL_WEIGHT = 0.5
"""Of a background example where people may have no box ..."""
_DOUBTFUL_SCORE = 0.6
"""... and above this score it is taken for such a person and not used."""


class PyramidRoIAlign(nn.Module):
    """RoIAlign over several levels (He et al., ICCV 2017, with the half-pixel shift; Lin et al., CVPR 2017, eq. 1).

    A box of 112 pixels (square root of the area) is pooled from the second level, one below from the first. Every
    output cell is a weighted sum of a few feature cells, which is what an embedding bag computes: on a CPU several
    times faster than the usual kernel, forward and backward.
    """

    def __init__(self, strides: Sequence[int], output: int, samples: int) -> None:
        super().__init__()
        self.strides, self.output, self.samples = tuple(strides), output, samples

    def forward(self, features: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Levels (N, C, h, w) by name in the order of the strides (more levels may follow); per image boxes (n, 4) in
        pixels of the input. Returns (sum of n, output * output * C) float32, rows in the order of the boxes."""
        images = torch.cat([torch.full((len(b),), i, device=b.device) for i, b in enumerate(boxes)])
        return self.pool(list(features.values())[: len(self.strides)], torch.cat(list(boxes)), images)

    def pool(self, levels: Sequence[Tensor], rois: Tensor, images: Tensor) -> Tensor:
        """The same for one level per stride, boxes (R, 4) of all images, and the image of each (R,)."""
        table = torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in levels]).float()  # (all cells, C)
        sides = ((rois[:, 2] - rois[:, 0]) * (rois[:, 3] - rois[:, 1])).clamp_min(1.0).sqrt()
        chosen = (sides / (14 * self.strides[0])).log2().floor().add(1).clamp(0, len(levels) - 1).long()
        heights = torch.tensor([level.shape[2] for level in levels], device=rois.device)
        widths = torch.tensor([level.shape[3] for level in levels], device=rois.device)
        cells = heights * widths * levels[0].shape[0]
        height, width = heights[chosen], widths[chosen]
        scaled = rois / torch.tensor(self.strides, device=rois.device)[chosen, None]
        columns, column_weights = self._taps(scaled[:, 0], scaled[:, 2], width)  # (R, output, 2 * samples)
        rows, row_weights = self._taps(scaled[:, 1], scaled[:, 3], height)
        start = (cells.cumsum(0) - cells)[chosen] + images * height * width
        rows = (rows * width[:, None, None] + start[:, None, None]).int()
        row_weights = row_weights / self.samples**2
        indices = rows[:, :, None, :, None] + columns.int()[:, None, :, None, :]
        weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
        taps = (2 * self.samples) ** 2
        pooled = F.embedding_bag(indices.view(-1, taps), table, mode="sum", per_sample_weights=weights.view(-1, taps))
        return pooled.reshape(len(rois), self.output**2 * table.shape[1])

    def _taps(self, start: Tensor, end: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Along one axis: the cells (R, output, 2 * samples) and weights from which each output cell is mixed."""
        count = self.output * self.samples
        shares = (torch.arange(count, device=start.device) + 0.5) / count
        points = start[:, None] + (end - start)[:, None] * shares - 0.5  # (R, output * samples)
        points = torch.minimum(points.clamp_min(0.0), (length - 1)[:, None].to(points.dtype))
        low = points.floor()
        share = points - low
        first = low.long()
        second = torch.minimum(first + 1, length[:, None] - 1)
        shape = (len(start), self.output, 2 * self.samples)
        return torch.stack([first, second], -1).view(shape), torch.stack([1 - share, share], -1).view(shape)


class PersonProposals(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's region proposals; anchors that lie mostly in an ignored region are no background."""

    def assign_targets_to_anchors(self, anchors: list[Tensor], targets: list[dict[str, Tensor]]) -> Any:
        labels, matched = super().assign_targets_to_anchors(anchors, targets)
        for label, boxes, target in zip(labels, anchors, targets, strict=True):
            if len(target["ignore"]):
                label[(label == 0) & mostly_inside(boxes, target["ignore"])] = -1.0
        return labels, matched


class PersonHeads(RoIHeads):  # type: ignore[misc]
    """torchvision's box head with two classes, background and person."""

    def __init__(self, pool: nn.Module, head: nn.Module, batch_size_per_image: int, positive_fraction: float) -> None:
        super().__init__(
            box_roi_pool=pool,
            box_head=head,
            box_predictor=nn.Identity(),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=batch_size_per_image,
            positive_fraction=positive_fraction,
            bbox_reg_weights=None,
            score_thresh=0.0,
            nms_thresh=1.0,
            detections_per_img=batch_size_per_image,
        )

    def losses(
        self, features: Mapping[str, Tensor], proposals: list[Tensor], targets: Sequence[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Cross-entropy and smooth L1 over a sample of the proposals (xyxy, per image); see ``Detector.forward``."""
        boxes, labels, truths, doubtful = self._sample(proposals, targets)
        logits, deltas = self.box_head(self.box_roi_pool(features, boxes))
        label, doubt = torch.cat(labels), torch.cat(doubtful)
        confident = logits.detach().softmax(-1)[:, 1] > _DOUBTFUL_SCORE
        weight = 1.0 - doubt.float() * torch.where(confident, 1.0, 1.0 - _DOUBTFUL_WEIGHT)
        classification = (F.cross_entropy(logits, label, reduction="none") * weight).sum() / max(1, len(label))
        wanted = torch.cat(self.box_coder.encode(truths, boxes))
        people = label == 1
        regression = F.smooth_l1_loss(deltas[people, 4:], wanted[people], beta=1 / 9, reduction="sum")
        return {"loss_class": classification, "loss_box": regression / max(1, len(label))}

    def find(
        self, features: Mapping[str, Tensor], proposals: list[Tensor], size: tuple[int, int]
    ) -> list[tuple[Tensor, Tensor]]:
        """Boxes (n, 4), clipped to ``size`` (height, width), and scores (n,) of the proposals of each image."""
        logits, deltas = self.box_head(self.box_roi_pool(features, proposals))
        boxes = self.box_coder.decode(deltas, proposals)[:, 1]
        scores = logits.softmax(-1)[:, 1]
        counts = [len(p) for p in proposals]
        clipped = clip_boxes_to_image(boxes, size)
        return list(zip(clipped.split(counts), scores.split(counts), strict=True))

    @torch.no_grad()
    def _sample(
        self, proposals: list[Tensor], targets: Sequence[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Per image: boxes, labels (1 person, 0 background), matched true boxes, and which are doubtful background."""
        boxes, labels, truths, doubtful = [], [], [], []
        for found, target in zip(proposals, targets, strict=True):
            truth = target["boxes"]
            candidates = torch.cat([found.detach(), truth])
            if len(truth):
                matched = self.proposal_matcher(self.box_similarity(truth, candidates))
                label = (matched >= 0).long()
                nearest = truth[matched.clamp_min(0)]
            else:
                label = torch.zeros(len(candidates), dtype=torch.long, device=candidates.device)
                nearest = candidates
            if len(target["ignore"]):
                label[(label == 0) & mostly_inside(candidates, target["ignore"])] = -1
            positive, negative = self.fg_bg_sampler([label])
            rows = torch.where(positive[0] | negative[0])[0]
            boxes.append(candidates[rows])
            labels.append(label[rows])
            truths.append(nearest[rows])
            doubtful.append((label[rows] == 0) & mostly_inside(candidates[rows], target["doubtful"]))
        return boxes, labels, truths, doubtful


def mostly_inside(boxes: Tensor, regions: Tensor) -> Tensor:
    """Which boxes (N, 4) have more than half of their area in one of the regions (M, 4), both xyxy; (N,) bool."""
    if not len(regions):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    low = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    shared = (high - low).clamp_min(0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1).clamp_min(1e-6)
    return (shared / area[:, None] > _MOSTLY_INSIDE).any(1)
