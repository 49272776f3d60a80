"""Making an int8 network of a CPN: NNCF measures how large its activations become on real crops, and OpenVINO writes
the graph."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cpnpose.models.cpn import CPN
from cpnpose.models.int8 import ARCHITECTURE, CONSTANTS, GRAPH, import_extra
from cpnpose.models.weights import WeightsMetadata, load_cpn, save_weights
from cpnpose.pose.types import FloatArray, ImageArray

_BATCH = 16


class _RefinedMaps(nn.Module):
    """The network as it is used: normalised crops to RefineNet's heatmaps."""

    def __init__(self, model: CPN) -> None:
        super().__init__()
        self.model = model

    def forward(self, crops: Tensor) -> Tensor:
        maps: Tensor = self.model(crops).refined
        return maps


def quantize(weights: str | Path, crops: ImageArray, out: Path, *, name: str = "") -> WeightsMetadata:
    """Write an int8 form of a CPN.

    Weights are rounded per output channel, activations per tensor to the range that they have on ``crops``.

    Args:
        weights: a name of the manifest or a weights file.
        crops: (N, H, W, 3) uint8 RGB, people as the network sees them; a few hundred.
        out: the weights file to write.
        name: of the new weights; by default the old one's with ``-int8``.

    Returns:
        The metadata of the new file. Measured figures of the old weights are left out: they are not those of the new.

    Raises:
        WeightsError: the weights cannot be loaded.
        OptionError: OpenVINO or NNCF are not installed.
        OutputError: the file cannot be written.
    """
    model, metadata = load_cpn(weights)
    contents = [torch.from_numpy(content) for content in int8_graph(model, _normalized(crops, metadata))]
    old = metadata.name or Path(weights).stem
    made = replace(
        metadata,
        architecture=ARCHITECTURE,
        name=name or f"{old}-int8",
        recipe=f"{old} ({metadata.architecture}) quantized on {len(crops)} people; {metadata.recipe}",
        metrics={},
    )
    save_weights(out, dict(zip((GRAPH, CONSTANTS), contents, strict=True)), made)
    return made


def int8_graph(model: CPN, batches: Sequence[FloatArray]) -> list[npt.NDArray[np.uint8]]:
    """A CPN as OpenVINO's graph and constants, both uint8 (bytes,), in int8.

    Args:
        model: on the CPU, in float32.
        batches: normalised crops (n, 3, H, W), whose activations set the ranges.

    Raises:
        OptionError: OpenVINO or NNCF are not installed.
    """
    openvino, nncf = import_tools()
    height, width = batches[0].shape[2:]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: the size of the crops is fixed, as it suspects
        example = torch.zeros(2, 3, height, width)
        graph = openvino.convert_model(_RefinedMaps(model), example_input=example, input=[-1, 3, height, width])
    graph = nncf.quantize(graph, nncf.Dataset(batches), subset_size=len(batches), preset=nncf.QuantizationPreset.MIXED)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / file for file in (GRAPH, CONSTANTS)]
        openvino.serialize(graph, *map(str, paths))
        return [np.fromfile(path, np.uint8) for path in paths]


def _normalized(crops: ImageArray, metadata: WeightsMetadata) -> Sequence[FloatArray]:
    """Batches of (n, 3, H, W) float32."""
    mean, std = (np.asarray(v, np.float32) for v in (metadata.preprocessing.mean, metadata.preprocessing.std))
    parts = [crops[start : start + _BATCH] for start in range(0, len(crops), _BATCH)]
    return [np.ascontiguousarray(((part - mean) / std).transpose(0, 3, 1, 2), np.float32) for part in parts]


def import_tools() -> tuple[Any, Any]:
    """The packages ``openvino`` and ``nncf``.

    Raises:
        OptionError: one is not installed.
    """
    remedy = "to quantize weights OpenVINO and NNCF are needed: pip install 'cpnpose[quantize]'"
    return import_extra("openvino", remedy), import_extra("nncf", remedy)
