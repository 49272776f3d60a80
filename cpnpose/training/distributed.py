"""One or many processes: what ``torchrun`` starts, and the averaging of gradients between them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cpnpose.errors import OptionError, TrainingError
from cpnpose.models.cpn import CPN
from cpnpose.pipeline.device import choose_device

_PATIENCE = timedelta(days=7)
"""How long the processes wait for what the first does alone, such as cutting out everybody of a large data set; the
default of a collective, 10 minutes with NCCL, would end the run meanwhile. A process that dies is told at once."""


def world_size() -> int:
    """The number of processes that ``torchrun`` has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_one_process(what: str) -> None:
    """Refuse several processes, each of which would do the same and write the same files.

    Raises:
        OptionError: ``torchrun`` has started more than one.
    """
    if world_size() > 1:
        raise OptionError(f"{what} runs in one process, and torchrun started {world_size()}; start it without torchrun")


class Processes:
    """The processes of a run. Under ``torchrun`` there are several (NCCL on GPUs, gloo on CPUs), else one.

    A context manager: joins the group on entry and leaves it on exit.

    Raises:
        OptionError: no such device; or more processes than GPUs.
    """

    def __init__(self, device: str) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world = world_size()
        self.device = choose_device(device)
        if self.world > 1 and self.device.type == "cuda":
            self.device = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        self._patient: Any = None  # a process group

    def __enter__(self) -> Self:
        if self.world > 1:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)  # else what is made on "cuda" lands on the first GPU in all of them
                dist.init_process_group("nccl", device_id=self.device)
            else:
                dist.init_process_group("gloo")
            self._patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world > 1:
            dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def with_shared_statistics(self, model: CPN) -> CPN:
        """The network with batch statistics over all processes, on GPUs; it keeps its parameters.

        Its batch normalisation is then no ``BatchNorm2d``: for training only, not to be fused."""
        if self.world > 1 and self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return model

    @contextmanager
    def together(self) -> Iterator[None]:
        """For what all processes do at the same time and nothing but the end of one of them can prevent.

        Raises:
            TrainingError: another process is gone.
        """
        try:
            yield
        except RuntimeError as error:
            raise TrainingError(f"process {self.rank} ends, for another one could not go on and says why") from error

    def share(self, module: nn.Module) -> None:
        """Give every process the first one's parameters and buffers, in place."""
        if self.world > 1:
            with self.together():
                for tensor in module.state_dict().values():
                    dist.broadcast(tensor, 0)

    def agree(self, value: float) -> float:
        """The first process's value, for all, which wait for it as long as it takes."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        with self.together():
            dist.broadcast(shared, 0, group=self._patient)
        return float(shared)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The body runs in the first process, then in the others.

        Raises:
            TrainingError: in the others, where the body raised in the first.
        """
        if not self.is_main and not self.agree(0.0):
            raise TrainingError(f"process {self.rank} ends, for the first one could not go on and says why")
        done = 0.0
        try:
            yield
            done = 1.0
        finally:
            if self.is_main:
                self.agree(done)


@torch.no_grad()
def average_gradients(modules: Sequence[nn.Module], processes: Processes, also: Tensor | None = None) -> None:
    """Replace each gradient by its mean over the processes, in one transfer.

    The running statistics of batch normalisation are averaged too, so that all processes hold the same network.

    Args:
        also: another tensor to average, such as the losses.
    """
    if processes.world == 1:
        return
    shared = [p.grad for module in modules for p in module.parameters() if p.grad is not None]
    shared += [buffer for module in modules for buffer in module.buffers() if buffer.is_floating_point()]
    shared += [] if also is None else [also]
    flat = torch.cat([tensor.flatten() for tensor in shared])
    with processes.together():
        dist.all_reduce(flat)
    flat /= processes.world
    for tensor, part in zip(shared, torch.split(flat, [t.numel() for t in shared]), strict=True):
        tensor.copy_(part.view_as(tensor))
