"""Weights files: safetensors whose metadata say what the weights are and how their input has to look."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cpnpose.errors import WeightsError
from cpnpose.models.cpn import ARCHITECTURES, CPN, CPNConfig
from cpnpose.models.manifest import locate
from cpnpose.models.quick_start import NoRandomValues
from cpnpose.pose.decode import Decoding
from cpnpose.pose.types import Preprocessing
from cpnpose.whole_file import whole_file

FORMAT_VERSION = 1
"""Grows when older programs could misread newer files."""
Kind = Literal["pose", "detector"]

_VERSION_KEY = "cpnpose_format"
_COUNTER = "num_batches_tracked"
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class WeightsMetadata:
    """What travels with the tensors of a weights file."""

    architecture: str
    """``cpn50``, ``cpn101`` or ``cpn-light``; for a detector the name of its kind of network."""
    input_size: tuple[int, int]
    """(height, width) of the crops in pixels; for a detector the size its frames are brought to."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    name: str = ""
    data: str = ""
    """What the weights were trained on, in words."""
    recipe: str = ""
    """How they were trained or where they come from, in words."""
    licence: str = ""
    metrics: Mapping[str, float | int | str] = field(default_factory=dict)
    """Measured figures, each under a name that says its protocol."""
    decoding: Decoding = "published"
    """How the heatmaps of these weights are decoded unless the user says otherwise."""
    kind: Kind = "pose"
    config: Mapping[str, Any] = field(default_factory=dict)
    """Free-form, JSON: what a detector needs to be built again. Empty for poses."""
    format_version: int = FORMAT_VERSION


def save_weights(
    path: str | Path, state_dict: Mapping[str, Tensor], metadata: WeightsMetadata, dtype: torch.dtype = torch.float16
) -> None:
    """Write a weights file. It appears under its name only when whole; a file of that name is replaced.

    Args:
        path: the file, by custom ``*.safetensors``.
        state_dict: the network's entries. The counters of batch normalisation are left out.
        metadata: written beside them.
        dtype: of floating entries with two or more dimensions. Vectors (biases, batch normalisation) are too few to
            save room and too delicate to round, and stay float32; integers stay as they are.

    Raises:
        WeightsError: an entry holds infinity or no number, or would do so in ``dtype``.
        OutputError: the file cannot be written.
    """
    target = Path(path)
    tensors = {}
    for name, value in state_dict.items():
        if name.endswith(_COUNTER):
            continue
        tensor = value.detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.to(dtype if tensor.ndim > 1 else torch.float32)
            if not bool(torch.isfinite(tensor).all()):
                remedy = "its source is damaged or diverged" if tensor.dtype == torch.float32 else "try float32"
                raise WeightsError(f"{target}: {name} is not finite as {tensor.dtype}; not written, {remedy}")
        tensors[name] = tensor.clone(memory_format=torch.contiguous_format)
    with whole_file(target) as temporary:
        try:
            save_file(tensors, temporary, metadata=_to_strings(metadata))
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(str(error)) from error
        temporary.chmod(0o644)


def read_metadata(path: str | Path) -> WeightsMetadata:
    """The metadata of a weights file, without its tensors.

    Raises:
        WeightsError: the file is missing, damaged, no safetensors file, or not written by cpnpose.
    """
    _check_file(Path(path))
    try:
        with safe_open(path, framework="pt") as file:
            strings = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error
    return _from_strings(path, strings)


def load_entries(path: str | Path) -> dict[str, Tensor]:
    """The entries of a weights file by name, as they are stored.

    Raises:
        WeightsError: the file is missing, damaged, or no safetensors file.
    """
    _check_file(Path(path))
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def load_state(path: str | Path, module: nn.Module) -> None:
    """Fill ``module`` with the entries of a weights file, strictly; its dtypes and device are kept.

    Raises:
        WeightsError: the file is damaged, or has entries that the module lacks, lacks entries that the module has,
            or has entries of another shape. The counters of batch normalisation may be absent and start at 0.
    """
    fill(module, load_entries(path), path)


def fill(module: nn.Module, entries: Mapping[str, Tensor], path: str | Path) -> None:
    """Fill ``module`` with the entries of the weights file ``path`` that are meant for it; as :func:`load_state`."""
    found = dict(entries)
    wanted = module.state_dict()
    for name, value in wanted.items():
        if name.endswith(_COUNTER):
            found.setdefault(name, torch.zeros_like(value))
    unknown = [name for name in found if name not in wanted]
    missing = [name for name in wanted if name not in found]
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    faults = [
        f"{label}: {shown(names)}"
        for label, names in (("unknown", unknown), ("missing", missing), ("wrongly shaped", shapes))
        if names
    ]
    if faults:
        raise WeightsError(
            f"{path} does not fit {type(module).__name__}: {'; '.join(faults)}. "
            "Check that the file was made for this architecture, or fetch it anew"
        )
    module.load_state_dict(found)


def load_cpn(name_or_path: str | Path) -> tuple[CPN, WeightsMetadata]:
    """A CPN with its weights, in eval mode, float32, on the CPU, and the weights' metadata.

    Args:
        name_or_path: a weights file, a name of the manifest, or ``default``.

    Raises:
        WeightsError: see :func:`find_weights` and :func:`load_state`; or the file holds no CPN.
    """
    path = find_weights(name_or_path)
    metadata = read_metadata(path)
    if metadata.kind != "pose" or metadata.architecture not in ARCHITECTURES:
        raise WeightsError(
            f"{path} holds a {metadata.kind} network {metadata.architecture!r}, not one of {', '.join(ARCHITECTURES)}; "
            "choose other weights, 'cpnpose weights list' shows those at hand"
        )
    with NoRandomValues():  # load_state fills every entry or raises
        model = CPN(CPNConfig(metadata.architecture, metadata.input_size))
    load_state(path, model)
    return model.eval(), metadata


def find_weights(name_or_path: str | Path) -> Path:
    """The weights file of a path or a name: a file, or an entry of the manifest (``default`` is its default pose
    network), which lies in the shipped folder or among the downloaded ones.

    Raises:
        WeightsError: there is no such file or entry, or the entry's file is not on this machine.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    if isinstance(name_or_path, Path) or path.suffix == ".safetensors" or len(path.parts) > 1:
        raise WeightsError(
            f"{name_or_path}: there is no such weights file; check the path, or give a name of the manifest"
        )
    return locate(name_or_path)


def shown(names: list[str]) -> str:
    """A few names for an error message, and how many more there are."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights ({error.strerror}); check the path") from error
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise WeightsError(
            f"{path} is a pickled PyTorch checkpoint, not a safetensors file; "
            "convert one of pytorch-cpn by 'cpnpose weights import'"
        )


def _damaged(path: str | Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path} is damaged or no safetensors file ({error}); fetch or write it anew")


def _to_strings(metadata: WeightsMetadata) -> dict[str, str]:
    values = dataclasses.asdict(metadata)
    values[_VERSION_KEY] = values.pop("format_version")
    return {name: json.dumps(value, allow_nan=False) for name, value in values.items()}


def _from_strings(path: str | Path, strings: Mapping[str, str]) -> WeightsMetadata:
    if _VERSION_KEY not in strings:
        raise WeightsError(f"{path} has no metadata of cpnpose; use a file that cpnpose wrote, see 'cpnpose weights'")
    try:
        version = int(json.loads(strings[_VERSION_KEY]))
        if version > FORMAT_VERSION:
            raise WeightsError(f"{path} is of format {version}, newer than this program reads; update cpnpose")
        known = {item.name for item in dataclasses.fields(WeightsMetadata)}
        values = {name: json.loads(text) for name, text in strings.items() if name in known}
        height, width = (int(value) for value in values["input_size"])
        preprocessing = Preprocessing(
            **{name: tuple(map(float, value)) for name, value in values["preprocessing"].items()}  # type: ignore[arg-type]
        )
        metadata = WeightsMetadata(
            **{**values, "input_size": (height, width), "preprocessing": preprocessing, "format_version": version}
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path}: its metadata cannot be read ({error}); fetch or write the file anew") from error
    if metadata.kind not in get_args(Kind) or metadata.decoding not in get_args(Decoding):
        raise WeightsError(
            f"{path}: kind {metadata.kind!r}, decoding {metadata.decoding!r} are unknown; update cpnpose"
        )
    return metadata
