"""Networks in int8, which run by OpenVINO on a CPU. OpenVINO is an optional package.

A file of such weights holds OpenVINO's graph and its constants instead of a CPN's entries; ``models/quantize.py`` makes
it. Detectors are in ``models/int8_detector.py``.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cpnpose.errors import OptionError, WeightsError
from cpnpose.models.weights import load_entries
from cpnpose.processor import available_cores

ARCHITECTURE = "cpn-int8"
"""The name of a quantised CPN in the metadata of weights."""
GRAPH, CONSTANTS = "openvino.xml", "openvino.bin"
"""The entries of a weights file, both uint8 (bytes,)."""
_Key = tuple[int, tuple[tuple[int, ...], ...]]
"""Cores for each request, and the inputs' (height, width, channels)."""
_REMEDY = "int8 weights need OpenVINO: pip install 'cpnpose[int8]'; or choose other weights"


class Int8Graph(nn.Module):
    """A quantised network or a part of one: from some tensors to others, all (N, C, H, W), float32, on the CPU.

    May be called from several threads. Each call uses as many cores as PyTorch would in its thread. What is not
    quantised is computed in float32.

    Args:
        graph, constants: as OpenVINO writes them.

    Raises:
        OptionError: OpenVINO is not installed.
        RuntimeError: OpenVINO cannot read them.
    """

    def __init__(self, graph: bytes, constants: bytes) -> None:
        super().__init__()
        openvino = import_extra("openvino", _REMEDY)
        self._core: Any = openvino.Core()
        plain = self._core.read_model(graph, constants)
        model = openvino.preprocess.PrePostProcessor(plain)
        for side, ports in ((model.input, plain.inputs), (model.output, plain.outputs)):
            for index in range(len(ports)):  # as PyTorch's channels-last tensors lie in memory
                side(index).tensor().set_layout(openvino.Layout("NHWC"))
                side(index).model().set_layout(openvino.Layout("NCHW"))
        self._model: Any = model.build()
        # OpenVINO learns of NumPy when it first makes an array: two threads that do so at once wait for each other.
        _ = openvino.Tensor(np.zeros(1, np.float32)).data
        self._compiled: dict[_Key, Any] = {}
        self._lock = threading.Lock()
        self._of_thread = threading.local()

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        arrays = [x.float().permute(0, 2, 3, 1).contiguous().numpy() for x in inputs]
        request = self._request(torch.get_num_threads(), tuple(array.shape[1:] for array in arrays))
        found = request.infer(arrays)
        return [torch.from_numpy(found[index]).permute(0, 3, 1, 2) for index in range(len(found))]

    def _request(self, threads: int, shapes: tuple[tuple[int, ...], ...]) -> Any:
        """This thread's own request to a network that uses so many cores for each request, for inputs (N, *shape).

        Height and width are told before OpenVINO compiles: where it has to find them out, its kernels for AMX end the
        process at some heights.
        """
        requests: dict[_Key, Any] = self._of_thread.__dict__.setdefault("requests", {})
        key = threads, shapes
        if key not in requests:
            with self._lock:
                if key not in self._compiled:
                    cores = max(threads, available_cores())
                    model = self._model.clone()
                    model.reshape({index: [-1, *shape] for index, shape in enumerate(shapes)})
                    self._compiled[key] = self._core.compile_model(
                        model,
                        "CPU",
                        {
                            "INFERENCE_NUM_THREADS": cores,
                            "NUM_STREAMS": cores // threads,
                            "INFERENCE_PRECISION_HINT": "f32",
                            "ENABLE_CPU_PINNING": False,  # the other stages need the cores, too
                        },
                    )
            requests[key] = self._compiled[key].create_infer_request()
        return requests[key]


class Int8Network(nn.Module):
    """A quantised CPN: normalised crops (N, 3, H, W) to heatmaps (N, 17, H/4, W/4); see :class:`Int8Graph`."""

    def __init__(self, graph: Int8Graph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, crops: Tensor) -> Tensor:
        (maps,) = self.graph(crops)
        return maps  # type: ignore[no-any-return]


def load_int8(path: Path) -> Int8Network:
    """The network of a weights file of architecture :data:`ARCHITECTURE`.

    Raises:
        OptionError: OpenVINO is not installed.
        WeightsError: the file is damaged or of a newer OpenVINO.
    """
    return Int8Network(load_graph(path, load_entries(path)))


def need_cpu(path: Path, device: str | torch.device) -> None:
    """Raise OptionError where int8 weights shall run on something else than a CPU; ``auto`` is one."""
    if device != "auto" and torch.device(device).type != "cpu":
        raise OptionError(f"--device {device}: {path.name} is int8, which runs on the CPU; choose other weights")


def load_graph(path: Path, entries: Mapping[str, Tensor], part: str = "") -> Int8Graph:
    """The graph among the entries of a weights file whose names begin with ``part``; errors as :func:`load_int8`."""
    try:
        graph, constants = (entries[part + name].numpy().tobytes() for name in (GRAPH, CONSTANTS))
    except KeyError as error:
        raise WeightsError(f"{path} is damaged or holds no int8 network ({error}); fetch or write it anew") from error
    try:
        return Int8Graph(graph, constants)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise WeightsError(
            f"{path}: OpenVINO cannot read it ({reason}); update OpenVINO, or choose weights that are not int8"
        ) from error


def import_extra(name: str, remedy: str) -> Any:
    """A package that only an extra of cpnpose installs.

    Raises:
        OptionError: it is not installed; ``remedy`` is the message.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise OptionError(remedy) from error
