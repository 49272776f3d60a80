"""RGB images to encoded packets: padding, colour conversion and the encoder's settings."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.codec.context import Flags
from av.container.output import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from cpnpose.errors import OptionError
from cpnpose.media.codecs import VideoCodec
from cpnpose.pose.types import ImageArray

_MAX_TICKS = 1_000_000
"""Finest time base that is asked of a container, in ticks per second."""
_LONGEST_DELAY_S = 3600
"""No encoder reorders frames over more time than this, in seconds."""


class FrameEncoder:
    """The video stream of an output file.

    size: (H, W) of the images; odd ones grow by one repeated row or column where the pixel format needs even sizes.
    time_base: what the frames' times are counted in, if the container can hold it; :attr:`time_base` says what is used.
    Raises :class:`OptionError` where the encoder does not start.
    """

    def __init__(
        self,
        container: OutputContainer,
        path: Path,
        codec: VideoCodec,
        size: tuple[int, int],
        time_base: Fraction,
        fps: Fraction | None,
        threads: int,
    ) -> None:
        self._codec, self._threads = codec, threads
        self._padding = (size[0] % 2, size[1] % 2) if codec.needs_even_size else (0, 0)
        rate = (fps or Fraction(25)).limit_denominator(1001)
        if not 0 < rate <= 1000:
            rate = Fraction(25)
        stream = container.add_stream(codec.encoder, rate=rate, options=dict(codec.options))
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = size[0] + self._padding[0], size[1] + self._padding[1]
        stream.pix_fmt = codec.pixel_format
        self.time_base = _writable_time_base(path, time_base, rate)
        """Seconds per tick of ``pts``."""
        stream.time_base = self.time_base
        context = stream.codec_context
        context.time_base = self.time_base
        context.thread_count = threads
        context.flags |= int(Flags.frame_duration)
        context.thread_type = "AUTO"  # Of frames where the encoder can: PyAV's own choice, slices, compresses worse.
        if codec.needs_even_size:
            context.color_range = int(ColorRange.MPEG)
            context.colorspace = int(Colorspace.ITU709)
            context.color_primaries = int(ColorPrimaries.BT709)
            context.color_trc = int(ColorTrc.BT709)
        if codec.tag is not None:
            context.codec_tag = codec.tag
        try:
            context.open(strict=False)
        except av.error.FFmpegError as error:
            raise OptionError(
                f"{path}: the encoder {codec.encoder} does not start here for {size[1]}x{size[0]} pixels "
                f"({error.strerror}). Choose another codec, or leave the quality number out; h264 works everywhere."
            ) from error
        self._stream = stream
        self._lasting = path.suffix.lower() != ".avi"  # whose frames all last equally long
        self._last = 0, 0
        self._reformatter = VideoReformatter()

    def convert(self, image: ImageArray) -> VideoFrame:
        """``image`` (H, W, 3) uint8 RGB in the encoder's size and colours."""
        bottom, right = self._padding
        if bottom or right:
            image = np.asarray(cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE), dtype=np.uint8)
        frame = VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24")
        return self._with_palette(frame) if self._codec.pixel_format == "pal8" else self._to_yuv(frame)

    def encode(self, frame: VideoFrame, pts: int, shown_s: Fraction | int = 0) -> list[Packet[Any]]:
        """Packets that are ready after a frame of :meth:`convert`, to be shown at ``pts`` for ``shown_s`` seconds (0 =
        not known)."""
        duration = round(shown_s / self.time_base) if self._lasting else 0
        frame.pts, frame.time_base, frame.duration = pts, self.time_base, duration
        self._last = pts, duration
        return self._timed(self._stream.encode(frame))

    def flush(self) -> list[Packet[Any]]:
        """The packets that the encoder still holds; nothing can be encoded afterwards.

        The last frame's duration tells where the video ends: to Matroska by the packet that is shown last, to MP4 by
        the one that is stored last.
        """
        packets = self._timed(self._stream.encode(None))
        last_pts, duration = self._last
        for packet in packets:
            if duration and (packet.pts == last_pts or packet is packets[-1]):
                packet.duration = duration
        return packets

    def _to_yuv(self, rgb: VideoFrame) -> VideoFrame:
        converted = self._reformatter.reformat(
            rgb,
            format=self._codec.pixel_format,
            src_color_range=ColorRange.JPEG,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.BILINEAR,
            threads=self._threads,
        )
        converted.color_primaries, converted.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return converted

    @staticmethod
    def _with_palette(rgb: VideoFrame) -> VideoFrame:
        """The frame in the 256 colours that suit it best (each frame has its own, so that nothing must be kept)."""
        graph = av.filter.Graph()
        source = graph.add_buffer(width=rgb.width, height=rgb.height, format=rgb.format, time_base=Fraction(1, 100))
        split, sink = graph.add("split"), graph.add("buffersink")
        palette = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
        use = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=4")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(palette, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        rgb.pts = 0
        graph.push(rgb)
        graph.push(None)
        converted = graph.pull()
        assert isinstance(converted, VideoFrame)
        return converted

    def _timed(self, packets: list[Packet[Any]]) -> list[Packet[Any]]:
        """The packets with decoding times that a container accepts: x265 leaves those of a video of one or two frames
        uninitialised."""
        for packet in packets:
            pts, dts = packet.pts, packet.dts
            if pts is not None and (dts is None or not 0 <= (pts - dts) * self.time_base <= _LONGEST_DELAY_S):
                packet.dts = pts
        return packets


def _writable_time_base(path: Path, time_base: Fraction, rate: Fraction) -> Fraction:
    """The time base to encode in: the frames' own where the container can hold it."""
    suffix = path.suffix.lower()
    if suffix == ".gif":
        return Fraction(1, 100)
    if suffix == ".avi":
        return 1 / rate
    if time_base.denominator > _MAX_TICKS or time_base <= 0:
        return Fraction(1, 90000)
    return time_base
