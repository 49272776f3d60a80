"""Making int8 networks: NNCF measures how large the activations become on pictures, and OpenVINO writes the graph."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cpnpose.errors import WeightsError
from cpnpose.models.cpn import CPN
from cpnpose.models.detect_batch import network_size
from cpnpose.models.detector import Detector, normalize
from cpnpose.models.detector_weights import load_detector_weights
from cpnpose.models.device_images import resized
from cpnpose.models.int8 import ARCHITECTURE, CONSTANTS, GRAPH, import_extra
from cpnpose.models.int8_detector import ARCHITECTURE as DETECTOR_ARCHITECTURE
from cpnpose.models.int8_detector import HEAD, PYRAMID
from cpnpose.models.weights import WeightsMetadata, find_weights, load_cpn, read_metadata, save_weights
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


class _Levels(nn.Module):
    """A detector's pyramid, but the last level, which holds every other cell of the one before."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.pyramid = model.pyramid

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.pyramid(images).values())[:-1]


class _Proposals(nn.Module):
    """A detector's proposal head: its levels to the scores of all and the deltas of all."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.head = model.rpn.head

    def forward(self, *levels: Tensor) -> tuple[Tensor, ...]:
        scores, deltas = self.head(list(levels))
        return (*scores, *deltas)


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
    made = _made(metadata, Path(weights).stem, ARCHITECTURE, name, f"{len(crops)} people")
    save_weights(out, int8_cpn(model, _normalized(crops, metadata)), made)
    return made


def quantize_detector(
    weights: str | Path, images: Iterable[ImageArray], out: Path, *, name: str = ""
) -> WeightsMetadata:
    """Write a form of a person detector whose convolutions are in int8; the box head stays as it is.

    Args:
        images: (H, W, 3) uint8 RGB each, such as the detector will see; a hundred.

    Other arguments, result and errors as in :func:`quantize`.
    """
    path = find_weights(weights)
    metadata = read_source(path)
    model = load_detector_weights(path, metadata)
    batches = [_resized(image, model.config.input_pixels) for image in images]
    with torch.no_grad():
        pyramids = [model.pyramid(torch.from_numpy(batch)) for batch in batches]
    levels = [[level.numpy() for level in pyramid.values()] for pyramid in pyramids]
    entries = int8_graph(_Levels(model), [[batch] for batch in batches], PYRAMID)
    entries |= int8_graph(_Proposals(model), levels, HEAD)
    entries |= {key: value for key, value in model.state_dict().items() if not key.startswith((PYRAMID, HEAD))}
    made = _made(metadata, path.stem, DETECTOR_ARCHITECTURE, name, f"{len(batches)} images")
    save_weights(out, entries, made)
    return made


def read_source(weights: str | Path) -> WeightsMetadata:
    """The metadata of weights that are to be quantized.

    Raises:
        WeightsError: they cannot be read, or are int8 already.
    """
    path = find_weights(weights)
    metadata = read_metadata(path)
    if metadata.architecture in (ARCHITECTURE, DETECTOR_ARCHITECTURE):
        raise WeightsError(f"{path} is int8 already ({metadata.architecture}); give the weights that it was made of")
    return metadata


def int8_cpn(model: CPN, batches: Sequence[FloatArray]) -> dict[str, Tensor]:
    """The entries of a CPN in int8; batches of normalised crops (n, 3, H, W) set the ranges. As :func:`int8_graph`."""
    return int8_graph(_RefinedMaps(model), [[batch] for batch in batches], size=batches[0].shape[2:])


def int8_graph(
    module: nn.Module, batches: Sequence[Sequence[FloatArray]], prefix: str = "", *, size: Sequence[int] = (-1, -1)
) -> dict[str, Tensor]:
    """A module as OpenVINO's graph and constants, both uint8 (bytes,), in int8.

    Args:
        module: on the CPU, in float32; from tensors (n, C, H, W) to one or several such.
        batches: its inputs; the activations that they lead to set the ranges.
        prefix: of both entries' names.
        size: (height, width) of all inputs that it will ever see; -1 is any.

    Raises:
        OptionError: OpenVINO or NNCF are not installed.
    """
    openvino, nncf = import_tools()
    example = tuple(torch.from_numpy(batch[:2]) for batch in batches[0])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: what depends on the size is the same in OpenVINO
        shapes = [[-1, tensor.shape[1], *size] for tensor in example]
        graph = openvino.convert_model(module, example_input=example, input=shapes)
    data = nncf.Dataset([list(batch) for batch in batches])
    graph = nncf.quantize(graph, data, subset_size=len(batches), preset=nncf.QuantizationPreset.MIXED)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / file for file in (GRAPH, CONSTANTS)]
        openvino.serialize(graph, *map(str, paths))
        return {prefix + path.name: torch.from_numpy(np.fromfile(path, np.uint8)) for path in paths}


def _made(old: WeightsMetadata, stem: str, architecture: str, name: str, what: str) -> WeightsMetadata:
    """The metadata of a quantised network."""
    known = old.name or stem
    return replace(
        old,
        architecture=architecture,
        name=name or f"{known}-int8",
        recipe=f"{known} ({old.architecture}) quantized on {what}; {old.recipe}",
        metrics={},
    )


def _normalized(crops: ImageArray, metadata: WeightsMetadata) -> Sequence[FloatArray]:
    """Batches of (n, 3, H, W) float32."""
    mean, std = (np.asarray(v, np.float32) for v in (metadata.preprocessing.mean, metadata.preprocessing.std))
    parts = [crops[start : start + _BATCH] for start in range(0, len(crops), _BATCH)]
    return [np.ascontiguousarray(((part - mean) / std).transpose(0, 3, 1, 2), np.float32) for part in parts]


def _resized(image: ImageArray, pixels: int) -> FloatArray:
    """An image as a detector sees it: (1, 3, h, w) float32."""
    height, width = network_size(image.shape[0], image.shape[1], pixels)
    tensor = normalize(resized([image], height, width, torch.device("cpu")))
    return np.ascontiguousarray(tensor.numpy())


def import_tools() -> tuple[Any, Any]:
    """The packages ``openvino`` and ``nncf``.

    Raises:
        OptionError: one is not installed.
    """
    remedy = "to quantize weights OpenVINO and NNCF are needed: pip install 'cpnpose[quantize]'"
    return import_extra("openvino", remedy), import_extra("nncf", remedy)
