from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cpnpose.errors import InputError, OutputError, TrainingError, WeightsError
from cpnpose.models.weights import load_cpn, read_metadata
from cpnpose.training import run
from cpnpose.training.ahead import one_ahead
from cpnpose.training.augment import PLAIN, AugmentOptions
from cpnpose.training.device_set import load_on_device
from cpnpose.training.distributed import Processes
from cpnpose.training.pose_options import PoseTraining, paper_recipe
from cpnpose.training.pose_run import learning_rate
from cpnpose.training.train_pose import prepare_run, train_pose, views

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def options(drawn: Any, tmp_path: Path) -> PoseTraining:
    """Four steps of four people in an epoch."""
    return PoseTraining(
        data=drawn.images, annotations=(drawn.annotations,), val=None, out=tmp_path / "run", size=(64, 64), batch=4,
        epochs=3, warmup_steps=2, ema_decay=0.9, device="cpu", precision="fp32", checkpoint_every=3,
    )  # fmt: skip


def checkpoint(out: Path) -> dict[str, Any]:
    return run.load_checkpoint(out / "checkpoint.pt")


def tensors(value: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """All tensors of a nested checkpoint by their path."""
    if isinstance(value, torch.Tensor):
        return {prefix: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {name: t for key, part in items for name, t in tensors(part, f"{prefix}/{key}").items()}


def largest_difference(first: dict[str, Any], second: dict[str, Any]) -> float:
    mine, theirs = tensors(first), tensors(second)
    assert mine.keys() == theirs.keys()
    return max(float((mine[name].double() - theirs[name].double()).abs().max()) for name in mine if mine[name].numel())


def numbers(log: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in entry.items() if k not in ("unix_time", "samples_per_s")} for entry in run.read_log(log)]


def test_the_loss_falls_and_the_files_are_there(options: PoseTraining) -> None:
    told: list[dict[str, Any]] = []
    options = replace(options, epochs=10, lr=5e-3, warmup_steps=5, val=options.annotations[0], evaluate_every=20)
    options = replace(options, augmentation=PLAIN)
    metrics = train_pose(options, on_step=told.append)
    losses = [entry["loss"] for entry in told if "loss" in entry]
    assert [entry["step"] for entry in told if "loss" in entry] == [20, 40]
    assert losses[-1] < 0.9 * losses[0]
    assert told[-2]["fraction"] == 1.0
    assert [entry["step"] for entry in told if "AP" in entry] == [20, 40]
    assert set(metrics) == {"AP", "AP50", "AP75", "APm", "APl", "AR"}
    for name in ("checkpoint.pt", "log.jsonl", "curves.png", "people.png", "last.safetensors", "best.safetensors"):
        assert (options.out / name).stat().st_size > 100, name
    assert not list(options.out.glob("*.part*"))
    metadata = read_metadata(options.out / "best.safetensors")
    assert metadata.architecture == "cpn-light"
    assert metadata.input_size == (64, 64)
    assert metadata.decoding == "dark"
    assert metadata.metrics["AP (ground-truth boxes, flip)"] == max(e["AP"] for e in told if "AP" in e)
    model, _ = load_cpn(options.out / "last.safetensors")
    average = checkpoint(options.out)["ema"]["model"]
    stored = model.state_dict()["refine_net.merge.conv1.weight"]
    assert torch.allclose(stored, average["refine_net.merge.conv1.weight"], atol=1e-3)


TRAIN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from cpnpose.training.pose_options import PoseTraining
from cpnpose.training.train_pose import train_pose
data, annotations, out = map(Path, sys.argv[1:4])
options = PoseTraining(data, (annotations,), out=out, size=(64, 64), device="cpu", precision="fp32", ema_decay=0.9,
                       **eval(sys.argv[4]))
train_pose(options, on_step=lambda entry: print(entry["step"], flush=True))
"""


def command_for(drawn: Any, out: Path, settings: dict[str, Any], launcher: tuple[str, ...] = ()) -> list[str]:
    """A command line that trains with these options."""
    script = out.with_suffix(".py")
    script.write_text(TRAIN)
    told = repr({"val": None, **settings}).replace("PosixPath", "Path")
    return [sys.executable, *launcher, str(script), str(drawn.images), str(drawn.annotations), str(out), told]


def test_a_killed_run_goes_on_as_if_nothing_had_happened(drawn: Any, options: PoseTraining, tmp_path: Path) -> None:
    """kill -9 after an evaluation, between two checkpoints; then resumed: the same weights, average, optimizer, log."""
    settings: dict[str, Any] = {"batch": 4, "epochs": 5, "warmup_steps": 2, "checkpoint_every": 4, "evaluate_every": 10}
    settings["val"] = drawn.annotations
    command = command_for(drawn, tmp_path / "killed", settings)
    killed = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    for line in killed.stdout:
        if line.strip() == "10":
            os.kill(killed.pid, signal.SIGKILL)
            break
    assert killed.wait(30) == -signal.SIGKILL
    killed.stdout.close()
    assert checkpoint(tmp_path / "killed")["step"] in (8, 12)
    for name in ("killed", "whole"):
        train_pose(replace(options, **settings, out=tmp_path / name))
    resumed, whole = checkpoint(tmp_path / "killed"), checkpoint(tmp_path / "whole")
    assert resumed["step"] == whole["step"] == 20
    for part in ("model", "ema", "optimizer"):
        assert largest_difference(resumed[part], whole[part]) < 1e-6, part
    assert resumed["ema"]["updates"] == whole["ema"]["updates"] == 20
    assert resumed["best_ap"] == whole["best_ap"]
    rates = [[group["lr"] for group in part["optimizer"]["param_groups"]] for part in (resumed, whole)]
    assert rates[0] == rates[1]
    assert numbers(tmp_path / "killed" / "log.jsonl") == numbers(tmp_path / "whole" / "log.jsonl")


def test_a_finished_run_stays_as_it_is(options: PoseTraining) -> None:
    train_pose(options)
    before, log = checkpoint(options.out), (options.out / "log.jsonl").read_text()
    assert before["step"] == 12
    assert train_pose(options) == {}
    assert largest_difference(before, checkpoint(options.out)) == 0
    assert (options.out / "log.jsonl").read_text() == log
    train_pose(replace(options, epochs=4))
    assert checkpoint(options.out)["step"] == 16


def test_checkpoints_of_other_runs_are_refused(options: PoseTraining) -> None:
    train_pose(replace(options, epochs=0.25))
    for other in (
        replace(options, size=(64, 96)),
        replace(options, batch=2),
        paper_recipe(options),
        replace(options, seed=1),
    ):
        with pytest.raises(TrainingError, match=r"checkpoint\.pt is of another run"):
            train_pose(other)
    with pytest.raises(TrainingError, match=r"weights \[1\.0\] instead of \[2\.0\]"):
        train_pose(replace(options, weights=(2.0,)))


def test_checkpoints_of_earlier_versions_are_resumed(options: PoseTraining) -> None:
    """They have fewer entries in the fingerprint and no window of losses."""
    train_pose(replace(options, epochs=0.5))
    path = options.out / "checkpoint.pt"
    content = checkpoint(options.out)
    del content["window"], content["fingerprint"]["people"], content["fingerprint"]["weights"]
    run.save_checkpoint(path, content)
    train_pose(replace(options, epochs=1))
    assert checkpoint(options.out)["step"] == 4


def test_damaged_checkpoints_are_told(options: PoseTraining) -> None:
    options.out.mkdir()
    (options.out / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: not a readable checkpoint"):
        train_pose(options)


def test_a_loss_that_is_no_number_stops_and_names_the_batch(options: PoseTraining) -> None:
    train_pose(replace(options, epochs=0.75))
    before = checkpoint(options.out)
    with pytest.raises(TrainingError, match=r"step \d+: the loss is (nan|inf).*\d{3}\.png#\d+") as raised:
        train_pose(replace(options, lr=1e30, checkpoint_every=1000))
    assert str(raised.value).count(".png#") == 4
    assert largest_difference(before, checkpoint(options.out)) == 0


def test_fewer_people_than_a_batch_are_told(options: PoseTraining) -> None:
    with pytest.raises(TrainingError, match="18 people are fewer than the 32 of a step"):
        train_pose(replace(options, batch=32))


def test_the_schedule_ends_in_time(options: PoseTraining) -> None:
    begun = time.monotonic()
    train_pose(replace(options, epochs=1e6, stop_after=0.02))
    assert time.monotonic() - begun < 20
    stored = checkpoint(options.out)
    assert stored["minutes"] >= 0.02
    assert stored["optimizer"]["param_groups"][0]["lr"] == pytest.approx(1e-5, rel=0.01)


def test_no_time_at_all_is_one_step(options: PoseTraining) -> None:
    train_pose(replace(options, epochs=3, stop_after=0.0))
    assert checkpoint(options.out)["step"] == 1


def test_the_published_recipe(options: PoseTraining) -> None:
    paper = paper_recipe(replace(options, epochs=0.5))
    train_pose(paper)
    stored = checkpoint(options.out)
    assert [(g["lr"], g["weight_decay"]) for g in stored["optimizer"]["param_groups"]] == [(5e-4, 1e-5)]
    average, model = stored["ema"]["model"], stored["model"]
    assert all(torch.equal(average[name], model[name]) for name in model)
    assert read_metadata(options.out / "last.safetensors").decoding == "published"
    with Processes("cpu") as processes:
        state = prepare_run(paper, processes)
        rates = []
        for epoch in (0, 5, 6, 12, 31):
            state.step = epoch * state.steps_per_epoch
            rates.append(learning_rate(state, 0.5))
    assert rates == [5e-4, 5e-4, 2.5e-4, 1.25e-4, 5e-4 / 32]


def test_warm_up_and_cosine(options: PoseTraining) -> None:
    with Processes("cpu") as processes:
        state = prepare_run(replace(options, lr=1.0, warmup_steps=10, epochs=100), processes)
        rates = {}
        for step in (0, 4, 9, 100, 200, 300, 399):
            state.step = step
            rates[step] = learning_rate(state, (step + 1) / state.total_steps)
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert rates[4] == pytest.approx(0.5, rel=0.01)
    assert rates[9] == pytest.approx(1.0, rel=0.01)
    assert rates[200] == pytest.approx(0.505, abs=0.01)
    assert rates[399] == pytest.approx(0.01, abs=1e-3)
    assert rates[100] > rates[200] > rates[300]


def test_frozen_batch_norm_keeps_its_statistics(options: PoseTraining) -> None:
    train_pose(replace(options, epochs=0.5, freeze_bn=True))
    model = checkpoint(options.out)["model"]
    assert all((value == 0).all() for name, value in model.items() if name.endswith("running_mean"))
    assert all(value == 0 for name, value in model.items() if name.endswith("num_batches_tracked"))


def test_starting_from_weights_and_from_a_backbone(options: PoseTraining, tmp_path: Path) -> None:
    train_pose(replace(options, epochs=0.25))
    weights = options.out / "last.safetensors"
    with Processes("cpu") as processes:
        state = prepare_run(replace(options, out=tmp_path / "b", init=str(weights)), processes)
        stored = load_cpn(weights)[0].state_dict()
        mine = state.model.state_dict()
        assert all(torch.equal(mine[k], stored[k]) for k in stored if not k.endswith("tracked"))
        arrays = {
            k.removeprefix("backbone."): v.numpy() for k, v in stored.items() if k.startswith("backbone.features")
        }
        np.savez(tmp_path / "backbone.npz", **arrays)
        state = prepare_run(replace(options, out=tmp_path / "c", backbone_weights=tmp_path / "backbone.npz"), processes)
        assert torch.equal(state.model.backbone.features[0][0].weight, stored["backbone.features.0.0.weight"])
        with pytest.raises(TrainingError, match="--backbone-weights fits cpn-light"):
            prepare_run(replace(options, model="cpn50", backbone_weights=tmp_path / "backbone.npz"), processes)


def test_weights_of_another_network_are_told_before_a_folder_is_made(
    options: PoseTraining, tiny_weights: Path, tmp_path: Path
) -> None:
    started = replace(options, model="cpn50", init=str(tiny_weights))
    with pytest.raises(WeightsError, match="holds cpn-light, and cpn50 is trained"):
        train_pose(started)
    assert not options.out.exists()


def test_what_the_evaluation_lacks_is_told_before_the_training(
    drawn: Any, options: PoseTraining, tmp_path: Path
) -> None:
    content = json.loads(drawn.annotations.read_text())
    del content["annotations"][0]["area"]
    val = tmp_path / "val.json"
    val.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"val\.json: annotation .* has no 'area'"):
        train_pose(replace(options, val=val))
    assert not (options.out / "log.jsonl").exists()


def test_two_processes_equal_one_with_the_double_batch(drawn: Any, options: PoseTraining, tmp_path: Path) -> None:
    """Under torchrun, with the whole augmentation; three steps, with losses of one size: Adam blows rounding up."""
    settings: dict[str, Any] = {"epochs": 0.75, "warmup_steps": 0, "freeze_bn": True, "lr": 1e-4}
    settings["location_weight"] = 10.0
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = command_for(drawn, tmp_path / "two", {**settings, "batch": 2}, launcher)
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, timeout=100)
    train_pose(replace(options, **settings, out=tmp_path / "one"))
    two, one = checkpoint(tmp_path / "two"), checkpoint(tmp_path / "one")
    assert two["step"] == one["step"] == 3
    first, second = two["optimizer"]["state"], one["optimizer"]["state"]
    for index in first:  # the averages of the gradients, before Adam divides their size away
        scale = second[index]["exp_avg"].abs().max()
        assert (first[index]["exp_avg"] - second[index]["exp_avg"]).abs().max() < 1e-3 * scale + 1e-7
    assert largest_difference(two["ema"]["model"], one["ema"]["model"]) < 1e-4
    losses = [numbers(tmp_path / name / "log.jsonl")[-1]["loss"] for name in ("two", "one")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_checkpoints_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    run.save_checkpoint(path, {"step": 1})

    def broken(state: object, file: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OutputError, match="disk full"):
        run.save_checkpoint(path, {"step": 2})
    assert run.load_checkpoint(path) == {"step": 1}


def test_the_average_follows_its_formula() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    ema = run.Ema(model, 0.7)
    expected = model[0].weight.detach().clone()
    for update in range(1, 40):
        with torch.no_grad():
            model[0].weight.add_(torch.randn(2, 3))
            model[1].num_batches_tracked += 1
        ema.update(model)
        decay = min(0.7, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
    assert torch.allclose(ema.model[0].weight, expected, atol=1e-5)
    assert ema.model[1].num_batches_tracked == 39
    assert not ema.model.training
    other = run.Ema(model, 0.7)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 39
    assert torch.equal(other.model[0].weight, ema.model[0].weight)


def test_random_states_come_back() -> None:
    state = run.rng_state()
    first = torch.rand(3), np.random.rand(3), np.random.randn()  # noqa: NPY002
    run.set_rng_state(state)
    again = torch.rand(3), np.random.rand(3), np.random.randn()  # noqa: NPY002
    assert torch.equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert first[2] == again[2]


def test_a_torn_log_is_read_up_to_its_tear(tmp_path: Path) -> None:
    log = run.RunLog(tmp_path / "log.jsonl")
    for step in (20, 40, 60):
        log.write(step=step, loss=1.0)
    with log.path.open("a") as file:
        file.write('{"step": 80, "lo')
    assert [entry["step"] for entry in run.read_log(log.path)] == [20, 40, 60]
    log.truncate_after(40)
    assert [json.loads(line)["step"] for line in log.path.read_text().splitlines()] == [20, 40]


def test_items_made_ahead_are_the_same_and_errors_arrive() -> None:
    assert list(one_ahead(iter(range(50)))) == list(range(50))

    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("of the thread")

    items = one_ahead(failing())
    assert next(items) == 1
    with pytest.raises(ValueError, match="of the thread"):
        next(items)


def test_augmentation_is_part_of_the_options(options: PoseTraining) -> None:
    assert paper_recipe(options).augmentation.rotation_deg == 45.0
    assert options.augmentation == AugmentOptions()


def test_views_of_a_set_on_the_device_are_those_of_the_cache(options: PoseTraining) -> None:
    with Processes("cpu") as processes:
        state = prepare_run(options, processes)
        assert state.on_device is None  # a CPU reads from the memory map
        rows, expected = next(views(state))
        state.on_device = load_on_device(state.cache, processes.device)
        again, view = next(views(state))
    assert again.tolist() == rows.tolist()
    assert torch.equal(view.crops, expected.crops)
    assert torch.equal(view.keypoints_xy, expected.keypoints_xy)


def test_frozen_blocks_stay_and_the_others_move(options: PoseTraining) -> None:
    options = replace(options, freeze_blocks=3, epochs=0.5)
    with Processes("cpu") as processes:
        before = {name: value.clone() for name, value in prepare_run(options, processes).model.state_dict().items()}
    train_pose(options)
    after = checkpoint(options.out)["model"]
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    frozen = {name for name in after if name.startswith(("backbone.features.0.", "backbone.features.1.",
                                                         "backbone.features.2."))}  # fmt: skip
    assert not changed & frozen
    moving = {name for name in set(after) - frozen if name.endswith((".weight", "running_mean"))}
    assert moving
    assert moving <= changed
