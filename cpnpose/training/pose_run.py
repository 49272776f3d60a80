"""A pose training run in progress: its network, optimizer and place in the schedule, saved and resumed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from cpnpose.errors import TrainingError
from cpnpose.models.backbone import MobileNetV2Features, load_imagenet_backbone, settle_batch_norm
from cpnpose.models.cpn import CPN
from cpnpose.models.weights import WeightsMetadata, load_state, save_weights
from cpnpose.pipeline.device import choose_precision
from cpnpose.pose.keypoints import NUM_KEYPOINTS
from cpnpose.training import run
from cpnpose.training.augment import centre_crops
from cpnpose.training.dataset import CropCache, batch_of, epoch_order
from cpnpose.training.device_set import DeviceSet
from cpnpose.training.distill import Teacher
from cpnpose.training.distributed import Processes
from cpnpose.training.pose_options import PoseTraining, preprocessing_of

CHECKPOINT = "checkpoint.pt"
LOSSES = ("loss", "global_loss", "refine_loss", "teacher_loss")
"""Names of a step's losses in the log; the first is the sum of the others."""


def initialise(model: CPN) -> None:
    """He initialisation of what is new, and heatmap layers that start at the scale of their targets.

    The last batch normalisation of every heatmap starts with the targets' standard deviation as its weight: a Gaussian
    of peak 255 and sigma 1.4 on 64x48 pixels has one of about 11, and an optimiser with steps of 1e-3 would need
    thousands of steps to get there from 1.
    """
    for part in (model.global_net, model.refine_net):
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    heatmap_layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.num_features == NUM_KEYPOINTS]
    for layer in heatmap_layers:
        nn.init.constant_(layer.weight, 11.0)
        nn.init.constant_(layer.bias, 1.0)


@dataclass
class PoseRun:
    """A run in progress."""

    options: PoseTraining
    model: CPN
    ema: run.Ema[CPN]
    optimizer: torch.optim.Optimizer
    cache: CropCache
    processes: Processes
    teacher: Teacher | None = None
    on_device: DeviceSet | None = None
    """The cache in the device's memory, where it fits."""
    step: int = 0
    minutes: float = 0.0
    best_ap: float = -1.0
    losses: list[float] = field(default_factory=lambda: [0.0] * len(LOSSES))
    """Sums of the losses since the last entry of the log, see :data:`LOSSES`."""
    counted: int = 0
    """Steps since then."""

    @cached_property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch over all processes.

        Raises:
            TrainingError: there are fewer people than a step takes.
        """
        order = epoch_order(self.cache.records.sources, self.options.source_weights, self.options.seed, 0)
        together = self.options.batch * self.processes.world
        if len(order) < together:
            raise TrainingError(f"{len(order)} people are fewer than the {together} of a step; lower --batch")
        return len(order) // together

    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be resumed."""
        return self.options.fingerprint() | {"people": len(self.cache), "processes": self.processes.world}

    @property
    def finished(self) -> bool:
        """Whether the schedule is at its end."""
        by_time = self.options.stop_after is not None and self.minutes >= self.options.stop_after
        return self.step > 0 and (by_time or self.step >= self.total_steps)

    @property
    def total_steps(self) -> int:
        """Steps of the whole schedule."""
        return max(1, round(self.options.epochs * self.steps_per_epoch))


def load_initial(model: CPN, options: PoseTraining, cache: CropCache) -> None:
    """Start from ``--init`` or from ``--backbone-weights`` or from nothing."""
    initialise(model)
    if options.init is not None:
        load_state(run.check_initial(options.init, options.model), model)
    elif options.backbone_weights is not None:
        if not isinstance(model.backbone, MobileNetV2Features):
            raise TrainingError("--backbone-weights fits cpn-light (MobileNetV2) only; leave it out for a ResNet")
        load_imagenet_backbone(model.backbone, options.backbone_weights)
        rows = np.random.default_rng(options.seed).permutation(len(cache))[:256].astype(np.int64)
        sample = centre_crops(batch_of(cache, rows, torch.device("cpu")), options.size, preprocessing_of(options.model))
        settle_batch_norm(model.backbone, list(torch.split(sample.crops, 32)))


def schedule_fraction(state: PoseRun) -> float:
    """How much of the schedule is done after the coming step."""
    by_steps = (state.step + 1) / state.total_steps
    stop_after = state.options.stop_after
    by_time = 0.0 if stop_after is None else state.minutes / max(stop_after, 1e-9)
    return min(1.0, max(by_steps, by_time))


def make_optimizer(model: nn.Module, teacher: nn.Module | None, options: PoseTraining) -> torch.optim.Optimizer:
    """Adam for the published recipe, AdamW for the other; for the network and what links it to its teacher."""
    if options.recipe == "paper":
        parameters = [*model.parameters(), *(teacher.parameters() if teacher is not None else ())]
        return torch.optim.Adam(parameters, lr=options.lr, weight_decay=options.weight_decay)
    model = model if teacher is None else nn.ModuleList([model, teacher])
    return torch.optim.AdamW(run.parameter_groups(model, options.weight_decay), lr=options.lr, fused=True)


def learning_rate(state: PoseRun, fraction: float) -> float:
    """Halved every 6 epochs as published; else warm-up and cosine."""
    options = state.options
    if options.recipe == "paper":
        return options.lr * 0.5 ** (state.step // (6 * state.steps_per_epoch))
    warm = min(1.0, (state.step + 1) / max(1, options.warmup_steps))
    return options.lr * warm * run.learning_rate_factor(round(fraction * 100_000), 100_000, 0)


def use_bf16(precision: str, device: torch.device) -> bool:
    """Whether autocast to bfloat16 is on: asked for, or ``auto`` on hardware that has it."""
    return choose_precision(precision, device) == torch.bfloat16


def save(state: PoseRun) -> None:
    """Write the checkpoint, and the averaged weights beside it."""
    if not state.processes.is_main:
        return
    content = {
        "fingerprint": state.fingerprint(),
        "model": state.model.state_dict(),
        "ema": state.ema.state_dict(),
        "teacher": {} if state.teacher is None else state.teacher.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "step": state.step,
        "minutes": state.minutes,
        "best_ap": state.best_ap,
        "window": [*state.losses, state.counted],
        "rng": run.rng_state(),
    }
    run.save_checkpoint(state.options.out / CHECKPOINT, content)
    save_run_weights(state, "last.safetensors", {})


def resume(state: PoseRun, log: run.RunLog) -> None:
    """Go on from the checkpoint of the run's folder, if there is one.

    Raises:
        TrainingError: it is damaged, or of another run.
    """
    path = state.options.out / CHECKPOINT
    if not path.exists():
        return
    content = run.load_checkpoint(path)
    stored, mine = content.get("fingerprint", {}), state.fingerprint()
    compared = dict.fromkeys([*(name for name in stored if name in mine), "teacher"])  # earlier versions had fewer
    different = [name for name in compared if stored.get(name) != mine.get(name)]
    if not stored or different:
        told = ", ".join(f"{name} {stored.get(name, 'none')} instead of {mine.get(name, 'none')}" for name in different)
        raise TrainingError(f"{path} is of another run ({told}); give another --out, or delete it to start anew")
    state.model.load_state_dict(content["model"])
    state.ema.load_state_dict(content["ema"])
    if state.teacher is not None:
        state.teacher.load_state_dict(content["teacher"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.step, state.minutes, state.best_ap = content["step"], content["minutes"], content["best_ap"]
    window = content.get("window", [])
    if len(window) == len(LOSSES) + 1:  # earlier versions kept fewer
        *state.losses, state.counted = window
    run.set_rng_state(content["rng"])
    if state.processes.is_main:
        log.truncate_after(state.step)


def save_run_weights(state: PoseRun, name: str, metrics: dict[str, float]) -> None:
    """Write the averaged weights with what is known of the run."""
    options = state.options
    chosen = (
        "recipe",
        "batch",
        "epochs",
        "lr",
        "weight_decay",
        "location_weight",
        "augment_strength",
        "freeze_blocks",
        "teacher",
        "hint_weight",
        "ema_decay",
        "seed",
        "weights",
    )
    metadata = WeightsMetadata(
        architecture=options.model,
        input_size=options.size,
        preprocessing=preprocessing_of(options.model),
        name=f"{options.model}-{options.size[0]}x{options.size[1]}",
        data=", ".join(path.name for path in options.annotations),
        recipe=", ".join(f"{key} {value}" for key, value in asdict(options).items() if key in chosen)
        + f", steps {state.step}",
        metrics={f"{key} (ground-truth boxes, flip)": value for key, value in metrics.items()},
        decoding="published" if options.recipe == "paper" else "dark",
    )
    save_weights(options.out / name, state.ema.model.state_dict(), metadata)
