"""The mean of weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from cpnpose.cli.main import app
from cpnpose.errors import WeightsError
from cpnpose.models.average import average
from cpnpose.models.foreign import PUBLISHED_PREPROCESSING
from cpnpose.models.weights import WeightsMetadata, load_cpn, read_metadata, save_weights


@pytest.fixture
def other_weights(tiny_weights: Path, tmp_path: Path) -> Path:
    """The tiny network with every entry moved a little."""
    path = tmp_path / "other.safetensors"
    generator = torch.Generator().manual_seed(1)
    state = {
        name: value + 0.1 * torch.rand(value.shape, generator=generator)
        for name, value in load_file(tiny_weights).items()
    }
    save_weights(path, state, replace(read_metadata(tiny_weights), name="other", metrics={"AP": 1.0}), torch.float32)
    return path


def test_every_entry_is_the_mean(tiny_weights: Path, other_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "mean.safetensors"
    made = average([other_weights, tiny_weights, tiny_weights], out)
    one, two, mean = load_file(tiny_weights), load_file(other_weights), load_file(out)
    assert mean.keys() == one.keys()
    for name, value in mean.items():
        wanted = (2 * one[name] + two[name]) / 3
        torch.testing.assert_close(value.float(), wanted, atol=1e-5, rtol=1e-3)  # matrices are stored in float16
    assert read_metadata(out) == made
    assert (made.name, made.metrics) == ("", {})
    assert made.recipe.startswith("mean of other, tiny, tiny")
    model, _ = load_cpn(out)
    assert not model.training


def test_detectors_may_have_been_given_other_thresholds(tiny_weights: Path, tmp_path: Path) -> None:
    state, kept = load_file(tiny_weights), tmp_path / "kept.safetensors"
    for path, config in (
        (kept, {"channels": 8, "score": 0.5}),
        (tmp_path / "x.safetensors", {"channels": 8, "score": 0.7}),
    ):
        save_weights(path, state, WeightsMetadata("faster-rcnn", (64, 64), kind="detector", config=config))
    assert average([kept, path], tmp_path / "mean.safetensors").config == {"channels": 8, "score": 0.5}
    save_weights(path, state, WeightsMetadata("faster-rcnn", (64, 64), kind="detector", config={"channels": 16}))
    with pytest.raises(WeightsError, match="another network"):
        average([kept, path], tmp_path / "mean.safetensors")


def test_only_weights_of_one_network_have_a_mean(tiny_weights: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "mean.safetensors", tmp_path / "x.safetensors"
    state = load_file(tiny_weights)
    save_weights(path, state, replace(read_metadata(tiny_weights), input_size=(128, 96)))
    with pytest.raises(WeightsError, match="another network"):
        average([tiny_weights, path], out)
    other = replace(read_metadata(tiny_weights), preprocessing=PUBLISHED_PREPROCESSING)
    save_weights(path, state, other)
    with pytest.raises(WeightsError, match="another network"):
        average([tiny_weights, path], out)
    save_weights(path, dict(list(state.items())[1:]), read_metadata(tiny_weights))
    with pytest.raises(WeightsError, match=f"other entries than .*{next(iter(state))}"):
        average([tiny_weights, path], out)
    save_weights(path, {"graph": torch.zeros(3, dtype=torch.uint8)}, WeightsMetadata("cpn-int8", (64, 64)))
    with pytest.raises(WeightsError, match="whole numbers"):
        average([path, path], out)
    path.write_bytes(tiny_weights.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged"):
        average([tiny_weights, path], out)
    assert not out.exists()


def test_from_the_command_line(tiny_weights: Path, other_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "mean.safetensors"
    command = ["weights", "average", str(tiny_weights), str(other_weights), "--out", str(out)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "cpn-light, mean of 2" in result.stdout
    assert "--overwrite" in CliRunner().invoke(app, command).stderr
    alone = CliRunner().invoke(app, ["weights", "average", str(tiny_weights), "--out", str(tmp_path / "y.safetensors")])
    assert alone.exit_code == 2
    assert "two or more" in alone.stderr
