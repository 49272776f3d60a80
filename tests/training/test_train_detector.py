"""The detector trainer: canvases that tell the truth, learning, and runs that go on as if nothing had happened."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from cpnpose.errors import InputError, TrainingError
from cpnpose.models.backbone import MobileNetV2Features
from cpnpose.models.detector import DetectorConfig, build_detector
from cpnpose.models.weights import load_state, read_metadata
from cpnpose.training import detector_data
from cpnpose.training import train_detector as trainer
from cpnpose.training.detector_augment import compose
from cpnpose.training.detector_batch import make_batch
from cpnpose.training.detector_data import BoxDataset, BoxSample, read_pixels, read_samples
from cpnpose.training.detector_options import DetectorTraining, scaled_groups
from cpnpose.training.run import read_log

TINY = DetectorConfig(channels=16, hidden=32, proposals=20, input_pixels=96 * 128)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images with one "person" each: a white box on dark noise; the last has a crowd too."""
    folder = tmp_path_factory.mktemp("boxes")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(8):
        pixels = rng.integers(0, 60, (96, 128, 3), dtype=np.uint8)
        x, y, w, h = (
            int(v) for v in (rng.integers(5, 70), rng.integers(5, 30), rng.integers(25, 40), rng.integers(45, 60))
        )
        pixels[y : y + h, x : x + w] = 255
        cv2.imwrite(str(folder / f"{i}.png"), pixels)
        images.append({"id": i, "file_name": f"{i}.png", "width": 128, "height": 96})
        annotations.append({"image_id": i, "category_id": 1, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})
    annotations.append({"image_id": 7, "category_id": 1, "bbox": [0, 0, 128, 30], "area": 3840, "iscrowd": 1})
    annotations.append({"image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0})
    for n, entry in enumerate(annotations, start=1):
        entry["id"] = n
    (folder / "boxes.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))
    return folder


@pytest.fixture
def options(data: Path, tmp_path: Path) -> DetectorTraining:
    return DetectorTraining(
        data=data,
        annotations=(data / "boxes.json",),
        val=None,
        out=tmp_path / "run",
        steps=6,
        batch=2,
        warmup_steps=2,
        checkpoint_every=3,
        device="cpu",
        precision="fp32",
        config=TINY,
    )


def test_crowds_are_ignored_regions_and_other_categories_nobody(data: Path) -> None:
    samples = read_samples(data / "boxes.json", data)
    assert [len(s.boxes_xyxy) for s in samples] == [1] * 8
    assert samples[7].ignore_xyxy.tolist() == [[0, 0, 128, 30]]


def test_a_file_without_people_is_refused(data: Path, tmp_path: Path) -> None:
    content = json.loads((data / "boxes.json").read_text())
    (tmp_path / "none.json").write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(TrainingError, match="no box of a person"):
        read_samples(tmp_path / "none.json", data)


def test_boxes_of_canvases_lie_on_the_pixels(data: Path) -> None:
    dataset = BoxDataset(read_samples(data / "boxes.json", data, complete=False)[:7])
    people = 0
    for seed in range(60):
        canvas = compose(dataset, np.random.default_rng(seed), (96, 128), nominal_side=110.0, mosaic=0.5)
        assert canvas.pixels.shape == (96, 128, 3)
        assert canvas.pixels.dtype == np.uint8
        assert len(canvas.doubtful_xyxy) == len(canvas.indices)
        bright = canvas.pixels.min(2) > 130
        covered = np.zeros_like(bright)
        for x1, y1, x2, y2 in np.round(np.concatenate([canvas.boxes_xyxy, canvas.ignore_xyxy])).astype(int):
            covered[max(0, y1 - 2) : y2 + 2, max(0, x1 - 2) : x2 + 2] = True
        assert bright[~covered].mean() < 0.002
        for box in canvas.boxes_xyxy:
            x1, y1, x2, y2 = np.round(box).astype(int)
            inner = canvas.pixels[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].min(2)
            if np.median(inner) > 130:  # not so where the colours were darkened
                people += 1
                assert (inner > 130).mean() > 0.97
    assert people > 60


def test_the_box_of_a_turned_person_hugs_it(tmp_path: Path) -> None:
    """A person of the form of an ellipse: its box can be seen at every angle."""
    pixels = np.zeros((120, 160, 3), np.uint8)
    cv2.ellipse(pixels, (80, 60), (14, 45), 0, 0, 360, (255, 255, 255), -1)
    cv2.imwrite(str(tmp_path / "person.png"), pixels)
    sample = BoxSample(
        path=tmp_path / "person.png",
        image_id=0,
        boxes_xyxy=np.array([[66, 15, 95, 106]], np.float32),
        ignore_xyxy=np.zeros((0, 4), np.float32),
        complete=True,
    )
    tallest, widest = 0.0, 0.0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        canvas = compose(
            BoxDataset([sample]), rng, (140, 180), nominal_side=140.0, mosaic=0.0, turn=1.0, turn_degrees=90.0
        )
        rows, columns = np.nonzero((canvas.pixels > 130).all(2))
        if len(rows) < 100 or not len(canvas.boxes_xyxy):  # darkened, or cut off
            continue
        box = canvas.boxes_xyxy[0]
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        np.testing.assert_allclose(box, seen, atol=4)
        width, height = box[2:] - box[:2]
        tallest, widest = max(tallest, height / width), max(widest, width / height)
    assert tallest > 2
    assert widest > 2


@pytest.mark.parametrize("turn", [0.0, 1.0])
def test_boxes_lie_on_the_pixels_to_a_fraction_of_a_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: float
) -> None:
    """Scaled, mirrored, turned: the middle of a disc is the middle of its box, far under half a pixel apart."""
    monkeypatch.setattr("cpnpose.training.detector_augment.recolour", lambda image, rng: image)
    pixels = np.full((60, 80, 3), 127, np.uint8)
    cv2.circle(pixels, (25, 33), 12, (255, 255, 255), -1, cv2.LINE_AA)
    cv2.imwrite(str(tmp_path / "disc.png"), pixels)
    sample = BoxSample(
        path=tmp_path / "disc.png",
        image_id=0,
        boxes_xyxy=np.array([[13, 21, 38, 46]], np.float32),
        ignore_xyxy=np.zeros((0, 4), np.float32),
        complete=True,
    )
    seen = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        canvas = compose(
            BoxDataset([sample]), rng, (150, 190), nominal_side=150.0, mosaic=0.0, turn=turn, turn_degrees=90.0
        )
        heat = canvas.pixels[..., 0].astype(float) - 127
        shown = np.nonzero(heat)
        if not len(canvas.boxes_xyxy) or min(*shown[0], *shown[1]) < 2 or shown[0].max() > 147 or shown[1].max() > 187:
            continue  # perhaps cut off
        seen += 1
        middle = [(heat.sum(axis) * (np.arange(heat.shape[1 - axis]) + 0.5)).sum() / heat.sum() for axis in (0, 1)]
        box = canvas.boxes_xyxy[0]
        np.testing.assert_allclose((box[:2] + box[2:]) / 2, middle, atol=0.15)
    assert seen > 15


def test_a_batch_depends_on_seed_and_step_only(options: DetectorTraining) -> None:
    def batch(number: int, seed: int = 0) -> torch.Tensor:
        dataset = BoxDataset(read_samples(options.annotations[0], options.data))
        return make_batch(dataset, replace(options, seed=seed), number, 0.1).pixels

    assert torch.equal(batch(3), batch(3))
    assert not any(a.shape == b.shape and torch.equal(a, b) for a, b in ((batch(3), batch(4)), (batch(3), batch(3, 1))))


def test_decoded_images_stay_as_far_as_there_is_room(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(path: Path) -> Any:
        read.append(path.name)
        return original(path)

    original = detector_data.read_pixels
    monkeypatch.setattr(detector_data, "read_pixels", counted)
    samples = read_samples(data / "boxes.json", data)
    image = 96 * 128 * 3
    rooms: dict[int | None, int] = {0: 16, 3 * image: 8 + 5, 3 * image - 1: 8 + 6, None: 8}
    for room, decoded in rooms.items():
        dataset = BoxDataset(samples, room)
        read.clear()
        rounds = [[dataset.pixels(index) for index in range(8)] for _ in range(2)]
        assert len(read) == decoded
        assert all(np.array_equal(one, other) for one, other in zip(*rounds, strict=True))
    monkeypatch.setattr(detector_data, "available_memory", lambda: 4 * 2 * image)
    dataset = BoxDataset(samples)
    read.clear()
    for index in [*range(8), *range(8)]:
        dataset.pixels(index)
    assert len(read) == 8 + 6  # a quarter of what is free holds two


def test_an_image_that_is_too_large_is_told(tmp_path: Path) -> None:
    parts = (b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)), (b"IDAT", bytes(50)), (b"IEND", b"")
    path = tmp_path / "map.png"
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, content in parts:
            file.write(struct.pack(">I", len(content)) + kind + content)
            file.write(struct.pack(">I", zlib.crc32(kind + content)))
    with pytest.raises(InputError, match=r"map\.png: cannot be decoded .*; remove it or make it smaller"):
        read_pixels(path)


def test_a_batch_is_the_same_whether_its_images_stay_or_not(options: DetectorTraining) -> None:
    samples = read_samples(options.annotations[0], options.data)
    keeping, forgetful = BoxDataset(samples), BoxDataset(samples, kept_bytes=0)
    for number in range(4):
        one, other = (make_batch(dataset, options, number, 0.1) for dataset in (keeping, forgetful))
        assert torch.equal(one.pixels, other.pixels)
        assert one.names == other.names


def test_rates_follow_the_size_of_the_weights() -> None:
    model = build_detector(TINY)
    with torch.no_grad():
        model.pyramid.blocks[10].conv[0][0].weight.mul_(64)
    before = {id(p): g["lr"] for g in scaled_groups(build_detector(TINY), 0.01, 0.0) for p in g["params"]}
    groups = scaled_groups(model, 0.01, 0.0)
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    assert len(rates) == len(before) == sum(p.requires_grad for p in model.parameters())
    blocks = model.pyramid.blocks
    assert rates[id(blocks[10].conv[0][0].weight)] > 20 * rates[id(blocks[11].conv[0][0].weight)]


@pytest.fixture(scope="module")
def random_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random MobileNetV2 whose batch normalisations have seen noise, so that its signal neither dies nor explodes."""
    torch.manual_seed(0)
    net = MobileNetV2Features().train()
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        net(torch.randn(8, 3, 96, 128) + torch.randn(8, 3, 1, 1))
    path = tmp_path_factory.mktemp("backbone") / "random.npz"
    np.savez(path, **{name: value.numpy() for name, value in net.state_dict().items()})
    return path


def test_it_learns_to_find_boxes(options: DetectorTraining, random_backbone: Path) -> None:
    run = replace(
        options,
        val=options.annotations[0],
        backbone_weights=random_backbone,
        steps=250,
        batch=4,
        warmup_steps=20,
        ema_decay=0.9,
        lr=0.03,
    )
    told: list[dict[str, Any]] = []
    metrics = trainer.train_detector(run, on_step=told.append)
    assert metrics["AP50"] > 60
    assert told[-1]["fraction"] == 1
    names = {path.name for path in run.out.iterdir()}
    wanted = {"checkpoint.pt", "log.jsonl", "curves.png", "boxes.png", "last.safetensors", "best.safetensors"}
    assert names == wanted
    metadata = read_metadata(run.out / "best.safetensors")
    assert metadata.kind == "detector"
    load_state(run.out / "best.safetensors", build_detector(DetectorConfig(**metadata.config)))


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    options: DetectorTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.train_detector(options)
    other = replace(options, out=tmp_path / "killed")
    step = trainer.DetectorRun._train_step

    def killed(self: trainer.DetectorRun, batch: Any) -> Any:
        if self.step == 5:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(trainer.DetectorRun, "_train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.train_detector(other)
    assert torch.load(other.out / "checkpoint.pt", weights_only=True)["step"] == 3
    monkeypatch.setattr(trainer.DetectorRun, "_train_step", step)
    trainer.train_detector(other)
    states = [torch.load(run.out / "checkpoint.pt", weights_only=True) for run in (options, other)]
    for kind in ("model", "ema"):
        first, second = (state[kind] if kind == "model" else state[kind]["model"] for state in states)
        for name, value in first.items():
            assert torch.equal(value, second[name]), name
    assert [entry["step"] for entry in read_log(other.out / "log.jsonl")] == [6]


def test_a_checkpoint_of_another_run_is_refused(options: DetectorTraining) -> None:
    trainer.train_detector(replace(options, steps=1))
    with pytest.raises(TrainingError, match="another run"):
        trainer.train_detector(replace(options, batch=3))


def test_no_time_at_all_is_one_step(options: DetectorTraining) -> None:
    trainer.train_detector(replace(options, stop_after=0.0))
    assert torch.load(options.out / "checkpoint.pt", weights_only=True)["step"] == 1


def test_a_finished_run_stays_as_it_is_and_tells_its_figures(options: DetectorTraining) -> None:
    run = replace(options, val=options.annotations[0], steps=2)
    metrics = trainer.train_detector(run)
    before = {path.name: path.read_bytes() for path in run.out.iterdir()}
    told: list[dict[str, Any]] = []
    assert trainer.train_detector(run, on_step=told.append) == metrics
    assert told == [{"step": 2, "fraction": 1.0}]
    assert {path.name: path.read_bytes() for path in run.out.iterdir()} == before


def test_a_run_goes_on_at_another_learning_rate_but_not_from_other_weights(
    options: DetectorTraining, random_backbone: Path
) -> None:
    """A lower rate is the remedy that is told where the loss is no number."""
    trainer.train_detector(replace(options, backbone_weights=random_backbone, steps=1))
    trainer.train_detector(replace(options, backbone_weights=random_backbone, steps=2, lr=options.lr / 4))
    groups = torch.load(options.out / "checkpoint.pt", weights_only=True)["optimizer"]["param_groups"]
    fresh = trainer.DetectorRun(replace(options, backbone_weights=random_backbone, out=options.out / "fresh"), None)
    assert [g["full_lr"] for g in groups] == [g["full_lr"] / 4 for g in fresh.optimizer.param_groups]
    with pytest.raises(TrainingError, match="started from other weights; give --init and --backbone-weights as then"):
        trainer.train_detector(replace(options, steps=3))
