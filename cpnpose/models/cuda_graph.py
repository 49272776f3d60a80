"""A network on a graphics card without the cost of launching its kernels one by one: CUDA graphs for fixed batch sizes.

A graph repeats exactly the kernels that were recorded, on the same memory. So there is one for each of a few batch
sizes, recorded at its first use; a batch is padded to the next size, and what is larger than the largest is split.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_WARM_UP_CALLS = 3
Result = Tensor | tuple[Tensor, ...]
"""What a network gives: one tensor or several, each with a row per item of the batch."""


@dataclass
class Recorded:
    """A network recorded for one shape."""

    inputs: Tensor
    """Where the next batch has to be put."""
    outputs: Result
    """Where its result is after :attr:`replay`."""
    replay: Callable[[], Any]


Recorder = Callable[[nn.Module, Tensor], Recorded]


def record_graph(model: nn.Module, example: Tensor) -> Recorded:
    """Record a network as a CUDA graph for inputs of the shape, type and layout of ``example`` (on a CUDA device)."""
    inputs = torch.empty_like(example).copy_(example)
    stream = torch.cuda.Stream(example.device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(example.device))
    with torch.cuda.stream(stream):  # lets libraries choose their kernels and take their memory before the recording
        for _ in range(_WARM_UP_CALLS):
            model(inputs)
    torch.cuda.current_stream(example.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # On a stream of this device: without one, PyTorch takes a stream that it made once, of whatever device was current.
    # Other threads of the pipeline may use the device meanwhile.
    with torch.cuda.device(example.device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        outputs = model(inputs)
    return Recorded(inputs, outputs, graph.replay)


class GraphedNetwork(nn.Module):
    """A network in inference, run from recordings. May be called from several threads and streams.

    Args:
        model: (N, C, H, W) to (N, ...), or to several of that kind; must not decide anything by values, nor bring
            values from the processor's memory. Parameters stay where they are: replace them only by a new object.
        buckets: the batch sizes, ascending.
        recorder: makes the recordings.
        most: recordings, each of which takes time and memory; inputs of further shapes go through the network itself.
    """

    def __init__(
        self,
        model: nn.Module,
        buckets: tuple[int, ...] = BUCKETS,
        recorder: Recorder = record_graph,
        most: int | None = None,
    ) -> None:
        super().__init__()
        self._most = most
        self.model = model.eval()
        self.buckets = buckets
        self._recorder = recorder
        self._recordings: dict[tuple[Any, ...], Recorded] = {}
        self._lock = threading.Lock()
        self._done: torch.cuda.Event | None = None

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Any:
        """As the network itself; the result is the caller's own."""
        if len(x) == 0:
            return self.model(x)
        parts = torch.split(x, batch_sizes(len(x), self.buckets))
        results = [self._part(part) for part in parts]
        if len(results) == 1:
            return results[0]
        if isinstance(results[0], Tensor):
            return torch.cat(results)  # type: ignore[arg-type]
        return tuple(map(torch.cat, zip(*results, strict=True)))

    def _part(self, x: Tensor) -> Result:
        size = next(bucket for bucket in self.buckets if bucket >= len(x))
        with self._lock:
            if self._done is not None:  # the last result has been read, whatever stream that was on
                torch.cuda.current_stream(x.device).wait_event(self._done)
            key = (size, *x.shape[1:], x.dtype, x.device)
            recorded = self._recordings.get(key)
            if recorded is None and self._most is not None and len(self._recordings) >= self._most:
                return self.model(x)  # type: ignore[no-any-return]
            if recorded is None:
                example = x.new_zeros(size, *x.shape[1:]).contiguous(memory_format=torch.channels_last)
                recorded = self._recordings[key] = self._recorder(self.model, example)
            recorded.inputs[: len(x)].copy_(x, non_blocking=True)
            recorded.replay()
            result = _first_rows(recorded.outputs, len(x))
            if x.device.type == "cuda":
                self._done = self._done or torch.cuda.Event()  # type: ignore[no-untyped-call]
                self._done.record(torch.cuda.current_stream(x.device))
            return result


def _first_rows(outputs: Result, count: int) -> Result:
    """Copies of the first rows."""
    if isinstance(outputs, Tensor):
        return outputs[:count].clone()
    return tuple(output[:count].clone() for output in outputs)


def batch_sizes(count: int, buckets: tuple[int, ...]) -> list[int]:
    """How many of ``count`` rows go together: as many full largest buckets as there are, and the rest."""
    full, rest = divmod(count, buckets[-1])
    return [buckets[-1]] * full + [rest] * (rest > 0)
