from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cpnpose.errors import TrainingError, WeightsError
from cpnpose.models.cpn import CPN, CPNConfig, CPNMaps
from cpnpose.models.weights import WeightsMetadata, load_cpn, read_metadata, save_weights
from cpnpose.pose.types import Preprocessing
from cpnpose.training import run
from cpnpose.training.augment import PLAIN
from cpnpose.training.distill import Teacher
from cpnpose.training.pose_options import PoseTraining
from cpnpose.training.train_pose import train_pose

SIZE = (64, 64)


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    model = CPN(CPNConfig("cpn-light", SIZE)).train()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # type: ignore[assignment]
    with torch.no_grad():
        model.refine_net.predict[1].weight.fill_(40.0)
        for _ in range(3):
            model(torch.rand(16, 3, *SIZE) * 2 - 1)
    model.eval()
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_weights(path, model.state_dict(), WeightsMetadata("cpn-light", SIZE), dtype=torch.float32)
    return path


def teacher_of(file: Path, student: CPN) -> Teacher:
    torch.manual_seed(1)
    return Teacher(str(file), student, Preprocessing(), torch.float32)


def identities(teacher: Teacher, model: CPN, crops: Tensor) -> None:
    """Let the convolutions turn the features of a student like the teacher into the teacher's, standardised."""
    with torch.no_grad():
        for hint, feature in zip(teacher.hints, model(crops).features, strict=True):
            deviation, mean = torch.std_mean(feature, dim=(0, 2, 3), correction=0)
            deviation = deviation.clamp_min(1e-3)
            hint.weight.copy_(torch.diag(1 / deviation)[..., None, None])  # type: ignore[operator]
            hint.bias.copy_(-mean / deviation)  # type: ignore[operator]


def test_a_student_like_its_teacher_has_nothing_to_learn(teacher_file: Path) -> None:
    student, _ = load_cpn(teacher_file)
    teacher, crops = teacher_of(teacher_file, student), torch.rand(3, 3, *SIZE) * 2 - 1
    identities(teacher, student, crops)
    nothing = torch.zeros(3, 17, dtype=torch.uint8)
    loss = teacher(crops, student(crops), nothing)
    assert float(loss.hints.detach()) < 1e-4
    other = CPN(CPNConfig("cpn-light", SIZE)).eval()
    worse = teacher(crops, other(crops), nothing)
    assert float(worse.hints.detach()) > 0.5
    # of all maps, the teacher's own has the least cross-entropy but for how sure it is
    same = student(crops).refined
    maps = CPNMaps([same] * 4, same, student(crops).features)
    mixed = same[torch.tensor([1, 2, 0])]
    assert (
        teacher(crops, maps, nothing).locations
        < teacher(crops, CPNMaps([mixed] * 4, mixed, maps.features), nothing).locations
    )


def test_places_are_taught_of_unlabelled_keypoints_only_and_hidden_ones_count_as_labelled(teacher_file: Path) -> None:
    student, _ = load_cpn(teacher_file)
    teacher, crops = teacher_of(teacher_file, student), torch.rand(2, 3, *SIZE) * 2 - 1
    maps = [torch.randn(2, 17, 16, 16, requires_grad=True) for _ in range(5)]
    visibility = torch.full((2, 17), 2, dtype=torch.uint8)
    visibility[0, 3], visibility[1, 8] = 0, 1
    teacher(crops, CPNMaps(maps[:4], maps[4], student(crops).features), visibility).locations.backward()
    for level in maps:
        assert level.grad is not None
        taught = level.grad.abs().amax((-2, -1)) > 0
        assert taught.nonzero().tolist() == [[0, 3]]


def test_the_pull_is_towards_the_teachers_peak(teacher_file: Path) -> None:
    student, _ = load_cpn(teacher_file)
    teacher, crops = teacher_of(teacher_file, student), torch.rand(2, 3, *SIZE) * 2 - 1
    with torch.no_grad():
        own = student(crops)
    level = torch.zeros(2, 17, 16, 16, requires_grad=True)
    loss = teacher(crops, CPNMaps([level] * 4, level, own.features), torch.zeros(2, 17, dtype=torch.uint8))
    loss.locations.backward()
    assert level.grad is not None
    assert torch.equal(level.grad.flatten(2).argmin(-1), own.refined.flatten(2).argmax(-1))


def test_crops_and_features_of_another_size_are_brought_to_the_teachers(teacher_file: Path) -> None:
    student = CPN(CPNConfig("cpn50", (32, 32))).train()
    teacher = teacher_of(teacher_file, student)
    assert [(h.in_channels, h.out_channels) for h in teacher.hints] == [(2048, 1280), (1024, 96), (512, 32), (256, 24)]
    crops = torch.rand(4, 3, 32, 32) * 2 - 1
    loss = teacher(crops, student(crops), torch.zeros(4, 17, dtype=torch.uint8))
    assert 2 < float(loss.hints.detach()) < 40
    (loss.hints + loss.locations).backward()
    assert student.backbone.conv1.weight.grad is not None
    assert all(p.grad is not None for p in teacher.parameters())
    assert len(list(teacher.parameters())) == 8


def test_a_teacher_that_wants_other_crops_is_refused(tmp_path: Path, teacher_file: Path) -> None:
    path = tmp_path / "other.safetensors"
    model, metadata = load_cpn(teacher_file)
    save_weights(path, model.state_dict(), replace(metadata, preprocessing=Preprocessing(mean=(1.0, 2.0, 3.0))))
    with pytest.raises(WeightsError, match=r"other\.safetensors: wants crops normalised in another way"):
        teacher_of(path, model)


def test_a_taught_run_nears_its_teacher_and_resumes(drawn: Any, tmp_path: Path, teacher_file: Path) -> None:
    options = PoseTraining(
        data=drawn.images, annotations=(drawn.annotations,), val=None, out=tmp_path / "run", size=SIZE, batch=4,
        epochs=10, lr=3e-3, warmup_steps=2, ema_decay=0.9, device="cpu", precision="fp32", checkpoint_every=20,
        teacher=str(teacher_file), augmentation=PLAIN,
    )  # fmt: skip
    train_pose(options)
    log = [entry for entry in run.read_log(options.out / "log.jsonl") if "loss" in entry]
    assert log[-1]["teacher_loss"] < 0.9 * log[0]["teacher_loss"]
    for entry in log:
        parts = entry["global_loss"] + entry["refine_loss"] + entry["teacher_loss"]
        assert entry["loss"] == pytest.approx(parts, abs=0.01)
    stored = run.load_checkpoint(options.out / "checkpoint.pt")
    assert sorted(stored["teacher"]) == [f"hints.{i}.{name}" for i in range(4) for name in ("bias", "weight")]
    assert "teacher" in read_metadata(options.out / "last.safetensors").recipe
    halves = replace(options, out=tmp_path / "halves")
    train_pose(replace(halves, epochs=5))
    train_pose(replace(options, out=tmp_path / "five", epochs=5))
    first, second = (run.load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("halves", "five"))
    assert all(torch.equal(first["teacher"][name], second["teacher"][name]) for name in first["teacher"])
    train_pose(replace(halves, epochs=6))
    resumed = run.load_checkpoint(tmp_path / "halves" / "checkpoint.pt")
    assert resumed["step"] == 24
    assert not torch.equal(resumed["teacher"]["hints.0.weight"], first["teacher"]["hints.0.weight"])
    alone = replace(halves, teacher=None)
    with pytest.raises(TrainingError, match=r"of another run \(teacher .*\.safetensors instead of none\)"):
        train_pose(alone)
    (halves.out / "checkpoint.pt").unlink()
    train_pose(replace(alone, epochs=1))
    with pytest.raises(TrainingError, match=r"of another run \(teacher none instead of .*\.safetensors\)"):
        train_pose(halves)
