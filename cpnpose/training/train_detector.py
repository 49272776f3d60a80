"""Training of the person detector: ``cpnpose train detector``."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from cpnpose.errors import TrainingError
from cpnpose.evaluate_boxes import box_metrics, chosen_images, detect_all
from cpnpose.models.backbone import MobileNetV2Features, load_imagenet_backbone
from cpnpose.models.detect_batch import DetectorNetwork, network_size
from cpnpose.models.detector import ARCHITECTURE, Detector, DetectorConfig, build_detector, normalize
from cpnpose.models.weights import WeightsMetadata, find_weights, load_state, save_weights
from cpnpose.pipeline.device import choose_device, choose_precision
from cpnpose.pose.types import Detections, ImageArray
from cpnpose.training import run
from cpnpose.training.detector_augment import Canvas, compose
from cpnpose.training.detector_data import BoxDataset, read_coco, read_pixels, read_samples
from cpnpose.training.detector_picture import boxes_picture

CHECKPOINT = "checkpoint.pt"
_RAW_SCORE = 0.02
_FINISH = 0.85
"""From this share of the schedule on, canvases are mostly whole images at the detector's own size."""


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
    """Canvases of 320x320 in a step; larger ones come in smaller batches of as many pixels."""
    lr: float = 1e-2
    """Of the neck and heads, relative to the typical size of each layer's weights; a fifth of it for the backbone."""
    weight_decay: float = 0.02
    warmup_steps: int = 300
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


def train_detector(
    options: DetectorTraining, *, on_step: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, float]:
    """Train, or go on from the checkpoint in ``options.out``.

    Writes there: ``checkpoint.pt``, ``log.jsonl``, ``curves.png``, ``boxes.png`` (validation images with predicted and
    true boxes), ``last.safetensors`` and, by AP, ``best.safetensors``, both of the averaged weights.

    Args:
        on_step: gets every entry of the log as it is written, and ``fraction`` done.

    Returns:
        The last evaluation's metrics (empty without ``val``).

    Raises:
        TrainingError: nobody to train on, a loss that is no number, a checkpoint of another run.
        InputError, WeightsError: files that cannot be read.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(1) as worker:
        return DetectorRun(options, on_step).train(worker)


@dataclass(frozen=True)
class _Batch:
    pixels: Tensor
    """uint8 (N, H, W, 3)."""
    targets: list[dict[str, Tensor]]
    names: list[str]


class DetectorRun:
    """The state of a run and its steps."""

    def __init__(self, options: DetectorTraining, on_step: Callable[[dict[str, Any]], None] | None) -> None:
        torch.manual_seed(options.seed)
        self.options, self.on_step = options, on_step
        self.device = choose_device(options.device)
        self.dtype = choose_precision(options.precision, self.device)
        samples = [
            sample
            for path in options.annotations
            for sample in read_samples(path, options.data, complete=path not in options.incomplete)
        ]
        self.dataset = BoxDataset(samples)
        backbone = MobileNetV2Features()
        if options.backbone_weights is not None:
            load_imagenet_backbone(backbone, options.backbone_weights)
        self.model = build_detector(options.config, backbone)
        if options.init is not None:
            load_state(find_weights(options.init), self.model)
        self.model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(scaled_groups(self.model, options.lr, options.weight_decay), fused=True)
        self.ema = run.Ema(self.model, options.ema_decay)
        self.log = run.RunLog(options.out / "log.jsonl")
        self.step, self.minutes, self.best_ap = 0, 0.0, -1.0
        self._resume()
        self.started, self.minutes_before = time.monotonic(), self.minutes

    def train(self, worker: ThreadPoolExecutor) -> dict[str, float]:
        """Run to the end of the schedule."""
        metrics: dict[str, float] = {}
        sums: dict[str, float] = {}
        counted, pixels, window = 0, 0, time.monotonic()
        for batch in self._batches(worker):
            losses = self._train_step(batch)
            self.step += 1
            fraction = self.fraction()
            last = fraction >= 1.0
            counted, pixels = counted + 1, pixels + batch.pixels[..., 0].numel()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            if self.step % 20 == 0 or last:
                speed = pixels / 320**2 / (time.monotonic() - window)
                entry = {name: round(value / counted, 4) for name, value in sums.items()}
                self._tell({"step": self.step, **entry, "canvases_per_s": round(speed, 1), "fraction": round(fraction, 4)})
                sums, counted, pixels, window = {}, 0, 0, time.monotonic()
            if self.step % self.options.evaluate_every == 0 or last:
                metrics = self._evaluate(None if last else self.options.evaluate_images)
                window = time.monotonic()
            if self.step % self.options.checkpoint_every == 0 or last:
                self._save()
            if last:
                break
        return metrics

    def fraction(self) -> float:
        """How much of the schedule is done."""
        self.minutes = self.minutes_before + (time.monotonic() - self.started) / 60
        by_time = self.minutes / self.options.stop_after if self.options.stop_after else 0.0
        return min(1.0, max(self.step / max(1, self.options.steps), by_time))

    def _batches(self, worker: ThreadPoolExecutor) -> Iterator[_Batch]:
        """The batches from the present step on, made in the background a little ahead."""
        waiting: list[Future[_Batch]] = []
        number = self.step
        while True:
            while len(waiting) < 3:
                ahead = (number - self.step) / max(1, self.options.steps)
                waiting.append(worker.submit(self._make_batch, number, self.fraction() + ahead))
                number += 1
            yield waiting.pop(0).result()

    def _make_batch(self, number: int, fraction: float) -> _Batch:
        """The batch of a step; the same whenever it is made (by steps; with ``stop_after`` its end phase may shift)."""
        rng = np.random.default_rng([self.options.seed, number])
        finishing = fraction >= _FINISH
        native = math.sqrt(self.options.config.input_pixels)
        small = _multiple(native * 0.722)
        sizes = [(small, small)] + [network_size(*shape, self.options.config.input_pixels) for shape in ((3, 4), (4, 3))]
        size = sizes[int(rng.choice(3, p=(0.2, 0.55, 0.25) if finishing else (0.55, 0.3, 0.15)))]
        count = max(1, round(self.options.batch * small * small / (size[0] * size[1])))
        mosaic = 0.2 if finishing else 0.5
        canvases = [compose(self.dataset, rng, size, nominal_side=native, mosaic=mosaic) for _ in range(count)]
        names = [self.dataset.samples[i].path.name for canvas in canvases for i in canvas.indices]
        pixels = torch.from_numpy(np.stack([canvas.pixels for canvas in canvases]))
        return _Batch(pixels, [_target(canvas) for canvas in canvases], names)

    def _train_step(self, batch: _Batch) -> dict[str, float]:
        torch.manual_seed((self.options.seed << 32) + self.step)  # the heads draw their examples at random
        factor = self._rate_factor()
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_lr"] * factor
        images = normalize(batch.pixels.to(self.device))
        targets = [{name: value.to(self.device) for name, value in target.items()} for target in batch.targets]
        self.model.train()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            losses = self.model(images, targets)
        loss = torch.stack(list(losses.values())).sum()
        total = run.check_finite(loss, self.step, batch.names)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimizer.step()
        self.ema.update(self.model)
        return {"loss": total, **{name: float(value.detach()) for name, value in losses.items()}}

    def _rate_factor(self) -> float:
        warm = min(1.0, (self.step + 1) / max(1, self.options.warmup_steps))
        return warm * run.learning_rate_factor(round(self.fraction() * 100_000), 100_000, 0)

    def _evaluate(self, limit: int | None) -> dict[str, float]:
        options = self.options
        if options.val is None:
            return {}
        network = DetectorNetwork(copy.deepcopy(self.ema.model), self.device, self.dtype)  # type: ignore[arg-type]
        nms = options.config.nms

        def detect(images: list[ImageArray]) -> list[Detections]:
            return [Detections(*people) for people in network.detect(images, score=_RAW_SCORE, nms=nms)]

        found = detect_all(detect, options.val, options.data, limit=limit)
        metrics = box_metrics(options.val, found)
        self._draw(found)
        name = "val_all" if limit is None else f"val_{limit}"
        self._tell({"step": self.step, "fraction": round(self.fraction(), 4)} | {f"{name}_{k}": v for k, v in metrics.items()})
        run.plot_curves(self.log.path, options.out / "curves.png")
        if limit is None or metrics["AP"] > self.best_ap:
            self.best_ap = metrics["AP"]
            self._save_weights("best.safetensors", metrics, f"{len(found)} validation images")
        return metrics

    def _draw(self, found: dict[int, Detections]) -> None:
        assert self.options.val is not None
        samples = {s.image_id: s for s in read_samples(self.options.val, self.options.data)}
        ids = [int(entry["id"]) for entry in read_coco(self.options.val)["images"] if int(entry["id"]) in found]
        ids = chosen_images(ids, 16)
        boxes_picture(
            self.options.out / "boxes.png",
            [read_pixels(samples[i].path) for i in ids],
            [found[i] for i in ids],
            [samples[i].boxes_xyxy for i in ids],
            score=self.options.config.score,
        )

    def _save(self) -> None:
        self.fraction()
        content = {
            "fingerprint": self.options.fingerprint(),
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "minutes": self.minutes,
            "best_ap": self.best_ap,
            "rng": run.rng_state(),
        }
        run.save_checkpoint(self.options.out / CHECKPOINT, content)
        self._save_weights("last.safetensors", {}, "")

    def _resume(self) -> None:
        path = self.options.out / CHECKPOINT
        if not path.exists():
            return
        content = run.load_checkpoint(path)
        if content["fingerprint"] != self.options.fingerprint():
            raise TrainingError(f"{path} is of another run; give another --out, or delete it to start anew")
        self.model.load_state_dict(content["model"])
        self.ema.load_state_dict(content["ema"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.minutes, self.best_ap = content["step"], content["minutes"], content["best_ap"]
        run.set_rng_state(content["rng"])
        self.log.truncate_after(self.step)

    def _save_weights(self, name: str, metrics: dict[str, float], protocol: str) -> None:
        options = self.options
        chosen = ("steps", "stop_after", "batch", "lr", "weight_decay", "ema_decay", "seed")
        metadata = WeightsMetadata(
            architecture=ARCHITECTURE,
            input_size=network_size(3, 4, options.config.input_pixels),
            name="person-detector",
            kind="detector",
            config=asdict(options.config),
            data=", ".join(path.name for path in options.annotations),
            recipe=", ".join(f"{key} {value}" for key, value in asdict(options).items() if key in chosen)
            + f"; {self.step} steps done in {self.minutes:.0f} minutes",
            metrics={f"box {key} ({protocol})": value for key, value in metrics.items()},
        )
        save_weights(options.out / name, self.ema.model.state_dict(), metadata)

    def _tell(self, entry: dict[str, Any]) -> None:
        self.log.write(**entry)
        if self.on_step is not None:
            self.on_step(entry)


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


def _target(canvas: Canvas) -> dict[str, Tensor]:
    return {
        "boxes": torch.from_numpy(canvas.boxes_xyxy),
        "ignore": torch.from_numpy(canvas.ignore_xyxy),
        "doubtful": torch.from_numpy(canvas.doubtful_xyxy),
    }


def _multiple(side: float) -> int:
    return max(1, round(side / 32)) * 32
