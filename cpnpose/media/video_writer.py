"""Writing videos: the frames' own timestamps, the input's audio, and a final name only when the file is whole."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import cv2
import numpy as np
from av.container.output import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from cpnpose.errors import CpnposeError, OptionError, OutputError
from cpnpose.media.atomic import check_output, output_error, publish, temporary_path
from cpnpose.media.audio import AudioCarrier
from cpnpose.media.codecs import VideoCodec, choose_codec
from cpnpose.media.source import is_live
from cpnpose.pose.types import Frame, ImageArray

_MAX_TICKS = 1_000_000
"""Finest time base that is asked of a container, in ticks per second."""
_FAILURES = (av.error.FFmpegError, OSError, ValueError)


class VideoWriter:
    """Encodes frames to a file that plays everywhere (H.264, yuv420p, BT.709, index in front), with the input's audio.

    Each frame keeps its own timestamp. With audio, time 0 of the output is ``start`` on the input's clock; without,
    it is the first frame. Odd sizes grow by one row or column of repeated pixels. The file is written under a
    temporary name in the same folder and gets its name in :meth:`close`; :meth:`abort` removes it.
    A context manager: an error aborts, KeyboardInterrupt closes with what was written up to there.

    path: .mp4, .m4v, .mov, .mkv, .webm, .avi or .gif. size: (H, W) of the images. time_base: seconds per tick of the
    frames' ``pts``. source: where the audio comes from, or None. start, end: the part of the source that is written,
    in seconds. codec: h264, hevc, av1, vp9 or an encoder of FFmpeg such as h264_nvenc; None goes by the file's ending.
    crf: the codec's quality number, None for a good one. preset: the codec's speed, None for a fast one. threads: of
    the encoder, 0 = its own choice. fps: nominal frame rate, for the codec's rate control.
    Raises :class:`OutputError` where the file cannot be written, :class:`OptionError` for a codec that does not exist.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        size: tuple[int, int],
        time_base: Fraction,
        source: str | Path | None = None,
        start: float = 0.0,
        end: float | None = None,
        codec: str | None = None,
        crf: int | None = None,
        preset: str | None = None,
        threads: int = 0,
        overwrite: bool = False,
        fps: Fraction | None = None,
    ) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        """What differs from the input and the user should know, in plain words."""
        self.frames_written = 0
        self._codec = choose_codec(self.path, codec, crf, preset)
        check_output(self.path, source, overwrite)
        self._overwrite, self._size, self._threads = overwrite, size, threads
        self._temporary = temporary_path(self.path)
        self._reformatter = VideoReformatter()
        self._origin: Fraction | None = None
        self._last_pts: int | None = None
        self._audio: AudioCarrier | None = None
        self._container: OutputContainer | None = None
        even = self._codec.needs_even_size
        self._padding = (size[0] % 2, size[1] % 2) if even else (0, 0)
        try:
            self._container = self._open()
            self._stream = self._add_video(self._codec, time_base, fps or Fraction(25))
            self._start_encoder()
            if source is not None:
                self._add_audio(source, start, end)
            self._container.start_encoding()
        except _FAILURES as error:
            self.abort()
            if isinstance(error, ValueError) and not isinstance(error, av.error.FFmpegError):
                raise OptionError(f"{self.path}: {error}. Choose another codec or file ending.") from error
            raise self._explain(error) from error
        except BaseException:
            self.abort()
            raise

    def _open(self) -> OutputContainer:
        options = {"movflags": "+faststart"} if self.path.suffix.lower() in (".mp4", ".m4v", ".mov") else {}
        self._temporary.touch(exist_ok=False)
        return av.open(f"file:{self._temporary}", "w", container_options=options)

    def _add_video(self, codec: VideoCodec, time_base: Fraction, fps: Fraction) -> VideoStream:
        assert self._container is not None
        height, width = self._size[0] + self._padding[0], self._size[1] + self._padding[1]
        rate = fps.limit_denominator(1001)
        if not 0 < rate <= 1000:
            rate = Fraction(25)
        stream = self._container.add_stream(codec.encoder, rate=rate, options=dict(codec.options))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, codec.pixel_format
        base = _writable_time_base(self.path, time_base, rate)
        stream.time_base = base
        context = stream.codec_context
        context.time_base = base
        context.thread_count = self._threads
        if codec.needs_even_size:
            context.color_range = int(ColorRange.MPEG)
            context.colorspace = int(Colorspace.ITU709)
            context.color_primaries = int(ColorPrimaries.BT709)
            context.color_trc = int(ColorTrc.BT709)
        if codec.tag is not None:
            context.codec_tag = codec.tag
        self._time_base = base
        return stream

    def _start_encoder(self) -> None:
        encoder = self._codec.encoder
        try:
            self._stream.codec_context.open(strict=False)
        except av.error.FFmpegError as error:
            raise OptionError(
                f"{self.path}: the encoder {encoder} does not start here for {self._size[1]}x{self._size[0]} pixels "
                f"({error.strerror}). Choose another codec; h264 works everywhere."
            ) from error

    def _add_audio(self, source: str | Path, start: float, end: float | None) -> None:
        assert self._container is not None
        if is_live(source):
            self.notes.append("the sound of a live stream is not recorded")
            return
        audio = AudioCarrier(source, self._container, self.path, start, end)
        self.notes += audio.notes
        audio.notes = self.notes
        if audio:
            self._audio, self._origin = audio, audio.origin
        else:
            audio.close()

    def write(self, frame: Frame, image: ImageArray) -> None:
        """Add ``image`` (H, W, 3) uint8 RGB of the size given at the start, shown at the time of ``frame``.

        Raises :class:`OutputError` when the disk is full or the encoder fails; the file is then gone.
        """
        if self._container is None:
            raise OutputError(f"{self.path}: is closed already. Open a new writer.")
        if image.shape != (*self._size, 3) or image.dtype != np.uint8:
            raise ValueError(f"image is {image.dtype} {image.shape}, not uint8 {(*self._size, 3)}")
        time = frame.pts * frame.time_base
        if self._origin is None:
            self._origin = time
        pts = round((time - self._origin) / self._time_base)
        if self._last_pts is not None and pts <= self._last_pts:
            pts = self._last_pts + 1
        self._last_pts = pts
        try:
            encoded = self._stream.encode(self._to_video_frame(image, pts))
            self._mux(encoded, pts * self._time_base)
        except _FAILURES as error:
            self.abort()
            raise self._explain(error) from error
        self.frames_written += 1

    def _to_video_frame(self, image: ImageArray, pts: int) -> VideoFrame:
        bottom, right = self._padding
        if bottom or right:
            image = np.asarray(cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE), dtype=np.uint8)
        rgb = VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24")
        converted = self._reformatter.reformat(
            rgb,
            format=self._codec.pixel_format,
            src_color_range=ColorRange.JPEG,
            dst_colorspace=Colorspace.ITU709 if self._codec.needs_even_size else None,
            dst_color_range=ColorRange.MPEG if self._codec.needs_even_size else None,
            interpolation=Interpolation.BILINEAR,
            threads=self._threads,
        )
        converted.pts, converted.time_base = pts, self._time_base
        converted.color_primaries, converted.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return converted

    def _mux(self, packets: list[Packet[Any]], until: Fraction | None) -> None:
        assert self._container is not None
        if self._audio is not None:
            self._audio.advance(until)
        self._container.mux(packets)

    def close(self, *, cut_audio: bool = False) -> None:
        """Finish the file and give it its name. cut_audio: end the sound with the last picture, for a run that was
        stopped early. Without a single frame nothing is left behind. May be called twice."""
        if self._container is None:
            return
        if self.frames_written == 0:
            self.abort()
            return
        try:
            if self._audio is not None and not cut_audio:
                self._audio.advance(None)
            self._mux(self._stream.encode(None), Fraction(0))
            if self._audio is not None:
                self._audio.finish()
            self._container.close()
            self._container = None
        except _FAILURES as error:
            self.abort()
            raise self._explain(error) from error
        except BaseException:
            self.abort()
            raise
        self._close_audio()
        publish(self._temporary, self.path, self._overwrite)

    def abort(self) -> None:
        """Stop, and remove what was written."""
        container, self._container = self._container, None
        self._close_audio()
        try:
            if container is not None:
                container.close()
        except _FAILURES:
            pass  # The file is thrown away in the next line.
        finally:
            self._temporary.unlink(missing_ok=True)

    def _close_audio(self) -> None:
        if self._audio is not None:
            self._audio.close()
            self._audio = None

    def _explain(self, error: Exception) -> CpnposeError:
        return output_error(self.path, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif isinstance(error, KeyboardInterrupt):
            self.close(cut_audio=True)
        else:
            self.abort()


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
