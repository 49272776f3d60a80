"""What a pose training run is told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cpnpose.errors import TrainingError
from cpnpose.models.cpn import Architecture
from cpnpose.pose.types import Preprocessing
from cpnpose.training.augment import PAPER, AugmentOptions

Recipe = Literal["modern", "paper"]


@dataclass(frozen=True)
class PoseTraining:
    """Options of a pose training run."""

    data: Path
    annotations: tuple[Path, ...]
    val: Path | None
    out: Path
    model: Architecture = "cpn-light"
    size: tuple[int, int] = (256, 192)
    weights: tuple[float, ...] = ()
    """Share of each annotation file that an epoch takes; all 1 when empty."""
    recipe: Recipe = "modern"
    batch: int = 32
    """People in a step of one process."""
    epochs: float = 60.0
    lr: float = 1e-3
    weight_decay: float = 0.05
    location_weight: float = 400.0
    """Share of the location loss beside the squared error, see :func:`~cpnpose.training.loss.cpn_loss`."""
    warmup_steps: int = 200
    ema_decay: float = 0.999
    teacher: str | None = None
    """Weights of a trained network that teaches this one, see :class:`~cpnpose.training.distill.Teacher`."""
    hint_weight: float = 1000.0
    """Share of the distance from the teacher's features; its places count as much as the location loss."""
    init: str | None = None
    """Weights to start from: a file or a name of the manifest."""
    backbone_weights: Path | None = None
    freeze_bn: bool = False
    """Keep the statistics of batch normalisation as they are."""
    freeze_blocks: int = 0
    """The backbone's first so many parts stay as they are, statistics of batch normalisation included. The high
    resolutions at the start cost most: 4 parts of MobileNetV2 (all up to stride 4) are a quarter of a step's time."""
    evaluate_every: int = 1000
    """Steps between evaluations."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    stop_after: float | None = None
    """Minutes after which the schedule is at its end, whatever ``epochs`` says; measured over all resumed parts."""
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    cache: Path | None = None
    augmentation: AugmentOptions = field(default_factory=AugmentOptions)
    augment_strength: float = 1.0
    """Share of the augmentation that is applied, see :meth:`AugmentOptions.scaled`."""

    @property
    def source_weights(self) -> tuple[float, ...]:
        """Share of every annotation file."""
        return self.weights or (1.0,) * len(self.annotations)

    def check(self) -> None:
        """Raise a TrainingError where options cannot be."""
        if not self.annotations:
            raise TrainingError("no annotation file; give one by --annotations")
        if len(self.source_weights) != len(self.annotations) or min(self.source_weights) < 0:
            raise TrainingError(f"--mix {self.weights}: give one share, not below 0, for each annotation file")
        if not 0 <= self.augment_strength <= 1:
            raise TrainingError(f"--augment-strength {self.augment_strength}: give a number from 0 to 1")
        if min(self.batch, self.evaluate_every, self.checkpoint_every) < 1:
            raise TrainingError("--batch, --evaluate-every and --checkpoint-every must be at least 1")

    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be resumed."""
        same = ("model", "size", "recipe", "batch", "seed", "freeze_blocks")
        return (
            {name: str(getattr(self, name)) for name in same}
            | ({"teacher": self.teacher} if self.teacher else {})
            | {"files": [path.name for path in self.annotations]}
            | {"weights": list(map(float, self.source_weights))}
        )


def paper_recipe(options: PoseTraining) -> PoseTraining:
    """The published recipe: Adam 5e-4 halved every 6 epochs, its augmentation and loss, no average of the weights."""
    return replace(
        options,
        recipe="paper",
        lr=5e-4,
        weight_decay=1e-5,
        location_weight=0.0,
        warmup_steps=0,
        ema_decay=0.0,
        augmentation=PAPER,
    )


def preprocessing_of(model: Architecture) -> Preprocessing:
    """How crops are normalised in training: to [-1, 1], as the ImageNet backbone wants it."""
    return Preprocessing()
