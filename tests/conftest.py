"""Networks and frames that are small enough to run anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side, one on each core

import cv2
import numpy as np
import pytest

from cpnpose.pose.types import Frame


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights file of a cpn-light for 64x64 crops with random entries: its keypoints mean nothing, but stay put."""
    import torch

    from cpnpose.models.cpn import CPN, CPNConfig
    from cpnpose.models.weights import WeightsMetadata, save_weights

    torch.manual_seed(7)
    model = CPN(CPNConfig("cpn-light", (64, 64)))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.8, 1.2)
            torch.nn.init.normal_(module.bias, std=0.1)
    torch.nn.init.constant_(model.refine_net.predict[1].weight, 60.0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, model.state_dict(), WeightsMetadata("cpn-light", (64, 64), name="tiny"), torch.float32)
    return path


@pytest.fixture(scope="session")
def make_frames() -> Callable[..., list[Frame]]:
    """A function that draws frames: a bright disc that moves over a pattern, with times of a 25 fps video."""

    def make(count: int, height: int = 48, width: int = 64, first: int = 0) -> list[Frame]:
        y, x = np.mgrid[:height, :width]
        ground = np.stack([(x * 3) % 256, (y * 5) % 256, (x + y) % 256], axis=-1).astype(np.uint8)
        frames = []
        for index in range(first, first + count):
            image = ground.copy()
            cv2.circle(image, ((5 + 3 * index) % width, height // 2), 8, (255, 240, 200), -1)
            frames.append(Frame(index, index * 512, Fraction(1, 12800), index / 25, image))
        return frames

    return make


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """A function that writes a small video with PyAV; every image of it tells its position by its grey level."""
    import av

    rate = 48000

    def play(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float, hertz: float) -> None:
        frame_format = stream.codec_context.format.name
        wave = np.sin(2 * np.pi * hertz / rate * np.arange(int(rate * seconds)))
        samples = (wave * 20000).astype(np.int16) if "s16" in frame_format else wave.astype(np.float32)
        for first in range(0, len(samples), 1024):
            part = np.ascontiguousarray(samples[None, first : first + 1024])
            frame = av.AudioFrame.from_ndarray(part, format=frame_format, layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    def make(
        path: Path,
        *,
        images: list[np.ndarray] | None = None,
        count: int = 10,
        size: tuple[int, int] = (48, 64),
        fps: int = 25,
        times: list[float] | None = None,
        time_base: Fraction = Fraction(1, 12800),
        codec: str = "libx264",
        pixel_format: str = "yuv420p",
        rotation: int = 0,
        mirrored: bool = False,
        aspect: Fraction | None = None,
        audio: tuple[str, ...] = (),
        audio_s: float | None = None,
        matrix: int = 1,
        primaries: int = 1,
        transfer: int = 1,
        color_range: int = 1,
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
    ) -> Path:
        """images: uint8 or uint16 RGB (H, W, 3), or None for ``count`` plain ones of grey level 20 + 7 i.
        rotation: clockwise degrees that a player has to turn the stored picture. times: seconds of each frame."""
        if images is None:
            images = [np.full((*size, 3), 20 + 7 * i % 220, np.uint8) for i in range(count)]
        times = times or [i / fps for i in range(len(images))]
        if path.suffix == ".gif":
            time_base = Fraction(1, 100)
        with av.open(str(path), "w", container_options=container_options or {}) as container:
            default = {"crf": "4", "preset": "veryfast"} if codec in ("libx264", "libx265") else {}
            if codec == "libx265":
                default["x265-params"] = "log-level=none:bframes=0"  # its decoding times of one frame are garbage
            stream = container.add_stream(codec, rate=fps, options=default | (options or {}))
            stream.height, stream.width = images[0].shape[:2] if images else size
            stream.pix_fmt, stream.time_base = pixel_format, time_base
            context = stream.codec_context
            context.time_base = time_base
            context.colorspace, context.color_primaries = matrix, primaries
            context.color_trc, context.color_range = transfer, color_range
            if aspect is not None:
                context.sample_aspect_ratio = aspect
            if rotation or mirrored:
                stream.set_display_rotation(-rotation, hflip=mirrored)
            tracks = [container.add_stream(name, rate=rate, layout="mono") for name in audio]
            container.start_encoding()
            for number, track in enumerate(tracks):
                seconds = audio_s if audio_s is not None else (times[-1] + 1 / fps if times else 1.0)
                play(container, track, seconds, 440.0 * (number + 1))
            for image, time in zip(images, times, strict=True):
                kind = "rgb48le" if image.dtype == np.uint16 else "rgb24"
                frame = av.VideoFrame.from_ndarray(image, format=kind)
                # 1, 5 and 9 mean the same matrix for swscale and in the tags.
                frame = frame.reformat(
                    format=pixel_format, dst_colorspace=matrix, src_color_range=2, dst_color_range=color_range
                )
                frame.pts, frame.time_base = round(Fraction(time) / time_base), time_base
                frame.colorspace, frame.color_range = matrix, color_range
                frame.color_primaries, frame.color_trc = primaries, transfer
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make
