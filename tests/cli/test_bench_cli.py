from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cpnpose.cli.main import app

SMALL = ["--architecture", "cpn-light", "--size", "64x64", "--batch", "2", "--limit", "0.1", "--device", "cpu"]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)], catch_exceptions=False)


def test_bench_prints_json_and_tells_notes(clip: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = "--precision fp32 has no effect on the detector, which is int8"
    monkeypatch.setattr("cpnpose.api.check_precision", lambda name, formats: [note])
    result = run(*SMALL, "--video", clip, "--weights", tiny_weights, "--detector", "none", "--frames", "4", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert set(report) == {"machine", "pipeline", "network", "decoding", "detector"}
    assert report["pipeline"]["frames"] == 4
    assert report["pipeline"]["notes"] == [note]
    assert result.stderr == f"cpnpose: {note}\n"
    assert report["pipeline"]["peak_memory_bytes"]["process"] > 1e7
    assert report["network"]["input_size"] == [64, 64]
    names = [[row["form"] for row in report["network"][key]] for key in ("forms", "forms_with_freed_memory_kept")]
    assert names[0] == names[1]
    assert names[0][0] == "plain float32"
    assert len(report["detector"]) == 2
    assert report["detector"][0]["times_the_first"] == 1


def test_bench_shows_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    import cpnpose.bench

    forms = [{"form": "plain float32", "ms_per_crop": 12.3}]
    report = {
        "machine": {"torch": "2"},
        "network": {
            "architecture": "cpn50",
            "input_size": [256, 192],
            "batch": 16,
            "forms": forms,
            "forms_with_freed_memory_kept": [{"form": "plain float32", "ms_per_crop": 7.89}],
            "matrix_units": {"gflop_per_crop": 11.8, "tflops": 1.5, "used_tflops": 0.33, "share": 0.217},
        },
        "decoding": {"people": 64, "network_ms": 99.5, "dark_ms": 1.25, "published_ms": 2.5, "published_loop_ms": 33.0},
        "detector": [{"detector": "own", "ms_per_image": 5.0}],
        "pipeline": {
            "notes": ["has no effect"],
            "stages": [{"stage": "draw", "items": 1}],
            "peak_memory_bytes": {},
            "cores": 2,
        },
        "peers": [{"network": "other", "ms_per_frame": 345.6}],
    }
    monkeypatch.setattr(cpnpose.bench, "bench", lambda options: report)
    result = run()
    assert result.exit_code == 0
    for text in (
        "cpn50 256x192, batch 16",
        "12.3",
        "freed memory kept",
        "7.89",
        "arithmetic",
        "│ published loop │   33 │",
        "0.217",
        "heatmaps of 64 people",
        "1.25",
        "other networks",
        "346",
    ):
        assert text in result.stdout
    assert "has no effect" in result.stderr
    assert "has no effect" not in result.stdout


def test_without_a_video_what_chooses_its_networks_is_refused() -> None:
    result = run(*SMALL, "--weights", "int8.safetensors", "--flip")
    assert result.exit_code == 2
    assert "error: --weights and --flip have no effect: what is measured without a video" in result.stderr
    assert "--video" in result.stderr


@pytest.mark.parametrize("size", ["256", "axb", "100x64"])
def test_bench_refuses_a_wrong_size(size: str) -> None:
    result = run("--size", size)
    assert result.exit_code == 2
    assert "--size" in result.output
