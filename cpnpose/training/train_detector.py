"""Training of the person detector: ``cpnpose train detector``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from cpnpose.errors import TrainingError
from cpnpose.evaluate_box_truth import read_truth
from cpnpose.evaluate_boxes import box_metrics
from cpnpose.models.backbone import MobileNetV2Features, load_imagenet_backbone
from cpnpose.models.detect_batch import network_size
from cpnpose.models.detector import ARCHITECTURE, build_detector, normalize
from cpnpose.models.weights import WeightsMetadata, load_state, save_weights
from cpnpose.pipeline.device import choose_device, choose_precision
from cpnpose.training import run
from cpnpose.training.detector_batch import DetectorBatch, make_batch
from cpnpose.training.detector_data import BoxDataset, check_images, read_samples
from cpnpose.training.detector_options import DetectorTraining, scaled_groups
from cpnpose.training.detector_validation import draw_validation, find_in_validation
from cpnpose.training.distributed import check_one_process

CHECKPOINT = "checkpoint.pt"


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
        OutputError: the folder or a file in it cannot be written.
        OptionError: it was started as several processes.
    """
    check_one_process("train detector")
    run.make_folder(options.out)
    with ThreadPoolExecutor(1) as worker:
        return DetectorRun(options, on_step).train(worker)


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
        check_images(samples)
        self.truth = None if options.val is None else read_truth(options.val)
        if options.val is not None:
            check_images(read_samples(options.val, options.data))  # told now, not at the first evaluation
        self.dataset = BoxDataset(samples)
        backbone = MobileNetV2Features()
        if options.backbone_weights is not None:
            load_imagenet_backbone(backbone, options.backbone_weights)
        self.model = build_detector(options.config, backbone)
        if options.init is not None:
            load_state(run.check_initial(options.init, ARCHITECTURE), self.model)
        self.model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(scaled_groups(self.model, options.lr, options.weight_decay), fused=True)
        self.ema = run.Ema(self.model, options.ema_decay)
        self.log = run.RunLog(options.out / "log.jsonl")
        self.step, self.minutes, self.best_ap = 0, 0.0, -1.0
        self._resume()
        self.started, self.minutes_before = time.monotonic(), self.minutes

    def train(self, worker: ThreadPoolExecutor) -> dict[str, float]:
        """Run to the end of the schedule; what has come there stays as it is."""
        if self.step > 0 and self.fraction() >= 1.0:
            return self._finished()
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
                self._tell(
                    {"step": self.step, **entry, "canvases_per_s": round(speed, 1), "fraction": round(fraction, 4)}
                )
                sums, counted, pixels, window = {}, 0, 0, time.monotonic()
            if self.step % self.options.evaluate_every == 0 or last:
                metrics = self._evaluate(None if last else self.options.evaluate_images)
                window = time.monotonic()
            if self.step % self.options.checkpoint_every == 0 or last:
                self._save()
            if last:
                break
        return metrics

    def _finished(self) -> dict[str, float]:
        """Tell where the run stands, and give the metrics that its log has."""
        if self.on_step is not None:
            self.on_step({"step": self.step, "fraction": 1.0})
        entries = run.read_log(self.log.path) if self.log.path.exists() else []
        last: dict[str, Any] = next((entry for entry in reversed(entries) if "val_all_AP" in entry), {})
        return {k.removeprefix("val_all_"): v for k, v in last.items() if k.startswith("val_all_")}

    def fraction(self) -> float:
        """How much of the schedule is done."""
        self.minutes = self.minutes_before + (time.monotonic() - self.started) / 60
        stop_after = self.options.stop_after
        by_time = 0.0 if stop_after is None else self.minutes / max(stop_after, 1e-9)
        return min(1.0, max(self.step / max(1, self.options.steps), by_time))

    def _batches(self, worker: ThreadPoolExecutor) -> Iterator[DetectorBatch]:
        """The batches from the present step on, made in the background a little ahead."""
        waiting: list[Future[DetectorBatch]] = []
        number = self.step
        while True:
            while len(waiting) < 3:
                ahead = (number - self.step) / max(1, self.options.steps)
                waiting.append(worker.submit(make_batch, self.dataset, self.options, number, self.fraction() + ahead))
                number += 1
            yield waiting.pop(0).result()

    def _train_step(self, batch: DetectorBatch) -> dict[str, float]:
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
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimizer.step()
        self.ema.update(self.model)
        return {"loss": total, **{name: float(value.detach()) for name, value in losses.items()}}

    def _rate_factor(self) -> float:
        warm = min(1.0, (self.step + 1) / max(1, self.options.warmup_steps))
        return warm * run.learning_rate_factor(round(self.fraction() * 100_000), 100_000, 0)

    def _evaluate(self, limit: int | None) -> dict[str, float]:
        options = self.options
        if self.truth is None:
            return {}
        found = find_in_validation(self.ema.model, options, self.truth, self.device, self.dtype, limit)
        metrics = box_metrics(self.truth, found)
        draw_validation(options, self.truth, found)
        name = "val_all" if limit is None else f"val_{limit}"
        self._tell(
            {"step": self.step, "fraction": round(self.fraction(), 4)} | {f"{name}_{k}": v for k, v in metrics.items()}
        )
        run.plot_curves(self.log.path, options.out / "curves.png")
        if limit is None or metrics["AP"] > self.best_ap:
            self.best_ap = metrics["AP"]
            self._save_weights("best.safetensors", metrics, f"{len(found)} validation images")
        return metrics

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
        if content.get("fingerprint") != self.options.fingerprint():
            raise TrainingError(f"{path} is of another run; give another --out, or delete it to start anew")
        groups = self.optimizer.state_dict()["param_groups"]
        if [group["params"] for group in groups] != [group["params"] for group in content["optimizer"]["param_groups"]]:
            raise TrainingError(
                f"{path} started from other weights; give --init and --backbone-weights as then, another --out, or "
                "delete it to start anew"
            )
        self.model.load_state_dict(content["model"])
        self.ema.load_state_dict(content["ema"])
        self.optimizer.load_state_dict(content["optimizer"])
        for group, mine in zip(self.optimizer.param_groups, groups, strict=True):
            group["full_lr"] = mine["full_lr"]  # --lr may be another
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
