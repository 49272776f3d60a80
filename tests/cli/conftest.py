"""Clips and images for the commands, and a way to run them."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cpnpose.pose.types import Frame

Run = Callable[..., Any]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory, make_frames: Callable[..., list[Frame]]) -> Path:
    """A video of 12 frames, 64 x 48 pixels, with uneven times."""
    from cpnpose.media.video import VideoWriter

    path = tmp_path_factory.mktemp("clip") / "in.mp4"
    ticks = np.cumsum([0, 512, 512, 1024, 512, 256, 512, 2048, 512, 512, 768, 512])
    with VideoWriter(path, size=(48, 64), time_base=Fraction(1, 12800), fps=Fraction(25)) as writer:
        for frame, pts in zip(make_frames(12), ticks.tolist(), strict=True):
            writer.write(Frame(frame.index, pts, frame.time_base, pts / 12800, frame.image), frame.image)
    return path


@pytest.fixture
def odd_name(tmp_path: Path) -> Callable[[str], str]:
    """A function that gives a file's ending a name that is no UTF-8; skips where file systems know none."""
    try:
        os.close(os.open(os.fsencode(tmp_path / "odd") + b"\xff", os.O_CREAT))
        os.unlink(os.fsencode(tmp_path / "odd") + b"\xff")
    except (OSError, ValueError):
        pytest.skip("this file system takes only UTF-8")
    return lambda suffix: os.fsdecode(b"\xff" + suffix.encode())


@pytest.fixture
def cpnpose(tiny_weights: Path) -> Run:
    """Runs a command with the tiny network, on the CPU, with the whole image as one person's box."""
    from cpnpose.cli.main import app

    def run(*arguments: object, networks: bool = True) -> Any:
        added = ["--weights", str(tiny_weights), "--detector", "none", "--device", "cpu"] if networks else []
        return CliRunner().invoke(app, [*map(str, arguments), *added], catch_exceptions=False)

    return run
