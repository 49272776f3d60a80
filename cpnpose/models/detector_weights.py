"""Person detectors from their weights files."""

from __future__ import annotations

from pathlib import Path

from cpnpose.errors import WeightsError
from cpnpose.models.detector import Detector, DetectorConfig, build_detector
from cpnpose.models.int8_detector import ARCHITECTURE as INT8
from cpnpose.models.int8_detector import load_int8_detector
from cpnpose.models.quick_start import NoRandomValues
from cpnpose.models.weights import WeightsMetadata, load_state


def load_detector_weights(path: Path, metadata: WeightsMetadata) -> Detector:
    """The detector of a weights file, whose metadata say how it is built: on the CPU, float32 or int8, in eval mode.

    Raises:
        WeightsError: the file holds no detector, is damaged, or is of a newer version.
        OptionError: it is int8, and OpenVINO is not installed.
    """
    if metadata.kind != "detector":
        raise WeightsError(f"{path} holds a {metadata.kind} network, not a detector; use it with --weights")
    try:
        config = DetectorConfig(**metadata.config)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its metadata build no detector ({error}); update cpnpose") from error
    if metadata.architecture == INT8:
        return load_int8_detector(path, config)
    with NoRandomValues():
        model = build_detector(config)
    load_state(path, model)
    return model.eval()
