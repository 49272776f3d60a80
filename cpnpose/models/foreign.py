"""Checkpoints of ``GengDavid/pytorch-cpn``, read safely and brought into our format key by key."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpnpose.errors import OptionError, WeightsError
from cpnpose.models.cpn import CPN, Architecture, CPNConfig
from cpnpose.models.manifest import file_sha256
from cpnpose.models.quick_start import NoRandomValues
from cpnpose.models.weights import WeightsMetadata, save_weights, shown
from cpnpose.pose.types import Preprocessing

PUBLISHED_PREPROCESSING = Preprocessing(
    mean=(122.7717, 115.9465, 102.9801), std=(255.0, 255.0, 255.0), box_padding=(0.10, 0.15)
)
"""RGB, divided by 255 after the mean is subtracted; boxes widened by 10 % and 15 % on each side."""

_PREFIX = "module."
_COUNTER = "num_batches_tracked"
_NORM_LEAVES = ("weight", "bias", "running_mean", "running_var", _COUNTER)
_BLOCKS: dict[Architecture, tuple[int, int, int, int]] = {"cpn50": (3, 4, 6, 3), "cpn101": (3, 4, 23, 3)}


@dataclass(frozen=True)
class ForeignCheckpoint:
    """A checkpoint of pytorch-cpn in our names."""

    architecture: Architecture
    state_dict: dict[str, Tensor]
    """Our keys, float32 on the CPU, complete and of the right shapes."""
    epoch: int | None
    """The epoch that the checkpoint tells, or None."""


def read_checkpoint(path: str | Path) -> ForeignCheckpoint:
    """Read a checkpoint of pytorch-cpn: a pickled dict with ``state_dict``, or that state dict alone, each key with the
    prefix ``module.`` or without. Nothing but tensors and plain values is unpickled, so no code in it can run.

    Raises:
        WeightsError: the file cannot be read or holds more than such values; or an entry is unknown, missing or of the
            wrong shape, which the message names by the checkpoint's own key.
    """
    content = _unpickle(Path(path))
    state = content.get("state_dict", content)
    epoch = content.get("epoch") if "state_dict" in content else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(key, str) for key in state):
        raise WeightsError(f"{path} holds no state_dict of a network; give a checkpoint of pytorch-cpn")
    entries: dict[str, Any] = {}
    for key, value in state.items():
        bare = key.removeprefix(_PREFIX)
        if bare in entries:
            raise WeightsError(f"{path} has {bare} both with and without the prefix {_PREFIX}; it cannot be imported")
        entries[bare] = value
    architecture = _depth(path, entries)
    return ForeignCheckpoint(
        architecture, _translate(path, entries, architecture), epoch if isinstance(epoch, int) else None
    )


def key_map(architecture: Architecture) -> dict[str, str]:
    """Every key of pytorch-cpn's network of that depth, without ``module.``, to the key of :class:`CPN`.

    Args:
        architecture: ``cpn50`` or ``cpn101``.
    """
    keys: dict[str, str] = {}
    for theirs, ours, is_norm in _layers(_BLOCKS[architecture]):
        for leaf in _NORM_LEAVES if is_norm else ("weight",):
            keys[f"{theirs}.{leaf}"] = f"{ours}.{leaf}"
    return keys


def import_checkpoint(
    path: str | Path,
    out: str | Path,
    *,
    input_size: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> WeightsMetadata:
    """Write a checkpoint of pytorch-cpn as a weights file with that implementation's preprocessing and decoding.

    Args:
        path: the checkpoint.
        out: the weights file; replaced if it exists.
        input_size: (height, width) of the crops it was trained for. The tensors do not tell it; None takes it from the
            file's name (``CPN50_384x288.pth.tar``), else 256x192.
        dtype: of the stored tensors; float32 keeps the outcome the same to the last digits.

    Returns:
        The metadata as written.

    Raises:
        WeightsError: see :func:`read_checkpoint`.
        OptionError: the size is not made of multiples of 32.
        OutputError: ``out`` cannot be written.
    """
    source = Path(path)
    size = input_size or size_in_name(source.name) or (256, 192)
    if min(size) <= 0 or size[0] % 32 or size[1] % 32:
        raise OptionError(f"input size {size[0]}x{size[1]}: height and width must be multiples of 32, such as 256x192")
    checkpoint = read_checkpoint(source)
    epoch = "" if checkpoint.epoch is None else f", epoch {checkpoint.epoch}"
    metadata = WeightsMetadata(
        architecture=checkpoint.architecture,
        input_size=size,
        preprocessing=PUBLISHED_PREPROCESSING,
        name=Path(out).name.removesuffix(".safetensors"),
        data="as said where the checkpoint came from",
        recipe=f"imported from {source.name} of pytorch-cpn{epoch}, sha256 {file_sha256(source)}",
        licence="as said where the checkpoint came from",
        decoding="published",
    )
    save_weights(out, checkpoint.state_dict, metadata, dtype)
    return metadata


def size_in_name(name: str) -> tuple[int, int] | None:
    """(height, width) out of a name such as ``CPN101_384x288.pth.tar``, or None."""
    found = re.search(r"(?<!\d)(\d{2,4})x(\d{2,4})(?!\d)", name)
    return (int(found[1]), int(found[2])) if found else None


def _unpickle(path: Path) -> Mapping[Any, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the checkpoint ({error.strerror}); check the path") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is damaged, or holds more than tensors and plain values, which is refused because such files can "
            "run code; fetch it anew from a source you trust"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is damaged or no PyTorch checkpoint ({error}); fetch it anew") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds no dict with a state_dict; give a checkpoint of pytorch-cpn")
    return content


def _depth(path: str | Path, entries: Mapping[str, Any]) -> Architecture:
    """The third stage has 6 blocks in ResNet-50 and 23 in ResNet-101."""
    found = {int(m[1]) for key in entries if (m := re.match(r"resnet\.layer3\.(\d+)\.", key))}
    if not found:
        raise WeightsError(
            f"{path} has no entries resnet.layer3.*, as pytorch-cpn has (its own: {shown(sorted(entries))}); "
            "only checkpoints of pytorch-cpn with ResNet-50 or ResNet-101 can be imported"
        )
    return "cpn50" if max(found) < 6 else "cpn101"


def _translate(path: str | Path, entries: Mapping[str, Any], architecture: Architecture) -> dict[str, Tensor]:
    keys = key_map(architecture)
    with NoRandomValues():
        wanted = CPN(CPNConfig(architecture)).state_dict()
    unknown = [key for key in entries if key not in keys]
    missing = [key for key in keys if key not in entries and not key.endswith(_COUNTER)]  # older ones have no counters
    faulty = []
    state: dict[str, Tensor] = {}
    for theirs, ours in keys.items():
        value = entries.get(theirs)
        if value is None or theirs.endswith(_COUNTER):
            continue
        if not isinstance(value, Tensor) or not value.is_floating_point():
            faulty.append(f"{theirs} is no tensor of floating numbers")
        elif value.shape != wanted[ours].shape:
            faulty.append(f"{theirs} {tuple(value.shape)} instead of {tuple(wanted[ours].shape)}")
        else:
            state[ours] = value.float()
    named = (("unknown", unknown), ("missing", missing), ("wrong", faulty))
    faults = [f"{label}: {shown(names)}" for label, names in named if names]
    if faults:
        raise WeightsError(
            f"{path} does not fit pytorch-cpn's network with ResNet-{architecture.removeprefix('cpn')}; "
            f"{'; '.join(faults)}. Give an unchanged checkpoint of pytorch-cpn"
        )
    return state


def _layers(blocks: tuple[int, int, int, int]) -> Iterator[tuple[str, str, bool]]:
    """Each layer with weights: its name there, its name here, and whether it is a batch normalisation."""
    yield "resnet.conv1", "backbone.conv1", False
    yield "resnet.bn1", "backbone.bn1", True
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            place = f"layer{stage}.{block}"
            shortcut = "downsample" if block == 0 else None
            yield from _bottleneck(f"resnet.{place}", f"backbone.{place}", shortcut)
    for level in range(4):
        theirs, ours = f"global_net.laterals.{level}", f"global_net.laterals.{level}"
        yield f"{theirs}.0", f"{ours}.0", False
        yield f"{theirs}.1", f"{ours}.1", True
        theirs, ours = f"global_net.predict.{level}", f"global_net.heads.{level}"
        yield f"{theirs}.0", f"{ours}.reduce.0", False
        yield f"{theirs}.1", f"{ours}.reduce.1", True
        yield f"{theirs}.3", f"{ours}.predict", False
        yield f"{theirs}.5", f"{ours}.bn", True
    for level in range(3):
        theirs, ours = f"global_net.upsamples.{level}", f"global_net.top_down.{level}"
        yield f"{theirs}.1", f"{ours}.0", False
        yield f"{theirs}.2", f"{ours}.1", True
        for block in range(3 - level):
            place = f"refine_net.cascade.{level}.{block}"
            yield from _bottleneck(place, place, "shortcut")
    yield from _bottleneck("refine_net.final_predict.0", "refine_net.merge", "shortcut")
    yield "refine_net.final_predict.1", "refine_net.predict.0", False
    yield "refine_net.final_predict.2", "refine_net.predict.1", True


def _bottleneck(theirs: str, ours: str, shortcut: str | None) -> Iterator[tuple[str, str, bool]]:
    for index in (1, 2, 3):
        yield f"{theirs}.conv{index}", f"{ours}.conv{index}", False
        yield f"{theirs}.bn{index}", f"{ours}.bn{index}", True
    if shortcut is not None:
        yield f"{theirs}.downsample.0", f"{ours}.{shortcut}.0", False
        yield f"{theirs}.downsample.1", f"{ours}.{shortcut}.1", True
