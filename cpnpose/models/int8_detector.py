"""The person detector with its convolutions in int8; see ``models/int8.py``."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn

from cpnpose.models.detector import Detector, DetectorConfig, build_detector
from cpnpose.models.int8 import Int8Graph, load_graph
from cpnpose.models.quick_start import NoRandomValues
from cpnpose.models.weights import fill, load_entries

ARCHITECTURE = "faster-rcnn-mobilenet-v2-int8"
"""The name of this kind of network in the metadata of weights."""
PYRAMID, HEAD = "pyramid.", "rpn.head."
"""How the entries of both graphs begin in a weights file. The box head stays as it is."""


class Int8Pyramid(nn.Module):
    """In the place of a detector's ``PersonPyramid``: images (N, 3, H, W) to its levels by name."""

    def __init__(self, graph: Int8Graph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        # One image at a time stays in the caches.
        parts = [self.graph(image) for image in torch.split(images, 1)]
        levels = [torch.cat(level) for level in zip(*parts, strict=True)]
        # Every other cell, as PersonPyramid takes it by a pooling for which NNCF finds no range.
        levels.append(levels[-1][..., ::2, ::2])
        return OrderedDict(zip(("0", "1", "2", "pool"), levels, strict=True))


class Int8ProposalHead(nn.Module):
    """In the place of a detector's ``RPNHead``: its levels to scores and deltas, lists with one per level."""

    def __init__(self, graph: Int8Graph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        found = self.graph(*levels)
        return found[: len(levels)], found[len(levels) :]


def load_int8_detector(path: Path, config: DetectorConfig) -> Detector:
    """The detector of a weights file of architecture :data:`ARCHITECTURE`, on the CPU, in eval mode.

    Raises:
        OptionError: OpenVINO is not installed.
        WeightsError: the file is damaged or of a newer OpenVINO.
    """
    entries = load_entries(path)
    graphs = [load_graph(path, entries, part) for part in (PYRAMID, HEAD)]
    with NoRandomValues():
        model = build_detector(config)
    model.pyramid, model.rpn.head = nn.Identity(), nn.Identity()
    fill(model, {name: value for name, value in entries.items() if not name.startswith((PYRAMID, HEAD))}, path)
    model.pyramid, model.rpn.head = Int8Pyramid(graphs[0]), Int8ProposalHead(graphs[1])
    return model.eval()
