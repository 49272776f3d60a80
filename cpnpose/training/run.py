"""What every training run shares: checkpoints, the log, the average of the weights, the schedule and the curves.

The pose and the detector trainer are short loops over these pieces.
"""

from __future__ import annotations

import copy
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from cpnpose.errors import TrainingError, WeightsError
from cpnpose.models.weights import find_weights, read_metadata
from cpnpose.whole_file import whole_file, writing

M = TypeVar("M", bound=nn.Module)


def make_folder(folder: Path) -> None:
    """Make the folder of a run, and those above it.

    Raises:
        OutputError: it cannot be made, or a file has its name.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def check_initial(weights: str | Path, architecture: str) -> Path:
    """The file of weights to start from.

    Raises:
        WeightsError: there is none, or it holds another network.
    """
    path = find_weights(weights)
    found = read_metadata(path).architecture
    if found != architecture:
        raise WeightsError(f"--init {path} holds {found}, and {architecture} is trained; give weights of that")
    return path


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` so that ``path`` holds either the old or the whole new checkpoint, whenever the power fails."""
    with whole_file(path) as part, open(part, "wb") as file:
        torch.save(state, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of :func:`save_checkpoint` onto the CPU.

    Raises:
        TrainingError: the file is damaged or is no checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TrainingError(f"{path}: not a readable checkpoint ({error}); delete it to start anew") from error
    if not isinstance(state, dict):
        raise TrainingError(f"{path}: not a checkpoint of cpnpose; delete it to start anew")
    return state


def rng_state() -> dict[str, Any]:
    """State of the random generators of torch, CUDA, NumPy and Python, in types that ``weights_only`` admits."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what :func:`rng_state` took."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))


class RunLog:
    """A log as JSON Lines: one object per call of :meth:`write`, flushed at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **fields: Any) -> None:
        """Append ``fields`` and the time of day as ``unix_time`` in seconds."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"unix_time": round(time.time(), 1), **fields}) + "\n")

    def truncate_after(self, step: int) -> None:
        """Drop the entries of steps after ``step``, so that a resumed run does not tell them twice."""
        if self.path.exists():
            entries = [entry for entry in read_log(self.path) if entry.get("step", 0) <= step]
            with whole_file(self.path) as part:
                part.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def read_log(path: Path) -> list[dict[str, Any]]:
    """All whole entries of a :class:`RunLog`; a torn last line is left out."""
    entries: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


class Ema(Generic[M]):
    """Exponential moving average of a network's parameters and buffers (Polyak averaging).

    The decay starts low and rises to ``decay`` so that the first steps are soon forgotten:
    ``min(decay, (1 + updates) / (10 + updates))``.
    """

    def __init__(self, model: M, decay: float) -> None:
        self.model: M = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        self._pairs: tuple[nn.Module, list[Tensor], list[Tensor], list[tuple[Tensor, Tensor]]] | None = None

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards ``model`` by one step. The model's tensors are remembered: change them in place."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        if self._pairs is None or self._pairs[0] is not model:
            both = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
            averaged = [(mine, theirs) for mine, theirs in both if mine.is_floating_point()]
            counters = [(mine, theirs) for mine, theirs in both if not mine.is_floating_point()]
            self._pairs = model, [mine for mine, _ in averaged], [theirs for _, theirs in averaged], counters
        _, mine, theirs, counters = self._pairs
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for value, source in counters:
            value.copy_(source)

    def state_dict(self) -> dict[str, Any]:
        """The average and the number of updates."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]


def learning_rate_factor(step: int, total: int, warmup: int, floor: float = 0.01) -> float:
    """Linear warm-up over ``warmup`` steps, then half a cosine down to ``floor`` at ``total``."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: convolution and linear weights with decay; biases and normalisation without."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def check_finite(loss: Tensor | float, step: int, names: Sequence[str] | Callable[[], Sequence[str]]) -> float:
    """The loss as a number.

    Args:
        names: the samples of the batch, or what gives them when it is needed.

    Raises:
        TrainingError: it is infinite or NaN; the message names the step and the samples of the batch.
    """
    value = float(loss.detach()) if isinstance(loss, Tensor) else loss
    if not math.isfinite(value):
        names = names() if callable(names) else names
        shown = ", ".join(names[:64]) + (" ..." if len(names) > 64 else "")
        raise TrainingError(
            f"step {step}: the loss is {value}; batch: {shown}. "
            "The last checkpoint is untouched: look at these samples, or resume with a lower --lr"
        )
    return value


def plot_curves(log_path: Path, png_path: Path) -> None:
    """Draw every number of the log against the step: one panel per name, losses and metrics alike. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    series: dict[str, tuple[list[float], list[float]]] = {}
    for entry in read_log(log_path):
        for name, value in entry.items():
            if name not in {"step", "unix_time", "event"} and isinstance(value, (int, float)) and "step" in entry:
                steps, values = series.setdefault(name, ([], []))
                steps.append(entry["step"])
                values.append(value)
    if not series:
        return
    columns = min(3, len(series))
    rows = -(-len(series) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5 * columns, 3.2 * rows), squeeze=False)
    for axis, (name, (steps, values)) in zip(axes.flat, series.items(), strict=False):
        axis.plot(steps, values, marker="." if len(values) < 50 else None, linewidth=1)
        axis.set_title(name)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(series) :]:
        axis.axis("off")
    figure.tight_layout()
    with whole_file(png_path) as part:
        figure.savefig(part, dpi=80)
    pyplot.close(figure)
