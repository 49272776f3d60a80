from __future__ import annotations

import threading
import time

import pytest
import torch
from torch import Tensor, nn

from cpnpose.models.cpn import CPN, CPNConfig
from cpnpose.models.cuda_graph import GraphedNetwork, Recorded, batch_sizes
from cpnpose.models.fuse import fuse


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) * 2


def make() -> tuple[GraphedNetwork, list[tuple[int, ...]]]:
    """A network whose recordings compute on the CPU, on fixed memory as a graph does."""
    shapes: list[tuple[int, ...]] = []

    def record(model: nn.Module, example: Tensor) -> Recorded:
        shapes.append(tuple(example.shape))
        inputs = example.clone(memory_format=torch.preserve_format)
        outputs = model(inputs).clone()
        return Recorded(inputs, outputs, lambda: outputs.copy_(model(inputs)))

    return GraphedNetwork(Double(), (1, 2, 4), record), shapes


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 11])
def test_results_are_those_of_the_network(count: int) -> None:
    network, _ = make()
    x = torch.randn(count, 3, 8, 6)
    torch.testing.assert_close(network(x), Double()(x))


def test_each_bucket_is_recorded_once() -> None:
    network, shapes = make()
    for count in (3, 4, 1, 3, 9, 4):
        network(torch.randn(count, 3, 8, 6))
    assert shapes == [(4, 3, 8, 6), (1, 3, 8, 6)]


def test_shapes_beyond_the_most_recordings_go_through_the_network() -> None:
    made, shapes = make()
    network = GraphedNetwork(Double(), (1, 2, 4), made._recorder, most=2)
    for size in ((8, 6), (10, 6), (12, 6), (8, 6), (12, 6)):
        x = torch.randn(3, 3, *size)
        torch.testing.assert_close(network(x), Double()(x))
    assert shapes == [(4, 3, 8, 6), (4, 3, 10, 6)]


def test_a_result_outlives_the_next_call() -> None:
    network, _ = make()
    x = torch.randn(2, 3, 8, 6)
    first = network(x)
    network(torch.zeros(2, 3, 8, 6))
    torch.testing.assert_close(first, Double()(x))


def test_several_results_are_kept_apart() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.mean((2, 3)), x * 2

    def record(model: nn.Module, example: Tensor) -> Recorded:
        inputs = example.clone()
        outputs = tuple(output.clone() for output in model(inputs))
        return Recorded(inputs, outputs, lambda: [a.copy_(b) for a, b in zip(outputs, model(inputs), strict=True)])

    network = GraphedNetwork(Both(), (1, 4), record)
    for count in (1, 3, 6):
        x = torch.randn(count, 3, 8, 6)
        found = network(x)
        network(torch.zeros(4, 3, 8, 6))
        torch.testing.assert_close(found, Both()(x))


def test_threads_do_not_mix_their_batches() -> None:
    """Whoever comes while a recording runs waits: there is one place for inputs and one for outputs."""

    def record(model: nn.Module, example: Tensor) -> Recorded:
        inputs, outputs = example.clone(), model(example).clone()

        def replay() -> None:
            time.sleep(0.002)  # the others' turn, if they are let in
            outputs.copy_(model(inputs))
            time.sleep(0.002)

        return Recorded(inputs, outputs, replay)

    network = GraphedNetwork(Double(), (4,), record)
    wrong: list[int] = []

    def use(number: int) -> None:
        for _ in range(5):
            x = torch.full((3, 3, 8, 6), float(number))
            if not torch.equal(network(x), Double()(x)):
                wrong.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_batch_sizes() -> None:
    assert batch_sizes(1, (1, 2, 4)) == [1]
    assert batch_sizes(4, (1, 2, 4)) == [4]
    assert batch_sizes(11, (1, 2, 4)) == [4, 4, 3]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.inference_mode()
def test_graphs_on_a_graphics_card() -> None:
    model = fuse(CPN(CPNConfig("cpn-light", (64, 64))).eval()).cuda()
    network = GraphedNetwork(model, (1, 4))
    for count in (3, 1, 6, 4):
        x = torch.randn(count, 3, 64, 64, device="cuda")
        torch.testing.assert_close(network(x), model(x), rtol=1e-3, atol=1e-3)
