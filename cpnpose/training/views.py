"""The batches that a network learns from: people drawn from the cache, seen another way each time."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import numpy.typing as npt
import torch

from cpnpose.training.ahead import one_ahead
from cpnpose.training.augment import Augmented, augment
from cpnpose.training.dataset import batch_of, epoch_order, steps
from cpnpose.training.pose_options import preprocessing_of
from cpnpose.training.pose_run import PoseRun

Rows = npt.NDArray[np.int64]
"""People of one process' batch, by their places in the cache."""


def views(state: PoseRun) -> Generator[tuple[Rows, Augmented], None, None]:
    """The augmented batches of the next steps of this process, from where the run stands, without end.

    On a graphics card whose memory does not hold the whole set, the next batch is gathered and drawn by a thread while
    the network works on the last one; on a CPU that thread would only take the network's cores. A batch depends on
    the seed and the step's number alone.
    """
    made = _make_views(state)
    return one_ahead(made) if state.processes.device.type == "cuda" and state.on_device is None else made


def _make_views(state: PoseRun) -> Generator[tuple[Rows, Augmented], None, None]:
    options, device = state.options, state.processes.device
    part = (state.processes.rank, state.processes.world)
    strengths = options.augmentation.scaled(options.augment_strength)
    for step, rows in enumerate(_rows(state), start=state.step):
        generator = torch.Generator(device)
        generator.manual_seed((options.seed << 40) + step)
        batch = batch_of(state.cache, rows, device) if state.on_device is None else state.on_device.batch_of(rows)
        yield (
            rows,
            augment(batch, options.size, strengths, preprocessing_of(options.model), generator, part=part),
        )


def _rows(state: PoseRun) -> Iterator[Rows]:
    options = state.options
    epoch, skip = divmod(state.step, state.steps_per_epoch)
    while True:
        order = epoch_order(state.cache.records.sources, options.source_weights, options.seed, epoch)
        for number, rows in enumerate(steps(order, options.batch, state.processes.rank, state.processes.world)):
            if number >= skip:
                yield rows
        epoch, skip = epoch + 1, 0
