"""What makes a command start sooner: torchvision without the compiler it imports, networks without random numbers."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_COMPILER = "torch._dynamo.utils"
_QUESTION = "is_compile_supported"


@contextmanager
def without_compiler() -> Iterator[None]:
    """Import torchvision within this, and PyTorch's compiler stays out until somebody uses it.

    torchvision imports it, which takes as long as the rest of PyTorch, to ask one thing, and asks that only where
    RoIAlign runs with deterministic algorithms. A module stands in for it meanwhile, and imports the real one as soon
    as that question is put or anything else is wanted.
    """
    if _COMPILER in sys.modules:
        yield
        return
    stand_in = ModuleType(_COMPILER)

    def leave() -> None:
        if sys.modules.get(_COMPILER) is stand_in:
            del sys.modules[_COMPILER]

    def ask(device_type: str) -> Any:
        leave()
        return getattr(importlib.import_module(_COMPILER), _QUESTION)(device_type)

    def get(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == _QUESTION:
            return ask
        leave()
        return getattr(importlib.import_module(_COMPILER), name)

    stand_in.__dict__["__getattr__"] = get
    sys.modules[_COMPILER] = stand_in
    try:
        yield
    finally:
        leave()


class NoRandomValues(TorchFunctionMode):
    """A context in which new networks get no random numbers, because weights are loaded into them."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == nn.init.__name__:
            return named["tensor"] if "tensor" in named else args[0]
        return func(*args, **named)
