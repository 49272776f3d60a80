"""Where the networks run and in which number format."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

import torch

from cpnpose.errors import OptionError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_of_thread = threading.local()
_MPS = threading.RLock()


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The device called ``name``: ``cpu``, ``cuda``, ``cuda:N``, ``mps``, or ``auto``: CUDA, else MPS, else the CPU.

    Raises:
        OptionError: no such device, or this machine has none.
    """
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"--device {name}: no such device; use auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise OptionError(f"--device {name}: PyTorch sees {count} CUDA devices here; use auto or cpu")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise OptionError("--device mps: PyTorch sees no MPS device here; use auto or cpu")
    if device.type not in ("cpu", "mps"):
        raise OptionError(f"--device {name}: not supported; use auto, cpu, cuda, cuda:N or mps")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The number format called ``name`` (see :data:`PRECISIONS`).

    ``auto`` is bfloat16 where the hardware multiplies in it, float16 on MPS, and float32 else.

    Raises:
        OptionError: there is no such format.
    """
    formats = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if name in formats:
        return formats[name]
    if name != "auto":
        raise OptionError(f"--precision {name}: no such number format; use {', '.join(PRECISIONS)}")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if cpu_multiplies_bfloat16() else torch.float32


def check_precision(name: str, formats: Mapping[str, str]) -> list[str]:
    """Whether a number format that was asked for reaches the networks: int8 weights have no other one.

    Args:
        name: as for :func:`choose_precision`.
        formats: what each network computes in, by what it is called in messages.

    Returns:
        What the user should know: for which of the networks it is without effect.

    Raises:
        OptionError: it is for all of them.
    """
    deaf = [network for network, number_format in formats.items() if number_format == "int8"]
    if name == "auto" or not deaf:
        return []
    told = f"--precision {name} has no effect on {' and '.join(deaf)}, which {'is' if len(deaf) == 1 else 'are'} int8"
    if len(deaf) == len(formats):
        raise OptionError(f"{told}; leave it out, or choose other weights")
    return [told]


def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has matrix instructions for bfloat16 (AVX-512 BF16 or AMX)."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and bool(check()) for check in checks)


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """On a graphics card, a queue of this thread's own for what it starts inside: its copies run beside the computing
    of other threads. Elsewhere nothing."""
    if device.type != "cuda":
        yield
        return
    stream: torch.cuda.Stream | None = getattr(_of_thread, "stream", None)
    if stream is None or stream.device != device:  # each new one would have memory of its own
        stream = _of_thread.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.default_stream(device))  # on which the networks were loaded
    with torch.cuda.stream(stream):
        yield


@contextmanager
def one_at_a_time(device: torch.device) -> Iterator[None]:
    """On MPS, whose queue takes no work from several threads at once, the others wait. Elsewhere nothing."""
    if device.type != "mps":
        yield
        return
    with _MPS:
        yield


def device_name(device: torch.device) -> str:
    """For people: the name of the graphics card, else the device's own."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of PyTorch says that memory was not enough, on any device."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(text in str(error) for text in ("out of memory", "can't allocate memory"))
    )
