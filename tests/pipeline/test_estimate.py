from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cpnpose.errors import CpnposeError, OptionError, WeightsError
from cpnpose.models.cuda_graph import Recorded
from cpnpose.pipeline.crop import crop_persons
from cpnpose.pipeline.device import choose_device, choose_precision
from cpnpose.pipeline.estimate import PoseNetwork, load_pose_network
from cpnpose.pose.keypoints import FLIP_INDEX
from cpnpose.pose.types import Detections, PersonCrops, Poses, Preprocessing

SIZE = (64, 48)


class PointNetwork(nn.Module):
    """Draws a peak for keypoint k where the crop is brightest in red, plus k columns; asymmetric on purpose."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.shift = shift
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        small = nn.functional.avg_pool2d(x[:, :1].float(), 4)  # (N, 1, h, w)
        maps = torch.cat([small + 0.1 * torch.roll(small, 1, -1) * self.shift for _ in range(17)], dim=1)
        scale = torch.linspace(100, 260, 17).view(1, 17, 1, 1)
        return maps.clamp_min(0) * scale


def network(model: nn.Module | None = None, **options: object) -> PoseNetwork:
    preprocessing = Preprocessing(mean=(0, 0, 0), std=(255, 255, 255))
    return PoseNetwork(model or PointNetwork(), input_size=SIZE, preprocessing=preprocessing, **options)  # type: ignore[arg-type]


def crops_of(count: int, column: int = 22, row: int = 30) -> PersonCrops:
    pixels = np.zeros((count, *SIZE, 3), np.uint8)
    for index in range(count):
        cv = pixels[index, row - 6 : row + 6, column - 6 + index % 3 : column + 6 + index % 3]
        cv[...] = 60
        cv[4:8, 4:8] = 255
    affines = np.tile(np.array([[[0.5, 0, -10], [0, 0.5, -20]]], np.float32), (count, 1, 1))
    boxes = np.tile(np.array([[20, 40, 116, 168]], np.float32), (count, 1))
    return PersonCrops(pixels, affines, np.zeros(count, np.int64), boxes, np.linspace(0.5, 1, count, dtype=np.float32))


def same(first: Poses, second: Poses) -> None:
    for name, value in vars(first).items():
        np.testing.assert_array_equal(value, getattr(second, name), err_msg=name)


def test_keypoints_land_on_the_bright_spot_in_image_pixels() -> None:
    poses = network()(crops_of(1))
    # The spot is at (22, 30) of the crop; crop = image / 2 - (10, 20).
    np.testing.assert_allclose(poses.keypoints_xy[0], np.tile([(22 + 10) * 2, (30 + 20) * 2], (17, 1)), atol=3)


def test_scores_follow_the_published_formula() -> None:
    crops = crops_of(3)
    poses = network()(crops)
    assert poses.keypoint_scores.shape == (3, 17)
    assert (poses.keypoint_scores > 0.5).all()
    assert (np.diff(poses.keypoint_scores, axis=1) > 0).all()  # the peaks grow with the keypoint's number
    np.testing.assert_allclose(poses.scores, crops.scores * poses.keypoint_scores.mean(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(poses.box_scores, crops.scores)
    np.testing.assert_array_equal(poses.boxes_xyxy, crops.boxes_xyxy)
    assert poses.uncertainty_px is None


def test_nobody_is_a_normal_value() -> None:
    poses = network()(crops_of(0))
    assert len(poses) == 0
    assert poses.keypoints_xy.shape == (0, 17, 2)


def test_batches_do_not_change_the_result() -> None:
    crops = crops_of(11)
    same(network(batch=16)(crops), network(batch=3)(crops))


def test_flip_test_merges_maps_and_tells_the_disagreement() -> None:
    crops = crops_of(4)
    poses = network(flip=True)(crops)
    assert poses.uncertainty_px is not None
    assert poses.uncertainty_px.shape == (4, 17)
    # A network that treats left and right alike disagrees with its mirror by little, and a skewed one by more.
    skewed = network(PointNetwork(shift=8.0), flip=True)(crops)
    assert skewed.uncertainty_px is not None
    assert poses.uncertainty_px.mean() < 0.5
    assert skewed.uncertainty_px.mean() > 2
    # The mirror's channel of the left wrist is the right wrist's: scores are means of the exchanged pairs.
    plain = network()(crops)
    expected = (plain.keypoint_scores + plain.keypoint_scores[:, list(FLIP_INDEX)]) / 2
    np.testing.assert_allclose(poses.keypoint_scores, expected, rtol=1e-4)


class Greedy(PointNetwork):
    """Runs out of memory for batches above a limit."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(x)


def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    crops = crops_of(21)
    model = Greedy(most=5)
    estimator = network(model, batch=16)
    same(estimator(crops), network()(crops))
    assert estimator.batch == 4
    assert max(model.batches) == 4


def test_out_of_memory_for_one_crop_is_an_error_with_a_remedy() -> None:
    with pytest.raises(CpnposeError, match=r"64x48.*--device cpu"):
        network(Greedy(most=0), batch=4)(crops_of(2))


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    class Broken(PointNetwork):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("expected 4D input")

    with pytest.raises(RuntimeError, match="expected 4D"):
        network(Broken())(crops_of(1))


def test_weights_file_to_poses(tiny_weights: Path) -> None:
    estimator = load_pose_network(tiny_weights, device="cpu", precision="fp32")
    assert estimator.input_size == (64, 64)
    assert estimator.metadata is not None
    assert estimator.metadata.name == "tiny"
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    boxes = np.array([[10, 10, 50, 80], [60, 5, 118, 88], [0, 0, 5, 5]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32))
    poses = estimator(crop_persons([image], [found], estimator.input_size, estimator.preprocessing))
    assert len(poses) == 3
    assert np.isfinite(poses.keypoints_xy).all()
    # Inside of what the crops show: the box, widened and grown to a square.
    middle = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    reach = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)[:, None] * 1.3 / 2 + 2
    assert (np.abs(poses.keypoints_xy - middle).max(axis=-1) <= reach).all()


def test_inference_form_equals_the_training_form(tiny_weights: Path) -> None:
    from cpnpose.models.weights import load_cpn

    estimator = load_pose_network(tiny_weights, device="cpu", precision="fp32")
    model, metadata = load_cpn(tiny_weights)
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 255, (2, 64, 64, 3), np.uint8))
    mean, std = torch.tensor(metadata.preprocessing.mean), torch.tensor(metadata.preprocessing.std)
    with torch.inference_mode():
        expected = model(((pixels - mean) / std).permute(0, 3, 1, 2)).refined
        found, _ = estimator.heatmaps(pixels)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4


def test_reduced_precision_and_fast_form_run(tiny_weights: Path) -> None:
    crops = replace(crops_of(2), pixels=np.zeros((2, 64, 64, 3), np.uint8))
    for options in ({"precision": "bf16"}, {"precision": "fp32", "fast": True}):
        poses = load_pose_network(tiny_weights, device="cpu", **options)(crops)  # type: ignore[arg-type]
        assert np.isfinite(poses.keypoints_xy).all()


def test_devices_and_precisions_that_do_not_exist() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_precision("auto", torch.device("cpu")) in (torch.bfloat16, torch.float32)
    with pytest.raises(OptionError, match="no such device"):
        choose_device("gpu9")
    with pytest.raises(OptionError, match="CUDA devices"):
        choose_device("cuda:99")
    with pytest.raises(OptionError, match="fp32, bf16"):
        choose_precision("int3", torch.device("cpu"))


def test_missing_weights_are_named() -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors"):
        load_pose_network("nowhere.safetensors")


@pytest.mark.parametrize("flip", [False, True])
def test_a_recorded_network_gives_the_same_poses_from_a_few_batch_sizes(flip: bool) -> None:
    shapes: list[tuple[int, ...]] = []

    def record(model: nn.Module, example: Tensor) -> Recorded:
        shapes.append(tuple(example.shape))
        inputs, outputs = example.clone(), model(example).clone()
        return Recorded(inputs, outputs, lambda: outputs.copy_(model(inputs)))

    recorded = network(flip=flip, recorder=record)
    for count in (3, 4, 1, 3):
        same(recorded(crops_of(count)), network(flip=flip)(crops_of(count)))
    assert [shape[0] for shape in shapes] == [4, 1]


def test_crops_on_the_device_are_taken_as_they_are() -> None:
    crops = crops_of(3)
    pixels = torch.from_numpy(np.asarray(crops.pixels))
    same(network()(replace(crops, pixels=pixels)), network()(crops))
