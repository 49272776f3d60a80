"""The person detector's parts against torchvision's, its sizes and its answers."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou, roi_align
from torchvision.ops import nms as suppress

from cpnpose.models.backbone import MobileNetV2Features
from cpnpose.models.cuda_graph import Recorded, Recorder
from cpnpose.models.detect_at_once import DetectorAtOnce, keep_uncovered
from cpnpose.models.detect_batch import DetectorNetwork, network_size
from cpnpose.models.detector import (
    ARCHITECTURE,
    STRIDES,
    Detector,
    DetectorConfig,
    PersonPyramid,
    build_detector,
    normalize,
)
from cpnpose.models.detector_heads import PyramidRoIAlign, mostly_inside
from cpnpose.models.weights import WeightsMetadata, load_state, read_metadata, save_weights

TINY = DetectorConfig(channels=16, hidden=32, proposals=20, input_pixels=96 * 128)


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return build_detector(TINY).eval()


def test_roi_align_is_that_of_torchvision_on_the_level_of_each_box() -> None:
    torch.manual_seed(0)
    features = {str(i): torch.randn(2, 5, 256 // s, 320 // s) for i, s in enumerate(STRIDES)}
    corners = torch.rand(40, 2) * torch.tensor([200.0, 150.0]) * torch.rand(40, 1)
    boxes = torch.cat([corners, corners + 4 + torch.rand(40, 2) * 300], 1)
    boxes[:, 2].clamp_(max=320), boxes[:, 3].clamp_(max=256)
    pooled = PyramidRoIAlign(STRIDES[:3], output=7, samples=2)(features, [boxes[:25], boxes[25:]])
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
    level = (sides >= 112).long() + (sides >= 224).long()
    assert set(level.tolist()) == {0, 1, 2}
    for row in range(40):
        number = int(level[row])
        image = features[str(number)][row // 25 : row // 25 + 1]
        wanted = roi_align(image, [boxes[row : row + 1]], 7, 1 / STRIDES[number], 2, aligned=True)
        torch.testing.assert_close(pooled[row].view(7, 7, 5), wanted[0].permute(1, 2, 0), atol=1e-4, rtol=1e-4)


def recorded_on_the_cpu(model: nn.Module, example: Tensor) -> Recorded:
    """A recording that computes on fixed memory as a graph does."""
    inputs = example.clone()
    outputs = tuple(output.clone() for output in model(inputs))

    def replay() -> None:
        for kept, output in zip(outputs, model(inputs), strict=True):
            kept.copy_(output)

    return Recorded(inputs, outputs, replay)


@pytest.mark.parametrize("recorder", [None, recorded_on_the_cpu])
def test_fewer_proposals_than_places_are_nobody(recorder: Recorder | None) -> None:
    torch.manual_seed(3)
    model = build_detector(replace(TINY, proposals=500)).eval()
    pixels = torch.rand(2, 3, 64, 96) * 2 - 1
    boxes, scores = DetectorAtOnce(model, recorder)(pixels)
    assert boxes.shape == (2, 500, 4)
    with torch.inference_mode():
        counts = [len(found) for _, found in model(pixels)]
    assert (scores >= 0).sum(1).tolist() == counts
    assert max(counts) < 500
    assert scores.min() == -1


@pytest.mark.parametrize("spread", [3.0, 30.0])
def test_boxes_are_suppressed_as_one_after_the_other(spread: float) -> None:
    """Long chains, too, in which each box covers the next."""
    torch.manual_seed(0)
    corners = torch.rand(5, 60, 2) * spread
    boxes = torch.cat([corners, corners + 10 + torch.rand(5, 60, 2)], 2)
    boxes[4] = torch.arange(60)[:, None] * torch.tensor([2.0, 0.0, 2.0, 0.0]) + torch.tensor([0.0, 0.0, 10.0, 10.0])
    covers = torch.stack([box_iou(image, image) > 0.5 for image in boxes])
    found = keep_uncovered(covers)
    scores = torch.linspace(1, 0.1, 60)
    for image, kept in zip(boxes, found, strict=True):
        wanted = torch.zeros(60, dtype=torch.bool)
        wanted[suppress(image, scores, 0.5)] = True
        assert kept.tolist() == wanted.tolist()
    assert found[4].tolist() == [i % 2 == 0 for i in range(60)]


def test_roi_align_of_no_boxes_has_no_rows() -> None:
    features = {str(i): torch.randn(1, 5, 64 // s, 64 // s) for i, s in enumerate(STRIDES)}
    pooled = PyramidRoIAlign(STRIDES[:3], output=7, samples=2)(features, [torch.zeros(0, 4)])
    assert pooled.shape == (0, 7 * 7 * 5)


def test_folding_the_batch_normalisation_changes_nothing() -> None:
    torch.manual_seed(0)
    net = MobileNetV2Features().eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.7, 1.3)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        _, c4, c3, _ = net(x)
    pyramid = PersonPyramid(8, net).eval()
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in pyramid.modules())
    found = {}
    with torch.no_grad():
        y = x
        for index, block in enumerate(pyramid.blocks):
            y = block(y)
            found[index] = y
    torch.testing.assert_close(found[6], c3, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[13], c4, atol=1e-4, rtol=1e-4)


def test_levels_have_their_strides() -> None:
    levels = PersonPyramid(8)(torch.zeros(1, 3, 64, 128))
    assert [tuple(level.shape) for level in levels.values()] == [(1, 8, 64 // s, 128 // s) for s in STRIDES]


def test_losses_reach_all_layers_but_the_frozen_ones() -> None:
    torch.manual_seed(0)
    model = build_detector(TINY)
    targets = [
        {"boxes": torch.tensor([[10.0, 8, 60, 90]]), "ignore": torch.zeros(0, 4), "doubtful": torch.zeros(0, 4)},
        {
            "boxes": torch.zeros(0, 4),
            "ignore": torch.tensor([[0.0, 0, 64, 96]]),
            "doubtful": torch.tensor([[0.0, 0, 128, 96]]),
        },
    ]
    losses = model(torch.randn(2, 3, 96, 128), targets)
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_class", "loss_box"}
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith(tuple(f"pyramid.blocks.{i}." for i in range(4)))
        assert (parameter.grad is None) == frozen, name
        if parameter.grad is not None:
            assert bool(torch.isfinite(parameter.grad).all()), name


def test_no_background_is_learnt_in_ignored_regions() -> None:
    torch.manual_seed(0)
    model = build_detector(TINY)
    target = {"boxes": torch.zeros(0, 4), "ignore": torch.tensor([[0.0, 0, 128, 96]]), "doubtful": torch.zeros(0, 4)}
    proposals = [torch.tensor([[5.0, 5, 40, 60], [30.0, 10, 80, 90]])]
    assert [len(rows) for rows in model.heads._sample(proposals, [target])[0]] == [0]
    target["ignore"] = torch.tensor([[0.0, 0, 45, 96]])
    boxes, labels, _, _ = model.heads._sample(proposals, [target])
    assert boxes[0].tolist() == [[30.0, 10, 80, 90]]
    assert labels[0].tolist() == [0]


def test_mostly_inside() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [6.0, 0, 16, 10], [4.0, 0, 14, 10]])
    assert mostly_inside(boxes, torch.tensor([[0.0, 0, 10, 10]])).tolist() == [True, False, True]
    assert mostly_inside(boxes, torch.zeros(0, 4)).tolist() == [False] * 3


@pytest.mark.parametrize(
    ("height", "width", "wanted"), [(480, 640, (384, 512)), (640, 480, (512, 384)), (416, 416, (448, 448))]
)
def test_sizes_of_common_frames(height: int, width: int, wanted: tuple[int, int]) -> None:
    assert network_size(height, width, 384 * 512) == wanted


@pytest.mark.parametrize(
    ("height", "width"), [(1080, 1920), (1920, 1088), (994, 1768), (100, 101), (10, 900), (33, 20)]
)
def test_sizes_are_multiples_of_the_stride_near_the_wanted_area(height: int, width: int) -> None:
    rows, columns = network_size(height, width, 384 * 512)
    assert rows % 32 == 0
    assert columns % 32 == 0
    assert 0.8 < rows * columns / (384 * 512) < 1.25
    if 1 / 3 < width / height < 3:
        assert abs(np.log(columns / rows * height / width)) < 0.1


def test_boxes_lie_in_the_image_best_first_and_do_not_depend_on_the_batch(detector: Detector) -> None:
    network = DetectorNetwork(detector)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (60, 90, 3), dtype=np.uint8) for _ in range(3)]
    together = network.detect(images, score=0.0, nms=0.7, max_people=10)
    for image, (boxes, scores) in zip(images, together, strict=True):
        assert boxes.dtype == scores.dtype == np.float32
        assert 0 < len(boxes) <= 10
        assert boxes.shape == (len(scores), 4)
        assert bool((boxes >= 0).all())
        assert bool((boxes <= [90.01, 60.01] * 2).all())
        assert bool((np.diff(scores) <= 0).all())
        alone = network.detect([image], score=0.0, nms=0.7, max_people=10)[0]
        np.testing.assert_allclose(alone[0], boxes, atol=0.01)


def test_the_stem_sees_a_few_images_at_a_time(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(5, 3, 64, 96) * 2 - 1
    counts: list[list[int]] = [[], []]
    blocks = detector.pyramid.blocks
    handles = [
        block.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(len(output)))
        for block, seen in zip((blocks[4], blocks[5]), counts, strict=True)
    ]
    at_once = DetectorAtOnce(detector)
    monkeypatch.setattr("cpnpose.models.cpu_parts._BYTES", 4 * 5 * 64 * 96)
    whole = at_once(images)
    monkeypatch.setattr("cpnpose.models.cpu_parts._BYTES", 4 * (2 * 64 * 96 + 1))
    parts = at_once(images)
    for handle in handles:
        handle.remove()
    assert counts == [[5, 2, 2, 1], [5, 5]]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("recorder", [None, recorded_on_the_cpu])
def test_people_are_those_of_the_network_itself(detector: Detector, recorder: Recorder | None) -> None:
    """All proposals of torchvision's own way: their boxes, their order and their scores."""
    torch.manual_seed(1)
    images = torch.rand(3, 3, 96, 128) * 2 - 1
    found_boxes, found_scores = DetectorAtOnce(detector, recorder)(images)
    with torch.inference_mode():
        wanted = detector(images)
    for boxes, scores, (wanted_boxes, wanted_scores) in zip(found_boxes, found_scores, wanted, strict=True):
        assert len(wanted_scores) == TINY.proposals
        torch.testing.assert_close(boxes, wanted_boxes, atol=1e-2, rtol=1e-4)
        torch.testing.assert_close(scores, wanted_scores, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_anchors_are_exact_whatever_the_network_computes_in(detector: Detector, dtype: torch.dtype) -> None:
    images = torch.zeros(1, 3, 480, 640)
    wanted, _ = DetectorAtOnce(detector)._anchors_of(images)
    found, _ = DetectorAtOnce(detector)._anchors_of(images.to(dtype))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pixels_in_16_bits_are_rounded_once(dtype: torch.dtype) -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    assert torch.equal(normalize(pixels, dtype), normalize(pixels).to(dtype))


def test_the_size_that_images_are_brought_to_can_be_chosen(detector: Detector) -> None:
    seen: list[tuple[int, ...]] = []
    handle = detector.pyramid.blocks[0].register_forward_hook(
        lambda module, inputs, maps: seen.append(tuple(inputs[0].shape[2:]))
    )
    image = np.full((300, 400, 3), 90, np.uint8)
    for size in (None, (192, 256), (64, 64)):
        boxes, _ = DetectorNetwork(detector, size=size).detect([image], score=0.0, nms=1.0)[0]
        assert boxes[:, 2].max() > 300  # in pixels of the image all the same
    handle.remove()
    assert seen == [(96, 128), (192, 256), (64, 64)]


def test_no_people_and_no_images_are_normal(detector: Detector) -> None:
    network = DetectorNetwork(detector)
    assert network.detect([], score=0.5, nms=0.5) == []
    boxes, scores = network.detect([np.zeros((40, 50, 3), np.uint8)], score=1.1, nms=0.5)[0]
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


def test_bfloat16_gives_float32_boxes(detector: Detector) -> None:
    model = build_detector(TINY)
    model.load_state_dict(detector.state_dict())
    boxes, _ = DetectorNetwork(model, dtype=torch.bfloat16).detect(
        [np.full((60, 90, 3), 90, np.uint8)], score=0.0, nms=0.7
    )[0]
    assert boxes.dtype == np.float32
    assert bool(np.isfinite(boxes).all())


def test_weights_file_builds_the_same_network(detector: Detector, tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "detector.safetensors"
    metadata = WeightsMetadata(ARCHITECTURE, (96, 128), kind="detector", config=asdict(TINY))
    save_weights(path, detector.state_dict(), metadata, dtype=torch.float32)
    config = DetectorConfig(**read_metadata(path).config)
    assert config == TINY
    again = build_detector(config)
    load_state(path, again)
    image = [np.full((60, 90, 3), 90, np.uint8)]
    wanted = DetectorNetwork(detector).detect(image, score=0.0, nms=0.7)[0]
    np.testing.assert_array_equal(DetectorNetwork(again).detect(image, score=0.0, nms=0.7)[0][0], wanted[0])
