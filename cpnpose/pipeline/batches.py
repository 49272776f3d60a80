"""How much a device does in one go, and less of it when memory runs out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import torch

from cpnpose.errors import CpnposeError
from cpnpose.pipeline.device import is_out_of_memory

T = TypeVar("T")


class HalvingBatch:
    """The most items that go through a device at once. Out of memory, it is halved, for this and all later calls.

    May be used from several threads.

    Args:
        size: to begin with.
        device: whose memory it is about.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.size, self.device = size, device
        self._lock = threading.Lock()

    def map(self, function: Callable[[slice], T], count: int, what: str) -> list[T]:
        """Call ``function`` for ``count`` items in order, a part of them at a time, and again for a smaller part where
        memory was not enough.

        Args:
            what: that is done with a single item, for the error, such as "for a single crop".

        Returns:
            The results of the parts.

        Raises:
            CpnposeError: not even a single item fits into memory.
        """
        results: list[T] = []
        start = 0
        while start < count:
            part = slice(start, min(start + self.size, count))
            try:
                results.append(function(part))
                start = part.stop
                continue
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if part.stop - part.start == 1:
                    raise CpnposeError(
                        f"not enough memory on {self.device} {what}; close other programs, or use smaller weights or "
                        "--device cpu"
                    ) from error
            self._halve(part.stop - part.start)  # when the error is gone, and with it what its frames held
        return results

    def _halve(self, tried: int) -> None:
        with self._lock:
            self.size = min(self.size, tried // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()
