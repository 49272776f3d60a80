"""One or many processes: what ``torchrun`` starts, and the averaging of gradients between them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cpnpose.models.cpn import CPN
from cpnpose.pipeline.device import choose_device


class Processes:
    """The processes of a run. Under ``torchrun`` there are several (NCCL on GPUs, gloo on CPUs), else one.

    A context manager: joins the group on entry and leaves it on exit.
    """

    def __init__(self, device: str) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = choose_device(device)
        if self.world > 1 and self.device.type == "cuda":
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))

    def __enter__(self) -> Self:
        if self.world > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
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

    def prepare(self, model: CPN) -> CPN:
        """The same weights everywhere, and batch statistics over all processes on GPUs."""
        self.share(model)
        if self.world > 1 and self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return model

    def share(self, module: nn.Module) -> None:
        """Give every process the first one's parameters and buffers, in place."""
        if self.world > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)

    def agree(self, value: float) -> float:
        """The first process's value, for all."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return float(shared)

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The body runs in the first process, then in the others."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()


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
    dist.all_reduce(flat)
    flat /= processes.world
    for tensor, part in zip(shared, torch.split(flat, [t.numel() for t in shared]), strict=True):
        tensor.copy_(part.view_as(tensor))
