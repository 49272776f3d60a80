"""Training of a CPN: ``cpnpose train pose``.

Source of the method: Chen et al., CVPR 2018, section 4; see ``loss`` and ``augment`` for the parts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from cpnpose.errors import TrainingError
from cpnpose.evaluate import coco_results, keypoint_metrics, person_crops
from cpnpose.models.backbone import MobileNetV2Features, load_imagenet_backbone, settle_batch_norm
from cpnpose.models.cpn import CPN, Architecture, CPNConfig
from cpnpose.models.fuse import fuse
from cpnpose.models.weights import WeightsMetadata, find_weights, load_state, save_weights
from cpnpose.pipeline.estimate import PoseNetwork
from cpnpose.pose.keypoints import NUM_KEYPOINTS
from cpnpose.pose.types import PersonCrops, Poses, Preprocessing
from cpnpose.training import run
from cpnpose.training.augment import PAPER, AugmentOptions, augment, centre_crops
from cpnpose.training.dataset import CropCache, batch_of, build_cache, epoch_order, read_people, steps
from cpnpose.training.distributed import Processes, average_gradients
from cpnpose.training.loss import cpn_loss

Recipe = Literal["modern", "paper"]
CHECKPOINT = "checkpoint.pt"


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
    warmup_steps: int = 200
    ema_decay: float = 0.999
    init: str | None = None
    """Weights to start from: a file or a name of the manifest."""
    backbone_weights: Path | None = None
    freeze_bn: bool = False
    """Keep the statistics of batch normalisation as they are."""
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

    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be resumed."""
        same = ("model", "size", "recipe", "batch", "seed")
        return {name: str(getattr(self, name)) for name in same} | {"files": [path.name for path in self.annotations]}


def paper_recipe(options: PoseTraining) -> PoseTraining:
    """The published recipe: Adam 5e-4 halved every 6 epochs, its augmentation, peaks on whole pixels, no average."""
    return replace(
        options, recipe="paper", lr=5e-4, weight_decay=1e-5, warmup_steps=0, ema_decay=0.0, augmentation=PAPER
    )


def preprocessing_of(model: Architecture) -> Preprocessing:
    """How crops are normalised in training: to [-1, 1], as the ImageNet backbone wants it."""
    return Preprocessing()


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
    step: int = 0
    minutes: float = 0.0
    best_ap: float = -1.0

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch over all processes."""
        order = epoch_order(self.cache.records.sources, self.source_weights, self.options.seed, 0)
        return max(1, len(order) // (self.options.batch * self.processes.world))

    @property
    def source_weights(self) -> tuple[float, ...]:
        """Share of every annotation file."""
        return self.options.weights or (1.0,) * len(self.options.annotations)


def load_initial(model: CPN, options: PoseTraining, cache: CropCache, device: torch.device) -> None:
    """Start from ``--init`` or from ``--backbone-weights`` or from nothing."""
    initialise(model)
    if options.init is not None:
        load_state(find_weights(options.init), model)
    elif options.backbone_weights is not None:
        if not isinstance(model.backbone, MobileNetV2Features):
            raise TrainingError("--backbone-weights fits cpn-light (MobileNetV2) only; leave it out for a ResNet")
        load_imagenet_backbone(model.backbone, options.backbone_weights)
        rows = np.random.default_rng(options.seed).permutation(len(cache))[:256].astype(np.int64)
        sample = centre_crops(batch_of(cache, rows, torch.device("cpu")), options.size, preprocessing_of(options.model))
        settle_batch_norm(model.backbone, list(torch.split(sample.crops, 32)))


def train_pose(
    options: PoseTraining,
    *,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    on_cache: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Train, or go on from the checkpoint in ``options.out``.

    Writes there: ``checkpoint.pt``, ``log.jsonl``, ``curves.png``, ``people.png`` (validation people with predicted
    and true skeletons), ``last.safetensors`` and, by AP, ``best.safetensors``.

    Args:
        on_step: gets every entry of the log as it is written, and ``fraction`` done.
        on_cache: see :func:`~cpnpose.training.dataset.build_cache`.

    Returns:
        The last evaluation's metrics (empty without ``val``).

    Raises:
        TrainingError: nobody to train on, a non-finite loss, a checkpoint of another run.
        InputError, WeightsError: files that cannot be read.
    """
    with Processes(options.device) as processes:
        return _train(options, processes, on_step, on_cache)


def _train(
    options: PoseTraining,
    processes: Processes,
    on_step: Callable[[dict[str, Any]], None] | None,
    on_cache: Callable[[int, int], None] | None,
) -> dict[str, float]:
    torch.manual_seed(options.seed)
    device = processes.device
    options.out.mkdir(parents=True, exist_ok=True)
    preprocessing = preprocessing_of(options.model)
    records = read_people(options.annotations, options.data)
    with processes.main_first():
        cache = build_cache(
            records, options.size, preprocessing, options.cache or options.out / "cache", progress=on_cache
        )
    model = CPN(CPNConfig(options.model, options.size))
    load_initial(model, options, cache, device)
    model = processes.prepare(model.to(device=device, memory_format=torch.channels_last))  # type: ignore[call-overload]
    optimizer = _optimizer(model, options)
    state = PoseRun(options, model, run.Ema(model, options.ema_decay), optimizer, cache, processes)
    log = run.RunLog(options.out / "log.jsonl")
    _resume(state, log)
    validation = _Validation(options, preprocessing) if options.val is not None and processes.is_main else None
    forward = torch.compile(model) if options.compile else model
    metrics: dict[str, float] = {}
    begun, started_with, sums, counted = time.monotonic(), state.minutes, np.zeros(3), 0
    window = time.monotonic()
    fraction = 0.0
    for rows in _rows(state):
        state.minutes = started_with + (time.monotonic() - begun) / 60
        fraction = processes.agree(_fraction(state))
        losses = _step(state, forward, rows, fraction)
        sums, counted, state.step = sums + losses, counted + 1, state.step + 1
        last = fraction >= 1.0
        if state.step % 20 == 0 or last:
            speed = counted * options.batch * processes.world / (time.monotonic() - window)
            names = ("loss", "global_loss", "refine_loss")
            entry: dict[str, Any] = {
                name: round(v, 3) for name, v in zip(names, (sums / counted).tolist(), strict=True)
            }
            entry |= {"step": state.step, "samples_per_s": round(speed, 1), "lr": state.optimizer.param_groups[0]["lr"]}
            _tell(state, log, on_step, entry | {"fraction": round(fraction, 5)})
            sums, counted, window = np.zeros(3), 0, time.monotonic()
        if state.step % options.checkpoint_every == 0 or last:
            _save(state)
        if state.step % options.evaluate_every == 0 or last:
            if validation is not None:
                metrics = validation.evaluate(state)
                _tell(state, log, on_step, {"step": state.step, **metrics})
                _keep_best(state, metrics)
                run.plot_curves(log.path, options.out / "curves.png")
            processes.wait()
            window = time.monotonic()
        if last:
            break
    return metrics


def _rows(state: PoseRun) -> Iterator[np.ndarray]:
    """Rows of the next steps of this process, from where the run stands, without end."""
    options, per_epoch = state.options, state.steps_per_epoch
    epoch, skip = divmod(state.step, per_epoch)
    while True:
        order = epoch_order(state.cache.records.sources, state.source_weights, options.seed, epoch)
        if len(order) < options.batch * state.processes.world:
            raise TrainingError(f"{len(order)} people are fewer than a batch; lower --batch")
        for number, rows in enumerate(steps(order, options.batch, state.processes.rank, state.processes.world)):
            if number >= skip:
                yield rows
        epoch, skip = epoch + 1, 0


def _fraction(state: PoseRun) -> float:
    """How much of the schedule is done after the coming step."""
    total = max(1, round(state.options.epochs * state.steps_per_epoch))
    by_steps = (state.step + 1) / total
    by_time = state.minutes / state.options.stop_after if state.options.stop_after else 0.0
    return min(1.0, max(by_steps, by_time))


def _optimizer(model: nn.Module, options: PoseTraining) -> torch.optim.Optimizer:
    if options.recipe == "paper":
        return torch.optim.Adam(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    return torch.optim.AdamW(run.parameter_groups(model, options.weight_decay), lr=options.lr, fused=True)


def _learning_rate(state: PoseRun, fraction: float) -> float:
    options = state.options
    if options.recipe == "paper":
        return options.lr * 0.5 ** (state.step // (6 * state.steps_per_epoch))
    warm = min(1.0, (state.step + 1) / max(1, options.warmup_steps))
    return options.lr * warm * run.learning_rate_factor(round(fraction * 100_000), 100_000, 0)


def _step(state: PoseRun, forward: Callable[[Tensor], Any], rows: np.ndarray, fraction: float) -> np.ndarray:
    """One optimizer step; (total, global, refine) losses."""
    options, device = state.options, state.processes.device
    generator = torch.Generator(device)
    generator.manual_seed((options.seed << 40) + (state.processes.rank << 32) + state.step)
    view = augment(
        batch_of(state.cache, rows, device), options.size, options.augmentation,
        preprocessing_of(options.model), generator,
    )  # fmt: skip
    state.model.train()
    if options.freeze_bn:
        freeze_batch_norm(state.model)
    bf16 = use_bf16(options.precision, device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        maps = forward(view.crops.contiguous(memory_format=torch.channels_last))
    loss = cpn_loss(maps, view.keypoints_xy, view.visibility, options.size, quantised=options.recipe == "paper")
    records = state.cache.records
    names = [f"{records.image_paths[row].name}#{records.annotation_ids[row]}" for row in np.sort(rows)]
    total = run.check_finite(loss.total, state.step, names)
    for group in state.optimizer.param_groups:
        group["lr"] = _learning_rate(state, fraction)
    state.optimizer.zero_grad(set_to_none=True)
    loss.total.backward()  # type: ignore[no-untyped-call]
    average_gradients(state.model, state.processes)
    state.optimizer.step()
    state.ema.update(state.model)
    return np.array([total, float(loss.global_loss.detach()), float(loss.refine_loss.detach())])


def freeze_batch_norm(model: nn.Module) -> None:
    """Put every batch normalisation layer into eval mode: it uses its running statistics and leaves them alone."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def use_bf16(precision: str, device: torch.device) -> bool:
    """Whether autocast to bfloat16 is on: asked for, or ``auto`` on hardware that has it."""
    from cpnpose.pipeline.device import choose_precision

    return choose_precision(precision, device) == torch.bfloat16


def _save(state: PoseRun) -> None:
    if not state.processes.is_main:
        return
    content = {
        "fingerprint": state.options.fingerprint(),
        "model": state.model.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "step": state.step,
        "minutes": state.minutes,
        "best_ap": state.best_ap,
        "rng": run.rng_state(),
    }
    run.save_checkpoint(state.options.out / CHECKPOINT, content)
    save_run_weights(state, "last.safetensors", {})


def _resume(state: PoseRun, log: run.RunLog) -> None:
    path = state.options.out / CHECKPOINT
    if not path.exists():
        return
    content = run.load_checkpoint(path)
    if content["fingerprint"] != state.options.fingerprint():
        raise TrainingError(
            f"{path} is of another run ({content['fingerprint']}); give another --out, or delete it to start anew"
        )
    state.model.load_state_dict(content["model"])
    state.ema.load_state_dict(content["ema"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.step, state.minutes, state.best_ap = content["step"], content["minutes"], content["best_ap"]
    run.set_rng_state(content["rng"])
    if state.processes.is_main:
        log.truncate_after(state.step)


def _tell(
    state: PoseRun, log: run.RunLog, on_step: Callable[[dict[str, Any]], None] | None, entry: dict[str, Any]
) -> None:
    if state.processes.is_main:
        log.write(**entry)
        if on_step is not None:
            on_step(entry)


def _keep_best(state: PoseRun, metrics: dict[str, float]) -> None:
    if metrics["AP"] > state.best_ap:
        state.best_ap = metrics["AP"]
        save_run_weights(state, "best.safetensors", metrics)


def save_run_weights(state: PoseRun, name: str, metrics: dict[str, float]) -> None:
    """Write the averaged weights with what is known of the run."""
    options = state.options
    chosen = ("recipe", "batch", "epochs", "lr", "weight_decay", "ema_decay", "seed", "weights")
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


class _Validation:
    """Evaluation by ground-truth boxes with flip test, on crops that are cut once."""

    def __init__(self, options: PoseTraining, preprocessing: Preprocessing) -> None:
        assert options.val is not None
        self.annotations = options.val
        self.records = read_people([options.val], options.data)
        self.crops: PersonCrops = person_crops(self.records, options.size, preprocessing)

    def evaluate(self, state: PoseRun) -> dict[str, float]:
        """Metrics of the averaged weights; also draws the picture."""
        options, device = state.options, state.processes.device
        network = PoseNetwork(
            fuse(state.ema.model),
            input_size=options.size,
            preprocessing=preprocessing_of(options.model),
            decoding="published" if options.recipe == "paper" else "dark",
            device=device,
            dtype=torch.bfloat16 if use_bf16(options.precision, device) else torch.float32,
            flip=True,
        )
        poses: Poses = network(self.crops)
        metrics = keypoint_metrics(self.annotations, coco_results(poses, self.records.image_ids))
        _draw_people(options.out / "people.png", self.crops, poses, self.records.keypoints)
        return {name: metrics[name] for name in ("AP", "AP50", "AP75", "APm", "APl", "AR")}


def _draw_people(path: Path, crops: PersonCrops, poses: Poses, truth: np.ndarray) -> None:
    from cpnpose.training.picture import people_picture

    part = path.with_name(path.stem + f".{os.getpid()}.png")
    people_picture(part, crops, poses, truth)
    os.replace(part, path)
