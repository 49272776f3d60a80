"""A detector with its convolutions in int8: how near it is to the one that it was made of, and what it cannot do."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from cpnpose.cli.main import app
from cpnpose.errors import OptionError, WeightsError
from cpnpose.models.average import average
from cpnpose.models.detect_batch import DetectorNetwork
from cpnpose.models.detector import ARCHITECTURE, Detector, DetectorConfig, build_detector, normalize
from cpnpose.models.int8 import Int8Graph
from cpnpose.models.int8_detector import ARCHITECTURE as INT8
from cpnpose.models.int8_detector import HEAD, PYRAMID, load_int8_detector
from cpnpose.models.manifest import load_manifest
from cpnpose.models.publish import add_weights
from cpnpose.models.quantize import quantize_detector
from cpnpose.models.weights import WeightsMetadata, load_entries, read_metadata, save_weights
from cpnpose.pipeline.load_detector import load_detector
from cpnpose.pose.types import ImageArray
from cpnpose.training.run import check_initial

pytest.importorskip("nncf", reason="needs the extra 'quantize'")

TINY = DetectorConfig(channels=16, hidden=32, proposals=20, input_pixels=96 * 128, score=0.3, track_score=0.4, nms=0.6)


def pictures(count: int, seed: int = 0) -> list[ImageArray]:
    """Smooth random pictures (90, 130, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return [np.asarray(cv2.resize(image, (130, 90)), np.uint8) for image in coarse]


def scale(layer: nn.Conv2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
    """Give what a random layer answers a deviation of 1, so that nothing grows or vanishes from layer to layer."""
    layer.weight /= output.std()
    return output / output.std()


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    model = build_detector(TINY).eval()
    hooks = [layer.register_forward_hook(scale) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        model.rpn.head(list(model.pyramid(normalize(torch.from_numpy(np.stack(pictures(4))[:, :64, :128]))).values()))
    for hook in hooks:
        hook.remove()
    return model


@pytest.fixture(scope="module")
def files(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The weights and their int8 form."""
    folder = tmp_path_factory.mktemp("detectors")
    source, made = folder / "tiny.safetensors", folder / "tiny-int8.safetensors"
    metadata = WeightsMetadata(
        ARCHITECTURE, (96, 128), name="tiny", kind="detector", config=asdict(TINY), metrics={"AP": 1}
    )
    save_weights(source, detector.state_dict(), metadata, dtype=torch.float32)
    quantize_detector(source, pictures(6), made)
    return source, made


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Root mean square, relative to the deviation of what is wanted."""
    return float((found - wanted).square().mean().sqrt() / (wanted - wanted.mean()).square().mean().sqrt())


def test_levels_and_proposals_are_those_of_the_float_network_up_to_rounding(
    detector: Detector, files: tuple[Path, Path]
) -> None:
    rounded = load_int8_detector(files[1], TINY)
    for size in ((96, 128), (64, 192)):  # a video's size is not known beforehand
        images = normalize(torch.from_numpy(np.stack([cv2.resize(p, size[::-1]) for p in pictures(2, seed=1)])))
        with torch.inference_mode():
            levels, found = detector.pyramid(images), rounded.pyramid(images)
            assert list(found) == list(levels)
            heads = [detector.rpn.head(list(levels.values())), rounded.rpn.head(list(levels.values()))]
        for name, level in levels.items():
            assert found[name].shape == level.shape
            assert 0.001 < error(found[name], level) < 0.6  # 50 layers of random weights; of another level it is 1.4
        for wanted, other in zip(*heads, strict=True):
            assert [part.shape for part in other] == [part.shape for part in wanted]
            assert all(error(*pair) < 0.15 for pair in zip(other, wanted, strict=True))


def test_it_takes_upright_pictures_of_a_telephone(files: tuple[Path, Path]) -> None:
    rounded = load_int8_detector(files[1], TINY)
    with torch.inference_mode():
        levels = rounded.pyramid(torch.zeros(1, 3, 736, 416))
    assert levels["0"].shape == (1, TINY.channels, 92, 52)
    graph = rounded.pyramid.graph
    assert isinstance(graph, Int8Graph)
    (compiled,) = graph._compiled.values()  # with an open height OpenVINO 2026.4 ends the process on AMX
    assert [dimension.is_static for dimension in compiled.input().partial_shape] == [False, True, True, True]


def test_the_box_head_and_the_thresholds_stay(detector: Detector, files: tuple[Path, Path]) -> None:
    rounded = load_int8_detector(files[1], TINY)
    for name, value in detector.heads.state_dict().items():
        torch.testing.assert_close(rounded.heads.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    loaded = load_detector(weights=files[1])
    assert (loaded.name, loaded.score, loaded.track_score, loaded.nms) == ("tiny-int8", 0.3, 0.4, 0.6)


def test_it_finds_boxes_in_a_batch_as_alone(files: tuple[Path, Path]) -> None:
    find = load_detector(weights=files[1], score=0.0, nms=1.0, precision="bf16")
    assert isinstance(find.network, DetectorNetwork)
    assert find.network.dtype == torch.float32
    assert find.network.number_format == "int8"
    images = pictures(3, seed=2)
    together = find(images)
    for image, people in zip(images, together, strict=True):
        (alone,) = find([image])
        assert len(alone) == len(people) > 0
        np.testing.assert_allclose(people.boxes_xyxy, alone.boxes_xyxy, atol=1e-3)


def test_the_file_says_what_it_is(files: tuple[Path, Path]) -> None:
    made = read_metadata(files[1])
    assert (made.name, made.kind, made.metrics) == ("tiny-int8", "detector", {})
    assert f"tiny ({ARCHITECTURE}) quantized on 6 images" in made.recipe
    assert DetectorConfig(**made.config) == TINY
    with pytest.raises(WeightsError, match="is int8 already"):
        quantize_detector(files[1], pictures(1), files[1].with_name("again.safetensors"))


def test_what_it_cannot_do_and_damage_are_told(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match="runs on the CPU"):
        load_detector(weights=files[1], device=torch.device("meta"))
    entries = load_entries(files[1])
    metadata = read_metadata(files[1])
    for lost, message in ((PYRAMID, "holds no int8 network"), (HEAD, "holds no int8 network"), ("heads.", "missing")):
        left = {name: value for name, value in entries.items() if not name.startswith(lost)}
        save_weights(tmp_path / "damaged.safetensors", left, metadata)
        with pytest.raises(WeightsError, match=message):
            load_detector(weights=tmp_path / "damaged.safetensors")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(OptionError, match=r"pip install 'cpnpose\[int8\]'"):
        load_detector(weights=files[1])


def test_from_the_command_line(files: tuple[Path, Path], tiny_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(pictures(4)):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    out = tmp_path / "mine.safetensors"
    command = ["weights", "quantize", str(files[0]), str(folder), "--out", str(out), "--count", "3"]
    result = CliRunner().invoke(app, [*command, "--detector", "none"])
    assert result.exit_code == 2, result.output
    assert "--detector has no effect" in result.stderr
    assert not out.exists()
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "tiny-int8, int8" in result.stdout
    assert "from 3 images" in result.stdout
    assert "evaluate-boxes --detector-weights" in result.stderr
    networks = ["--weights", str(tiny_weights), "--detector-weights", str(out), "--score", "0"]
    result = CliRunner().invoke(app, ["images", str(folder), "--json", "--out", str(tmp_path / "poses"), *networks])
    assert result.exit_code == 0, result.output
    described = json.loads((tmp_path / "poses.json").read_text())["model"]["detector"]
    assert (described["name"], described["precision"]) == ("mine", "int8")


def test_a_number_format_that_would_not_be_used_is_refused_and_one_for_the_pose_network_is_told(
    files: tuple[Path, Path], tiny_weights: Path, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), pictures(1)[0])
    image = {"id": 1, "file_name": "1.png", "width": 130, "height": 90}
    points = [20, 20, 2] * 17
    person = {"id": 1, "image_id": 1, "bbox": [5, 5, 50, 50], "area": 2500, "category_id": 1, "keypoints": points}
    (tmp_path / "truth.json").write_text(json.dumps({"images": [image], "annotations": [person]}))
    annotated = ["--annotations", str(tmp_path / "truth.json"), "--data", str(tmp_path), "--precision", "fp32"]
    networks = ["--detector-weights", str(files[1])]
    result = CliRunner().invoke(app, ["evaluate-boxes", *annotated, *networks])
    assert result.exit_code == 2, result.output
    assert "error: --precision fp32 has no effect on the detector, which is int8; leave it out" in result.stderr
    networks += ["--weights", str(tiny_weights), "--boxes", "detector"]
    result = CliRunner().invoke(app, ["evaluate", *annotated, *networks])
    assert result.exit_code == 0, result.output
    assert result.stderr == "cpnpose: --precision fp32 has no effect on the detector, which is int8\n"


def test_it_is_registered_and_used_by_its_name(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = load_manifest(tmp_path)
    add_weights(manifest, files[1])
    monkeypatch.setattr("cpnpose.models.manifest.shipped_folder", lambda: tmp_path)
    for name in ("tiny-int8", "default"):
        assert load_detector(name).network.number_format == "int8"


def test_there_is_nothing_to_train_on(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"tiny-int8.safetensors holds {INT8}, and {ARCHITECTURE} is trained"):
        check_initial(files[1], ARCHITECTURE)
    assert check_initial(files[0], ARCHITECTURE) == files[0]
    with pytest.raises(WeightsError, match="holds whole numbers, which have no mean"):
        average([files[1], files[1]], tmp_path / "mean.safetensors")
