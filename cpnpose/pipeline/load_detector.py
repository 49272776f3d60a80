"""Detectors by name: the shipped one, torchvision's official ones, boxes from a file, or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cpnpose.errors import OptionError, WeightsError
from cpnpose.models.detect_batch import DetectorNetwork
from cpnpose.models.detector_weights import load_detector_weights
from cpnpose.models.fuse_module import use_fused_convolutions
from cpnpose.models.int8 import need_cpu
from cpnpose.models.int8_detector import ARCHITECTURE as INT8
from cpnpose.models.manifest import load_manifest, locate
from cpnpose.models.weights import find_weights, read_metadata
from cpnpose.pipeline.detect import DetectionNetwork, Detector, PersonDetector, WholeImageDetector
from cpnpose.pipeline.detection_file import load_boxes
from cpnpose.pipeline.device import choose_device, choose_precision
from cpnpose.pipeline.estimate import PoseNetwork
from cpnpose.pipeline.official_detector import OfficialNetwork
from cpnpose.pipeline.options import MOST_PEOPLE, ModelOptions

TORCHVISION_DETECTORS = (
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
)
"""torchvision's official detectors with COCO weights."""


def make_detector(options: ModelOptions, names: Sequence[str] | None = None) -> Detector:
    """The detector that the options ask for.

    Args:
        options: see there.
        names: file names of the input's images, for ``--boxes``; None for a video.

    Raises:
        WeightsError, OptionError, InputError: see :func:`load_detector` and ``load_boxes``.
    """
    max_people = options.most_people
    if options.boxes is not None:
        return load_boxes(options.boxes, names, score=options.score or 0.0, max_people=max_people)
    if options.detector == "none":
        return WholeImageDetector()
    return load_detector(
        options.detector,
        weights=options.detector_weights,
        device=options.device,
        precision=options.precision,
        score=options.score,
        nms=options.nms,
        max_people=max_people,
        size=options.detector_size,
    )


def load_detector(
    name: str = "default",
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
    score: float | None = None,
    nms: float | None = None,
    max_people: int = MOST_PEOPLE,
    size: tuple[int, int] | None = None,
) -> PersonDetector:
    """Load a detector of people.

    Args:
        name: ``default`` (the shipped one), a detector of the manifest, or one of :data:`TORCHVISION_DETECTORS`.
        weights: a file in the place of the named weights: one of cpnpose's, or for torchvision's a state dict.
        device, precision: see ``pipeline/device.py``; a precision is without effect on int8 weights, which
            ``check_precision`` tells.
        score, nms: see :class:`~cpnpose.pipeline.detect.PersonDetector`; None takes what the weights name.
        max_people: per image.
        size: see :attr:`~cpnpose.pipeline.options.ModelOptions.detector_size`; torchvision's have their own.

    Raises:
        WeightsError: the weights are missing, damaged, or cannot be downloaded.
        OptionError: there is no detector of that name (``none`` is none), or it cannot be run at ``size``.
    """
    if name == "none":
        raise OptionError(f"--detector none: a detector is needed here; name one of: {', '.join(detector_names())}")
    chosen = choose_device(device)
    dtype = choose_precision(precision, chosen)
    network: DetectionNetwork
    if name in TORCHVISION_DETECTORS:
        if size is not None:
            raise OptionError(f"--detector-size: {name} has a size of its own; leave it out")
        network, title = OfficialNetwork(_official(name, weights), chosen, dtype), name
        path = _official_place(name) if weights is None else Path(weights)
        own_score = own_nms = 0.5
        own_track_score = None
    else:
        path = _own_file(name, weights)
        metadata = read_metadata(path)
        if metadata.architecture == INT8:
            need_cpu(path, device)
            chosen, dtype = torch.device("cpu"), torch.float32
        model = load_detector_weights(path, metadata)
        use_fused_convolutions(model)
        network, title = DetectorNetwork(model, chosen, dtype, size), path.stem
        own_score, own_nms, own_track_score = model.config.score, model.config.nms, model.config.track_score
    return PersonDetector(
        network,
        score=own_score if score is None else score,
        track_score=own_track_score if score is None else score,
        nms=own_nms if nms is None else nms,
        max_people=max_people,
        name=title,
        file=path,
    )


def detector_names() -> list[str]:
    """The detectors that can be named: those of the manifest, and torchvision's."""
    own = sorted(entry.name for entry in load_manifest().entries.values() if entry.kind == "detector")
    return [*own, *TORCHVISION_DETECTORS]


def number_formats(network: PoseNetwork, detector: Detector | None) -> dict[str, str]:
    """What the networks of a run compute in, for :func:`~cpnpose.pipeline.device.check_precision`."""
    formats = {"the pose network": network.number_format}
    if isinstance(detector, PersonDetector):
        formats["the detector"] = detector.network.number_format
    return formats


def _own_file(name: str, weights: str | Path | None) -> Path:
    """The weights file of one of cpnpose's own detectors."""
    if weights is not None:
        return find_weights(Path(weights))
    manifest = load_manifest()
    wanted = (manifest.default_detector or "default") if name == "default" else name
    entry = manifest.entries.get(wanted)
    if entry is None or entry.kind != "detector":
        known = ", ".join(detector_names())
        if name == "default":
            raise WeightsError(f"{manifest.folder} holds no default detector; use --detector with one of: {known}")
        raise OptionError(
            f"--detector {name}: there is no such detector; known: {known}, and outside of evaluations none"
        )
    return locate(entry.name, manifest)


def _official(name: str, weights: str | Path | None) -> nn.Module:
    """One of torchvision's detectors with its COCO weights, or those of a file."""
    import torchvision

    if weights is None:
        official: Any = torchvision.models.get_model_weights(name).DEFAULT
        state = _official_state(name, official)
    else:
        state = _state_of_file(Path(weights))
    model: nn.Module = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise WeightsError(
            f"{weights or name}: the weights do not fit {name} ({first}); give those of {name}"
        ) from error
    return model


def _official_place(name: str) -> Path:
    """Where torch keeps the COCO weights of one of torchvision's detectors once they are downloaded."""
    import torchvision

    url: str = torchvision.models.get_model_weights(name).DEFAULT.url
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def _official_state(name: str, official: Any) -> dict[str, Any]:
    """The state dict, from torch's cache or by its download."""
    try:
        state: dict[str, Any] = official.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # URLError and HTTPError are OSErrors; RuntimeError: another hash
        raise WeightsError(
            f"cannot download the weights of {name} ({error}); fetch {official.url} by other means "
            f"and put it at {_official_place(name)}, or give it by --detector-weights FILE"
        ) from error
    return state


def _state_of_file(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: there is no such weights file; check the path") from error
    except Exception as error:  # torch.load and safetensors raise errors of many kinds for damaged files
        raise WeightsError(
            f"{path} is damaged or no weights file of PyTorch ({type(error).__name__}); fetch it anew"
        ) from error
