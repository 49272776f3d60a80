"""Several processes: who waits for whom, and what a GPU of its own means for each. GPUs are played by the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from typer.testing import CliRunner

from cpnpose.cli.main import app
from cpnpose.errors import OptionError
from cpnpose.evaluate import EvaluationOptions, evaluate_pose
from cpnpose.models.weights import load_cpn
from cpnpose.training.detector_options import DetectorTraining
from cpnpose.training.distributed import Processes
from cpnpose.training.pose_options import PoseTraining
from cpnpose.training.pseudo_label import PseudoLabelOptions, pseudo_label
from cpnpose.training.train_detector import train_detector
from cpnpose.training.train_pose import train_pose

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

WAITING = """
import sys, time
from datetime import timedelta
from functools import partial
from pathlib import Path
import torch.distributed as dist
from cpnpose.errors import TrainingError
from cpnpose.training.distributed import Processes
dist.init_process_group = partial(dist.init_process_group, timeout=timedelta(seconds=1))
out = Path(sys.argv[1])
with Processes("cpu") as processes:
    with processes.main_first():  # takes longer than a collective may
        if processes.is_main:
            time.sleep(2.5)
            (out / "built").touch()
        assert (out / "built").exists()
    try:
        with processes.main_first():
            if processes.is_main:
                raise OSError("disk full")
            (out / "went on").touch()
    except (OSError, TrainingError) as error:
        (out / f"{processes.rank}.txt").write_text(str(error))
"""


def test_the_others_wait_for_the_first_as_long_as_it_takes_and_end_with_it(tmp_path: Path) -> None:
    script = tmp_path / "waiting.py"
    script.write_text(WAITING)
    command = [sys.executable, *LAUNCHER, str(script), str(tmp_path)]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, timeout=100)
    assert (tmp_path / "0.txt").read_text() == "disk full"
    assert "process 1 ends, for the first one could not go on" in (tmp_path / "1.txt").read_text()
    assert not (tmp_path / "went on").exists()


ALONE = """
import sys
from pathlib import Path
import torch
from cpnpose.errors import TrainingError
from cpnpose.training.distributed import Processes, average_gradients
out = Path(sys.argv[1])
with Processes("cpu") as processes:
    processes.agree(0.0)
    if str(processes.rank) == sys.argv[2]:
        sys.exit()
    try:
        if processes.is_main:
            average_gradients([], processes, torch.zeros(1))
        else:
            processes.agree(0.0)
    except TrainingError as error:
        (out / f"{processes.rank}.txt").write_text(str(error))
"""


@pytest.mark.parametrize("gone", [0, 1])
def test_who_is_left_alone_ends_with_one_line(gone: int, tmp_path: Path) -> None:
    """Wherever it is that the other one fails, such as where the first one writes a checkpoint."""
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    command = [sys.executable, *LAUNCHER, str(script), str(tmp_path), str(gone)]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, timeout=100)
    message = (tmp_path / f"{1 - gone}.txt").read_text()
    assert message == f"process {1 - gone} ends, for another one could not go on and says why"


def _as_of_torchrun(monkeypatch: pytest.MonkeyPatch, local_rank: int, gpus: int) -> list[tuple[Any, ...]]:
    """Two processes on a machine with GPUs; returns what is asked of PyTorch."""
    calls: list[tuple[Any, ...]] = []
    for name, value in (("WORLD_SIZE", 2), ("RANK", local_rank), ("LOCAL_RANK", local_rank)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("set_device", device)))
    monkeypatch.setattr(dist, "init_process_group", lambda name, **more: calls.append((name, more)))
    monkeypatch.setattr(dist, "new_group", lambda **more: calls.append(("new_group", more["backend"])))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    return calls


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _as_of_torchrun(monkeypatch, local_rank=1, gpus=2)
    with Processes("auto") as processes:
        mine = torch.device("cuda", 1)
        assert processes.device == mine
    assert calls == [("set_device", mine), ("nccl", {"device_id": mine}), ("new_group", "gloo")]


def test_more_processes_than_gpus_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _as_of_torchrun(monkeypatch, local_rank=1, gpus=1)
    with pytest.raises(OptionError, match="cuda:1: PyTorch sees 1 CUDA devices"):
        Processes("auto")


def test_shared_batch_statistics_do_not_reach_validation_and_weights(
    drawn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On GPUs the network in training has SyncBatchNorm, which cannot be fused."""
    options = PoseTraining(
        drawn.images, (drawn.annotations,), val=drawn.annotations, out=tmp_path / "plain", size=(64, 64), batch=4,
        epochs=0.5, warmup_steps=0, ema_decay=0.9, device="cpu", precision="fp32",
    )  # fmt: skip
    converted: list[nn.Module] = []

    def shared(self: Processes, model: Any) -> Any:
        converted.append(nn.SyncBatchNorm.convert_sync_batchnorm(model))  # type: ignore[no-untyped-call]
        return converted[-1]

    expected = train_pose(options)
    monkeypatch.setattr(Processes, "with_shared_statistics", shared)
    synchronised = replace(options, out=tmp_path / "synchronised")
    assert train_pose(synchronised) == expected
    assert any(isinstance(module, nn.SyncBatchNorm) for module in converted[0].modules())
    wanted = load_cpn(options.out / "best.safetensors")[0].state_dict()
    stored = load_cpn(synchronised.out / "best.safetensors")[0].state_dict()
    assert all(torch.equal(stored[name], wanted[name]) for name in wanted)
    train_pose(replace(synchronised, epochs=0.75))  # and it is resumed


def test_labels_and_measurements_are_made_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    labels = PseudoLabelOptions("default", tmp_path, tmp_path / "boxes.json", tmp_path / "labels.json")
    with pytest.raises(OptionError, match="train pseudo-label runs in one process, and torchrun started 2"):
        pseudo_label(labels)
    with pytest.raises(OptionError, match="evaluate runs in one process, and torchrun started 2"):
        evaluate_pose(EvaluationOptions(annotations=tmp_path / "truth.json", data=tmp_path))
    arguments = ["evaluate-boxes", "--annotations", str(tmp_path / "boxes.json"), "--data", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0
    assert "evaluate-boxes runs in one process" in result.stderr


def test_the_detector_is_trained_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    options = DetectorTraining(tmp_path, (tmp_path / "boxes.json",), val=None, out=tmp_path / "run")
    with pytest.raises(OptionError, match="train detector runs in one process, and torchrun started 2"):
        train_detector(options)
    assert not options.out.exists()
