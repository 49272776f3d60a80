"""Training of a CPN: ``cpnpose train pose``.

Source of the method: Chen et al., CVPR 2018, section 4; see ``loss`` and ``augment`` for the parts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from cpnpose.models.cpn import CPN, CPNConfig
from cpnpose.models.product_conv import use_products
from cpnpose.models.weights import find_weights
from cpnpose.training import run
from cpnpose.training.augment import Augmented
from cpnpose.training.dataset import build_cache, read_people
from cpnpose.training.device_set import fits, load_on_device
from cpnpose.training.distill import Teacher
from cpnpose.training.distributed import Processes, average_gradients
from cpnpose.training.freeze import freeze_batch_norm, frozen_blocks
from cpnpose.training.loss import cpn_loss
from cpnpose.training.pose_options import PoseTraining, Recipe, paper_recipe, preprocessing_of
from cpnpose.training.pose_run import (
    CHECKPOINT,
    LOSSES,
    PoseRun,
    initialise,
    learning_rate,
    load_initial,
    make_optimizer,
    resume,
    save,
    save_run_weights,
    schedule_fraction,
    use_bf16,
)
from cpnpose.training.pose_validation import PoseValidation
from cpnpose.training.views import Rows, views

__all__ = [
    "CHECKPOINT",
    "PoseRun",
    "PoseTraining",
    "Recipe",
    "freeze_batch_norm",
    "initialise",
    "paper_recipe",
    "prepare_run",
    "preprocessing_of",
    "train_pose",
    "train_step",
    "views",
]

LOG_EVERY = 20
"""Steps between entries of the log."""
OnStep = Callable[[dict[str, Any]], None]


def train_pose(
    options: PoseTraining, *, on_step: OnStep | None = None, on_cache: Callable[[int, int], None] | None = None
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
        OutputError: the folder or a file in it cannot be written.
    """
    with Processes(options.device) as processes:
        state = prepare_run(options, processes, on_cache)
        log = run.RunLog(options.out / "log.jsonl")
        resume(state, log)
        validation = None
        with processes.main_first():
            if options.val is not None and processes.is_main:
                validation = PoseValidation(options, preprocessing_of(options.model))
        if state.finished:
            return _last_metrics(log)
        return _train(state, log, validation, on_step)


def prepare_run(
    options: PoseTraining, processes: Processes, on_cache: Callable[[int, int], None] | None = None
) -> PoseRun:
    """A run at its start: cached crops, the initial network and its optimizer."""
    options.check()
    if options.init is not None:  # a missing file is told before a folder is made
        run.check_initial(options.init, options.model)
    if options.teacher is not None:
        find_weights(options.teacher)
    torch.manual_seed(options.seed)
    records = read_people(options.annotations, options.data)
    run.make_folder(options.out)
    with processes.main_first():
        cache = build_cache(
            records,
            options.size,
            preprocessing_of(options.model),
            options.cache or options.out / "cache",
            progress=on_cache,
        )
    model = CPN(CPNConfig(options.model, options.size))
    load_initial(model, options, cache)
    for block in frozen_blocks(model, options):
        block.requires_grad_(False)
    if processes.device.type == "cpu":
        use_products(model)
    model.to(device=processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    processes.share(model)
    ema = run.Ema(model, options.ema_decay)  # of the plain network: it is fused for validation, and saved
    model = processes.with_shared_statistics(model)
    teacher = None
    if options.teacher is not None:
        dtype = torch.bfloat16 if use_bf16(options.precision, processes.device) else torch.float32
        teacher = Teacher(options.teacher, model, preprocessing_of(options.model), dtype).to(processes.device)
        processes.share(teacher)
    optimizer = make_optimizer(model, teacher, options)
    on_device = load_on_device(cache, processes.device) if fits(cache, processes.device) else None
    return PoseRun(options, model, ema, optimizer, cache, processes, teacher, on_device)


def _train(
    state: PoseRun, log: run.RunLog, validation: PoseValidation | None, on_step: OnStep | None
) -> dict[str, float]:
    options, processes = state.options, state.processes
    forward = torch.compile(state.model) if options.compile else state.model
    metrics: dict[str, float] = {}
    begun, started_with = time.monotonic(), state.minutes
    window, window_steps = time.monotonic(), 0
    with closing(views(state)) as batches:
        for rows, view in batches:
            state.minutes = started_with + (time.monotonic() - begun) / 60
            fraction = processes.agree(schedule_fraction(state))
            losses = train_step(state, forward, rows, view, fraction)
            state.losses = [old + new for old, new in zip(state.losses, losses, strict=True)]
            state.step, state.counted, window_steps = state.step + 1, state.counted + 1, window_steps + 1
            last = fraction >= 1.0
            if state.step % LOG_EVERY == 0 or last:
                speed = window_steps * options.batch * processes.world / (time.monotonic() - window)
                entry: dict[str, Any] = {
                    name: round(total / state.counted, 3) for name, total in zip(LOSSES, state.losses, strict=True)
                }
                entry |= {"step": state.step, "samples_per_s": round(speed, 1)}
                entry |= {"lr": state.optimizer.param_groups[0]["lr"], "fraction": round(fraction, 5)}
                _tell(state, log, on_step, entry)
                state.losses, state.counted = [0.0] * len(LOSSES), 0
                window, window_steps = time.monotonic(), 0
            if state.step % options.evaluate_every == 0 or last:
                with processes.main_first():
                    if validation is not None:
                        metrics = validation.evaluate(state)
                        _tell(state, log, on_step, {"step": state.step, **metrics})
                        _keep_best(state, metrics)
                        run.plot_curves(log.path, options.out / "curves.png")
                window, window_steps = time.monotonic(), 0
            if state.step % options.checkpoint_every == 0 or last:
                save(state)  # after the evaluation, so that the checkpoint knows of it
            if last:
                break
    return metrics


def train_step(
    state: PoseRun, forward: Callable[[Tensor], Any], rows: Rows, view: Augmented, fraction: float
) -> list[float]:
    """One optimizer step; its losses in the order of ``LOSSES``, their mean over all processes.

    Raises:
        TrainingError: the loss is no finite number; every process stops and names its batch.
    """
    options, device = state.options, state.processes.device
    state.model.train()
    if options.freeze_bn:
        freeze_batch_norm(state.model)
    for block in frozen_blocks(state.model, options):
        freeze_batch_norm(block)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=use_bf16(options.precision, device)):
        crops = view.crops.contiguous(memory_format=torch.channels_last)
        maps = forward(crops)
        taught = None if state.teacher is None else state.teacher(crops, maps, view.visibility)
    loss = cpn_loss(
        maps, view.keypoints_xy, view.visibility, options.size,
        published=options.recipe == "paper", location_weight=options.location_weight,
    )  # fmt: skip
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(state, fraction)
    state.optimizer.zero_grad(set_to_none=True)
    teacher_loss = torch.zeros_like(loss.total)
    if taught is not None:
        teacher_loss = options.hint_weight * taught.hints + options.location_weight * taught.locations
    total = loss.total + teacher_loss
    total.backward()  # type: ignore[no-untyped-call]
    losses = torch.stack([total, loss.global_loss, loss.refine_loss, teacher_loss]).detach()
    learning = [state.model] if state.teacher is None else [state.model, state.teacher]
    average_gradients(learning, state.processes, losses)
    values: list[float] = losses.tolist()  # waits for the device
    run.check_finite(values[0], state.step, lambda: [state.cache.records.name(int(row)) for row in rows])
    state.optimizer.step()
    state.ema.update(state.model)
    return values


def _tell(state: PoseRun, log: run.RunLog, on_step: OnStep | None, entry: dict[str, Any]) -> None:
    if state.processes.is_main:
        log.write(**entry)
        if on_step is not None:
            on_step(entry)


def _keep_best(state: PoseRun, metrics: dict[str, float]) -> None:
    if metrics["AP"] > state.best_ap:
        state.best_ap = metrics["AP"]
        save_run_weights(state, "best.safetensors", metrics)


def _last_metrics(log: run.RunLog) -> dict[str, float]:
    measured = [entry for entry in run.read_log(log.path) if "AP" in entry] if log.path.exists() else []
    last = measured[-1] if measured else {}
    return {name: value for name, value in last.items() if name not in ("step", "unix_time")}
