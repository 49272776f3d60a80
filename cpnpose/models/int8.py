"""Pose networks in int8, which run by OpenVINO on a CPU. OpenVINO is an optional package.

A file of such weights holds OpenVINO's graph and its constants instead of a CPN's entries; ``quantize`` makes it.
"""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cpnpose.errors import OptionError, WeightsError
from cpnpose.models.weights import load_entries

ARCHITECTURE = "cpn-int8"
"""The name of this kind of network in the metadata of weights."""
GRAPH, CONSTANTS = "openvino.xml", "openvino.bin"
"""The entries of a weights file, both uint8 (bytes,)."""
_REMEDY = "int8 weights need OpenVINO: pip install 'cpnpose[int8]'; or choose other weights"


class Int8Network(nn.Module):
    """A quantised CPN: normalised crops (N, 3, H, W) to heatmaps (N, 17, H/4, W/4), float32, both on the CPU.

    May be called from several threads. What is not quantised is computed in float32.

    Args:
        graph, constants: as OpenVINO writes them.

    Raises:
        OptionError: OpenVINO is not installed.
        RuntimeError: OpenVINO cannot read them.
    """

    def __init__(self, graph: bytes, constants: bytes) -> None:
        super().__init__()
        openvino = import_extra("openvino", _REMEDY)
        core = openvino.Core()
        properties = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        model = openvino.preprocess.PrePostProcessor(core.read_model(graph, constants))
        model.input().tensor().set_layout(openvino.Layout("NHWC"))  # as crops lie in memory
        model.input().model().set_layout(openvino.Layout("NCHW"))
        self._compiled: Any = core.compile_model(model.build(), "CPU", properties)
        self._of_thread = threading.local()

    def forward(self, crops: Tensor) -> Tensor:
        request = getattr(self._of_thread, "request", None)
        if request is None:
            request = self._of_thread.request = self._compiled.create_infer_request()
        lines = crops.float().permute(0, 2, 3, 1).contiguous()
        return torch.from_numpy(request.infer([lines.numpy()])[0])


def load_int8(path: Path) -> Int8Network:
    """The network of a weights file of architecture :data:`ARCHITECTURE`.

    Raises:
        OptionError: OpenVINO is not installed.
        WeightsError: the file is damaged or of a newer OpenVINO.
    """
    found = load_entries(path)
    try:
        graph, constants = (found[name].numpy().tobytes() for name in (GRAPH, CONSTANTS))
    except KeyError as error:
        raise WeightsError(f"{path} is damaged or holds no int8 network ({error}); fetch or write it anew") from error
    try:
        return Int8Network(graph, constants)
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
