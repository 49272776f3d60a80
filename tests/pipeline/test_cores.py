"""Threads of PyTorch and OpenCV while several share the cores, and the number of workers of each kind of device."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch

from cpnpose.pipeline import cores
from cpnpose.pipeline.cores import thread_shares, use_threads, workers_for
from cpnpose.pipeline.detect import PersonDetector
from cpnpose.pose.types import FloatArray, ImageArray


@pytest.fixture(autouse=True)
def eight_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of PyTorch, on eight cores, and three of OpenCV."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    torch.set_num_threads(8)
    cv2.setNumThreads(3)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def numbers() -> tuple[int, int]:
    return torch.get_num_threads(), cv2.getNumThreads()


def numbers_of_a_new_thread() -> tuple[int, int]:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(numbers).result()


def test_the_cores_are_shared_and_given_back() -> None:
    with thread_shares(4) as share:
        assert share == 2
        assert numbers() == (2, 1)
        with thread_shares(4) as other:
            assert other == 1
        assert numbers()[1] == 1
    assert numbers() == numbers_of_a_new_thread() == (8, 3)


def test_whoever_goes_first_the_former_numbers_come_back() -> None:
    first, second = thread_shares(2), thread_shares(2)
    assert first.__enter__() == 4
    assert second.__enter__() == 2
    first.__exit__(None, None, None)
    assert numbers() == (2, 1)  # of the second, which goes on
    second.__exit__(None, None, None)
    assert numbers() == numbers_of_a_new_thread() == (8, 3)


def test_threads_that_overlap_have_their_numbers_back() -> None:
    """PyTorch keeps the number by thread: neither may stay with the other's share."""
    came, went = threading.Event(), threading.Event()

    def other() -> tuple[int, tuple[int, int]]:
        with thread_shares(2) as share:
            came.set()
            assert went.wait(10)
        return share, numbers()

    with ThreadPoolExecutor(1) as pool:
        with thread_shares(1):
            result = pool.submit(other)
            assert came.wait(10)
        assert numbers() == (8, 1)
        went.set()
        assert result.result() == (2, (8, 3))
    assert numbers() == numbers_of_a_new_thread() == (8, 3)


def test_a_worker_takes_its_share_whatever_others_have_set() -> None:
    def worker(count: int) -> int:
        use_threads(count)
        return torch.get_num_threads()

    with thread_shares(2) as share, ThreadPoolExecutor(1) as pool:
        torch.set_num_threads(8)
        assert pool.submit(worker, share).result() == 4


def test_workers_by_device() -> None:
    assert workers_for(torch.device("cpu")) == 8
    assert workers_for(torch.device("cuda", 0)) == 2
    assert workers_for(torch.device("cpu"), 3) == workers_for(torch.device("cuda", 0), 3) == 3
    assert workers_for(torch.device("mps")) == workers_for(torch.device("mps"), 3) == 1


@pytest.mark.parametrize(("kind", "most"), [("mps", 1), ("cpu", 2)])
def test_mps_is_given_work_by_one_thread_at_a_time(kind: str, most: int) -> None:
    """Also where the pose network runs on the CPU, with many workers, and the detector on MPS."""

    class Network:
        device = torch.device(kind)
        inside, most_inside = 0, 0

        def detect(
            self, images: Sequence[ImageArray], *, score: float, nms: float, max_people: int
        ) -> list[tuple[FloatArray, FloatArray]]:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
            time.sleep(0.2)
            self.inside -= 1
            return [(np.zeros((0, 4), np.float32), np.zeros(0, np.float32)) for _ in images]

    network = Network()
    detector = PersonDetector(network)  # type: ignore[arg-type]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(detector, [[np.zeros((8, 8, 3), np.uint8)]] * 2))
    assert network.most_inside == most
