"""What a detector training run is told, and the learning rates that follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from cpnpose.models.detector import Detector, DetectorConfig


@dataclass(frozen=True)
class DetectorTraining:
    """Options of a detector training run."""

    data: Path
    annotations: tuple[Path, ...]
    val: Path | None
    out: Path
    incomplete: tuple[Path, ...] = ()
    """Those annotation files in which people may have no box."""
    backbone_weights: Path | None = None
    """ImageNet weights of MobileNetV2, ``.npz``."""
    init: str | None = None
    """Detector weights to start from: a file or a name of the manifest."""
    steps: int = 8000
    stop_after: float | None = None
    """Minutes after which the schedule is at its end, whatever ``steps`` says; measured over all resumed parts."""
    batch: int = 16
    """Square canvases of half the pixels of the input in a step; of larger ones fewer, with as many pixels in all."""
    lr: float = 2e-2
    """Of the neck and heads, relative to the typical size of each layer's weights; a fifth of it for the backbone."""
    weight_decay: float = 0.02
    warmup_steps: int = 150
    turn: float = 0.4
    """Probability that an image is turned, for people who lean or lie; half of it at the end of the schedule."""
    turn_degrees: float = 45.0
    """By how much at most, to either side."""
    ema_decay: float = 0.998
    evaluate_every: int = 1000
    evaluate_images: int = 60
    """Validation images of the evaluations on the way; the last one takes all."""
    checkpoint_every: int = 250
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    config: DetectorConfig = field(default_factory=DetectorConfig)

    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be resumed."""
        return {
            "config": repr(self.config),
            "batch": self.batch,
            "seed": self.seed,
            "files": [path.name for path in self.annotations],
        }


def scaled_groups(model: Detector, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW whose learning rates follow the size of the weights.

    Adam moves each weight by about the learning rate whatever its gradient, and the folded layers of the backbone
    differ by a factor of 50 in the size of their weights. So a layer's rate is ``lr`` times the root mean square of its
    weights at the start (neck and heads: at least 0.02, some start near zero), a fifth of that in the backbone.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        backbone = ".blocks." in name
        decayed = parameter.ndim > 1
        size = float(parameter.detach().square().mean().sqrt()) if decayed else 0.1
        size = size if backbone and decayed else max(size, 0.02)
        rate = lr * 2.0 ** round(math.log2(max(size, 1e-4))) * (0.2 if backbone else 1.0)
        groups.setdefault((rate, decayed), []).append(parameter)
    return [
        {"params": members, "lr": rate, "full_lr": rate, "weight_decay": weight_decay if decayed else 0.0}
        for (rate, decayed), members in groups.items()
    ]
