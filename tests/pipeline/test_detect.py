from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from cpnpose.errors import CpnposeError, InputError, OptionError, WeightsError
from cpnpose.models.detector import DetectorConfig, build_detector
from cpnpose.models.weights import WeightsMetadata, save_weights
from cpnpose.pipeline.detect import PersonDetector, WholeImageDetector
from cpnpose.pipeline.detection_file import load_boxes
from cpnpose.pipeline.load_detector import TORCHVISION_DETECTORS, load_detector, make_detector
from cpnpose.pipeline.official_detector import OfficialNetwork
from cpnpose.pipeline.options import ModelOptions
from cpnpose.pose.types import FloatArray, ImageArray


def image(height: int = 60, width: int = 80, value: int = 0) -> ImageArray:
    return np.full((height, width, 3), value, np.uint8)


class ByBrightness:
    """As many boxes as the image is bright; remembers its batches; may run out of memory."""

    device = torch.device("cpu")

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.batches: list[tuple[int, tuple[int, ...]]] = []

    def detect(
        self, images: Sequence[ImageArray], *, score: float, nms: float, max_people: int
    ) -> list[tuple[FloatArray, FloatArray]]:
        assert len({image.shape for image in images}) == 1
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.batches.append((len(images), images[0].shape))
        found = []
        for one in images:
            count = min(int(one[0, 0, 0]), max_people)
            boxes = np.tile(np.array([[-5, 2, 30, 500]], np.float32), (count, 1))
            found.append((boxes, np.linspace(0.9, score, count, dtype=np.float32)))
        return found


def test_images_keep_their_order_and_are_batched_by_shape() -> None:
    network = ByBrightness()
    images = [image(value=2), image(40, 40, 1), image(value=0), image(40, 40, 3), image(value=1)]
    found = PersonDetector(network, batch=2)(images)
    assert [len(people) for people in found] == [2, 1, 0, 3, 1]
    assert network.batches == [(2, (60, 80, 3)), (1, (60, 80, 3)), (2, (40, 40, 3))]
    np.testing.assert_array_equal(found[0].boxes_xyxy[0], [0, 2, 30, 60])  # clipped to the image
    assert PersonDetector(network)([]) == []


def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    network = ByBrightness(most=3)
    detector = PersonDetector(network, batch=8)
    assert [len(people) for people in detector([image(value=v) for v in range(10)])] == list(range(10))
    assert detector.batch == 2
    with pytest.raises(CpnposeError, match="80x60"):
        PersonDetector(ByBrightness(most=0))([image()])


class TwoClasses(nn.Module):
    """Speaks torchvision's language: a person at a quarter of the image, a dog, and somebody unsure."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Identity()
        self.rpn = nn.Module()
        self.rpn.head = nn.Identity()
        self.roi_heads = nn.Module()
        self.roi_heads.box_head = nn.Identity()
        self.transform = type("T", (), {"min_size": (40,), "max_size": 100})()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        self.seen += [tuple(one.shape) for one in images]
        assert all(one.dtype == torch.float32 and 0 <= float(one.min()) <= float(one.max()) <= 1 for one in images)
        height, width = images[0].shape[-2:]
        boxes = torch.tensor([[0.1, 0.1, 0.2, 0.3], [0.25, 0.25, 0.75, 1.0], [0.5, 0.5, 0.6, 0.6]])
        boxes = boxes * torch.tensor([width, height, width, height])
        return [
            {"boxes": boxes, "labels": torch.tensor([18, 1, 1]), "scores": torch.tensor([0.99, 0.8, 0.3])}
            for _ in images
        ]


def test_torchvision_detectors_give_people_in_image_pixels() -> None:
    model = TwoClasses()
    found = PersonDetector(OfficialNetwork(model), score=0.5)([image(80, 160), image(80, 160)])
    assert model.seen == [(3, 40, 80)] * 2  # shrunk before it is given to the network
    assert len(found) == 2
    np.testing.assert_allclose(found[1].boxes_xyxy, [[40, 20, 120, 80]])
    np.testing.assert_allclose(found[1].scores, [0.8])
    assert [len(people) for people in PersonDetector(OfficialNetwork(model), score=0.2)([image()])] == [2]
    assert [len(p) for p in PersonDetector(OfficialNetwork(model), score=0.2, max_people=1)([image()])] == [1]


def test_a_real_network_of_torchvision_in_both_formats(tmp_path: Path) -> None:
    torch.manual_seed(0)
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    torch.save(model.state_dict(), tmp_path / "detector.pth")
    picture = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    for precision in ("fp32", "bf16"):
        options = {"device": "cpu", "precision": precision, "score": 0.0, "max_people": 7}
        detector = load_detector(name, weights=tmp_path / "detector.pth", **options)  # type: ignore[arg-type]
        assert detector.file == tmp_path / "detector.pth"
        found = detector([picture, picture[:40]])
        assert all(len(people) <= 7 and np.isfinite(people.boxes_xyxy).all() for people in found)
        assert all((np.diff(people.scores) <= 0).all() for people in found)


def test_own_detector_from_its_file(tmp_path: Path) -> None:
    from dataclasses import asdict

    torch.manual_seed(1)
    config = DetectorConfig(channels=16, hidden=32, proposals=20, input_pixels=96 * 128, score=0.35, track_score=0.6)
    model = build_detector(config)
    metadata = WeightsMetadata("faster-rcnn-mobilenet-v2", (96, 128), kind="detector", config=asdict(config))
    path = tmp_path / "own.safetensors"
    save_weights(path, model.state_dict(), metadata)
    detector = load_detector(weights=path, device="cpu", precision="fp32")
    assert (detector.score, detector.track_score) == (0.35, 0.6)  # the weights' own
    asked = load_detector(weights=path, device="cpu", precision="fp32", score=0.2)
    assert (asked.score, asked.track_score) == (0.2, 0.2)  # who gives one means both
    assert detector.name == "own"
    assert detector.file == detector.with_score(0.1).file == path
    found = load_detector(weights=path, device="cpu", precision="fp32", score=0.0, max_people=5)([image(value=90)])
    assert len(found[0]) <= 5
    assert (found[0].boxes_xyxy[:, 2] <= 80).all()


def test_pose_weights_are_no_detector(tiny_weights: Path) -> None:
    with pytest.raises(WeightsError, match="not a detector"):
        load_detector(weights=tiny_weights, device="cpu")


def test_unknown_names_are_told_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match="fasterrcnn_resnet50_fpn_v2"):
        load_detector("yolo", device="cpu")
    with pytest.raises(OptionError, match=r"^--detector none: a detector is needed here; name one of: \S+, fasterrcnn"):
        load_detector("none", device="cpu")
    with pytest.raises(WeightsError, match="nowhere"):
        load_detector(weights="nowhere.safetensors", device="cpu")


@pytest.mark.parametrize("name", TORCHVISION_DETECTORS)
def test_offline_the_error_names_the_file_and_its_place(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib.error import URLError

    def offline(*_: Any, **__: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        load_detector(name, device="cpu")
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    assert url in str(caught.value)
    assert str(tmp_path / "hub" / "checkpoints" / Path(url).name) in str(caught.value)
    assert "--detector-weights" in str(caught.value)


def test_damaged_and_wrong_weights_of_torchvision(tmp_path: Path) -> None:
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    damaged, other = tmp_path / "damaged.pth", tmp_path / "other.pth"
    damaged.write_bytes(b"nonsense")
    torch.save({"a": torch.zeros(1)}, other)
    with pytest.raises(WeightsError, match=r"damaged.pth.*fetch"):
        load_detector(name, weights=damaged, device="cpu")
    with pytest.raises(WeightsError, match=r"other.pth.*do not fit"):
        load_detector(name, weights=other, device="cpu")
    with pytest.raises(WeightsError, match="no such"):
        load_detector(name, weights=tmp_path / "none.pth", device="cpu")


def test_the_whole_image_as_one_box() -> None:
    found = WholeImageDetector()([image(60, 80), image(10, 20)])
    np.testing.assert_array_equal(found[1].boxes_xyxy, [[0, 0, 20, 10]])
    assert found[0].scores.tolist() == [1.0]
    assert isinstance(make_detector(ModelOptions(detector="none")), WholeImageDetector)


def boxes_file(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows))
    return path


def test_boxes_of_a_file_by_number_and_by_name(tmp_path: Path) -> None:
    rows = [
        {"image_id": 139, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.4},
        {"image_id": 139, "category_id": 1, "bbox": [5, 6, 7, 8], "score": 0.9},
        {"image_id": 139, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 0.9},
    ]
    path = boxes_file(tmp_path / "boxes.json", rows)
    by_number = load_boxes(path)([image()] * 2, [139, 140])
    np.testing.assert_array_equal(by_number[0].boxes_xyxy, [[5, 6, 12, 14], [1, 2, 4, 6]])
    assert len(by_number[1]) == 0
    by_name = load_boxes(path, ["a.jpg", "sub/000000000139.jpg"])([image()] * 2, [0, 1])
    assert [len(people) for people in by_name] == [0, 2]
    assert [len(p) for p in load_boxes(path, score=0.5)([image()], [139])] == [1]
    assert [len(p) for p in load_boxes(path, max_people=1)([image()], [139])] == [1]
    annotations = {
        "images": [{"id": 5, "file_name": "x/b.png"}],
        "annotations": [{"image_id": 5, "bbox": [0, 0, 2, 2]}],
    }
    people = load_boxes(boxes_file(tmp_path / "gt.json", annotations), ["b.png"])([image()], [0])[0]
    assert people.scores.tolist() == [1.0]


def test_folders_tell_images_of_one_name_apart(tmp_path: Path) -> None:
    annotations = {
        "images": [{"id": n, "file_name": f"cam{n}/1.png"} for n in (1, 2)],
        "annotations": [{"image_id": n, "bbox": [0, 0, 2, 2]} for n in (1, 2, 2)],
    }
    path = boxes_file(tmp_path / "gt.json", annotations)
    names = ["cam1/1.png", "cam2/1.png", "/data/cam2/1.png", "other/1.png"]
    assert [len(people) for people in load_boxes(path, names)([image()] * 4, [0, 1, 2, 3])] == [1, 2, 2, 0]


def test_digits_that_are_no_numbers_are_names(tmp_path: Path) -> None:
    path = boxes_file(tmp_path / "boxes.json", [{"image_id": "²", "bbox": [0, 0, 2, 2]}])
    assert len(load_boxes(path)([image()], [0])[0]) == 0
    assert len(load_boxes(path, ["²"])([image()], [0])[0]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[1, 2]",
        '{"a": 1}',
        '[{"image_id": 1}]',
        '[{"image_id":1,"bbox":[1]}]',
        '[{"image_id": 1, "bbox": [0, 0, NaN, 5]}]',
        '[{"image_id": 1, "bbox": [0, 0, Infinity, 5]}]',
        '[{"image_id": 1, "bbox": [0, 0, 1e300, 5]}]',
        '[{"image_id": 1, "bbox": [0, 0, 5, 5], "score": NaN}]',
        '[{"image_id": 1, "bbox": [0, 0, 1' + "0" * 400 + ", 5]}]",
        "[" * 100_000,
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"boxes.json.*COCO detections file"):
        load_boxes(path)
    with pytest.raises(InputError, match="check the path"):
        load_boxes(tmp_path / "none.json")


def test_options_outside_their_range() -> None:
    for wrong in (
        {"score": 1.5},
        {"nms": -1},
        {"max_people": 0},
        {"batch": 0},
        {"boxes": Path("b"), "detector": "none"},
        {"detector_size": (0, 640)},
        {"boxes": Path("b"), "detector_size": (480, 640)},
        {"detector": "none", "detector_size": (480, 640)},
        {"detector": "none", "max_people": 3},
    ):
        with pytest.raises(OptionError):
            ModelOptions(**wrong)  # type: ignore[arg-type]


def test_the_detector_gets_its_size_and_torchvisions_keeps_its_own() -> None:
    network = make_detector(ModelOptions(detector_size=(96, 128), device="cpu")).network  # type: ignore[attr-defined]
    assert network.input_pixels == 96 * 128
    with pytest.raises(OptionError, match="has a size of its own"):
        make_detector(ModelOptions(detector=TORCHVISION_DETECTORS[0], detector_size=(96, 128), device="cpu"))
