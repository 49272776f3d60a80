from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from cpnpose.models.cpn import CPN, CPNConfig
from cpnpose.models.quick_start import NoRandomValues


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_poses_are_estimated_without_the_compiler(tiny_weights: Path) -> None:
    code = f"""
import sys
import numpy as np
from cpnpose.api import PoseEstimator
poses = PoseEstimator({str(tiny_weights)!r}, detector="none", device="cpu")(np.zeros((64, 64, 3), np.uint8))
print(len(poses), "torch._dynamo" in sys.modules, "torch._dynamo.utils" in sys.modules)
"""
    assert run(code) == ["1", "False", "False"]


def test_the_compiler_is_there_for_whoever_asks() -> None:
    """torchvision's question is answered by the real function, and nothing of the stand-in stays behind."""
    code = """
import sys
import cpnpose.models.backbone
ask = sys.modules["torchvision.ops.roi_align"].is_compile_supported
answer = ask("cpu")
import torch._dynamo.utils
print(answer == torch._dynamo.utils.is_compile_supported("cpu"), bool(torch._dynamo.utils.__file__))
"""
    assert run(code) == ["True", "True"]


def test_anything_else_that_is_wanted_meanwhile_is_the_real_thing() -> None:
    code = """
from cpnpose.models.quick_start import without_compiler
with without_compiler():
    from torch._dynamo.utils import counters
    import torch._dynamo.utils as inside
import torch._dynamo.utils as afterwards
print(counters is afterwards.counters, hasattr(afterwards, "nothing_of_this_name"))
with without_compiler():
    import torch._dynamo.utils as again
print(again is afterwards)
"""
    assert run(code) == ["True", "False", "True"]


def test_networks_get_no_random_values_and_the_generator_stays() -> None:
    before = torch.get_rng_state()
    with NoRandomValues():
        shapes = {name: value.shape for name, value in CPN(CPNConfig("cpn-light")).state_dict().items()}
    assert torch.equal(torch.get_rng_state(), before)
    with_values = CPN(CPNConfig("cpn-light"))
    assert shapes == {name: value.shape for name, value in with_values.state_dict().items()}
    assert not torch.equal(torch.get_rng_state(), before)
    layer = nn.Linear(3, 3)
    kept = layer.weight.clone()
    with NoRandomValues():
        layer.reset_parameters()
    assert torch.equal(layer.weight, kept)
