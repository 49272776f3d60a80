"""How the processor's cores are shared out, and how many threads a device is given work by."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch

from cpnpose.processor import available_cores

_MOST_CPU_WORKERS = 8


def workers_for(device: torch.device, wanted: int | None = None) -> int:
    """How many threads work with a network at the same time.

    On a CPU one for each core, on a graphics card two, so that one prepares while the other's work is computed, unless
    another number is ``wanted``. MPS takes no work from several threads: always one.
    """
    if device.type == "mps":
        return 1
    return wanted or (2 if device.type == "cuda" else min(available_cores(), _MOST_CPU_WORKERS))


class _Sharing:
    """All that share the cores of this process now, and what was set before the first of them came."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users: dict[object, tuple[int, int]] = {}
        """Of each its thread and its number of workers."""
        self.torch_threads, self.opencv_threads = 0, 0


_SHARING = _Sharing()  # of the process, as the numbers of threads of PyTorch and OpenCV are


@contextmanager
def thread_shares(workers: int) -> Iterator[int]:
    """Share the cores out: each of ``workers`` networks gets an equal number for itself, and OpenCV uses its caller's.

    Otherwise every network and every resizing would start as many threads as there are cores, and they would wait for
    each other. Who comes while others are there shares with them. The former numbers are restored when the last one
    goes, in whatever order they came; each calling thread has its own back when it shares no more.

    Yields:
        The threads of each network. PyTorch keeps their number by thread: a worker calls :func:`use_threads` with it.
    """
    mine = object()
    with _SHARING.lock:
        if not _SHARING.users:
            _SHARING.torch_threads, _SHARING.opencv_threads = torch.get_num_threads(), cv2.getNumThreads()
        _SHARING.users[mine] = threading.get_ident(), workers
        together = sum(count for _, count in _SHARING.users.values())
        share = max(1, min(_SHARING.torch_threads, available_cores()) // together)
        torch.set_num_threads(share)
        cv2.setNumThreads(1)
    try:
        yield share
    finally:
        with _SHARING.lock:
            del _SHARING.users[mine]
            if threading.get_ident() not in (thread for thread, _ in _SHARING.users.values()):
                torch.set_num_threads(_SHARING.torch_threads)
            if not _SHARING.users:
                cv2.setNumThreads(_SHARING.opencv_threads)


def use_threads(count: int) -> None:
    """Have PyTorch compute with ``count`` threads what the calling thread asks for."""
    if torch.get_num_threads() != count:  # asking alone lets oneDNN learn the number; setting it drops what it keeps
        torch.set_num_threads(count)
