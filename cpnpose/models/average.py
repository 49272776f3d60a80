"""The mean of several weights: what runs from the same start have learned in parallel, in one network.

Wortsman et al., "Model soups", ICML 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from cpnpose.errors import WeightsError
from cpnpose.models.weights import WeightsMetadata, find_weights, load_entries, read_metadata, save_weights, shown

_THRESHOLDS = ("score", "track_score", "nms")


def average(weights: Sequence[str | Path], out: Path) -> WeightsMetadata:
    """Write the mean of weights, entry by entry; they should come from runs that started from the same weights.

    Args:
        weights: two or more names of the manifest or weights files, all of one architecture, input size and
            preprocessing.
        out: the weights file to write.

    Returns:
        The metadata of the new file: the first one's, without its name and measured figures.

    Raises:
        WeightsError: one cannot be read, is int8, or is of another network than the first.
        OutputError: the file cannot be written.
    """
    paths = [find_weights(name) for name in weights]
    first = read_metadata(paths[0])
    sums: dict[str, Tensor] = {}
    for path in paths:
        metadata = read_metadata(path)
        if _network(metadata) != _network(first):
            raise WeightsError(
                f"{path} is of another network than {paths[0]}, and only those of one network have a mean; leave it out"
            )
        entries = load_entries(path)
        if sums and entries.keys() != sums.keys():
            other = sorted(entries.keys() ^ sums.keys())
            raise WeightsError(f"{path} has other entries than {paths[0]}: {shown(other)}; write both anew")
        for name, value in entries.items():
            if not value.is_floating_point():
                raise WeightsError(f"{path}: {name} holds whole numbers, which have no mean; give weights to train on")
            sums[name] = sums[name] + value.double() if name in sums else value.double()
    means = {name: total / len(paths) for name, total in sums.items()}
    sources = ", ".join(path.stem for path in paths)
    made = replace(first, name="", metrics={}, recipe=f"mean of {sources}; {first.recipe}")
    save_weights(out, means, made)
    return made


def _network(metadata: WeightsMetadata) -> tuple[Any, ...]:
    """What two files must share to have a mean. A detector's thresholds may differ; the first file's are taken."""
    config = {name: value for name, value in metadata.config.items() if name not in _THRESHOLDS}
    return metadata.architecture, metadata.input_size, metadata.preprocessing, config
