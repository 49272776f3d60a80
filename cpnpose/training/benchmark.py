"""How much of the training loop's time is the network's own."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass

import torch

from cpnpose.training.distributed import Processes
from cpnpose.training.pose_options import PoseTraining
from cpnpose.training.pose_run import PoseRun, use_bf16
from cpnpose.training.train_pose import prepare_run, train_step, views


@dataclass(frozen=True)
class TrainingSpeed:
    """Samples per second; medians over the rounds."""

    loop: float
    """Of the whole step: gathering, augmentation, forward, losses, backward, optimizer, average of the weights."""
    network: float
    """Of the network's forward and backward pass alone, on one batch that is ready."""

    @property
    def share(self) -> float:
        """The loop's speed as a share of the network's."""
        return self.loop / self.network


def benchmark(options: PoseTraining, *, rounds: int = 5, steps: int = 3) -> TrainingSpeed:
    """Measure the loop against the network alone, in turns, so that a change of the machine's mood meets both.

    Nothing but the cache of crops is written.

    Args:
        rounds: turns of each.
        steps: per turn.
    """
    with Processes(options.device) as processes:
        state = prepare_run(options, processes)
        forward = torch.compile(state.model) if options.compile else state.model
        with closing(views(state)) as batches:
            rows, view = next(batches)
            crops = view.crops.contiguous(memory_format=torch.channels_last)
            train_step(state, forward, rows, view, 0.0)  # buffers, kernels, compilation
            loop, network = [], []
            for turn in range(rounds + 1):
                begun = _now(processes.device)
                for _ in range(steps):
                    rows, view = next(batches)
                    train_step(state, forward, rows, view, 0.0)
                    state.step += 1
                middle = _now(processes.device)
                for _ in range(steps):
                    _network_pass(state, forward, crops)
                end = _now(processes.device)
                if turn > 0:  # the first turn warms up
                    loop.append(middle - begun)
                    network.append(end - middle)
    samples = options.batch * steps
    return TrainingSpeed(samples / sorted(loop)[rounds // 2], samples / sorted(network)[rounds // 2])


def _network_pass(state: PoseRun, forward: object, crops: torch.Tensor) -> None:
    """Forward and backward with given gradients of the maps."""
    assert callable(forward)
    device = state.processes.device
    for parameter in state.model.parameters():
        parameter.grad = None
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=use_bf16(state.options.precision, device)):
        maps = forward(crops)
    outputs = [*maps.global_maps, maps.refined]
    torch.autograd.backward(outputs, [torch.full_like(output, 1e-6) for output in outputs])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
