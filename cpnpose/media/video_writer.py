"""Writing videos: the frames' own timestamps, the input's audio, and a final name only when the file is whole."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container.output import OutputContainer
from av.video.frame import VideoFrame

from cpnpose.errors import OptionError, OutputError
from cpnpose.media.atomic import check_output, publish
from cpnpose.media.audio import AudioCarrier
from cpnpose.media.codecs import choose_codec
from cpnpose.media.encode import FrameEncoder
from cpnpose.media.frame_grid import LIP_SYNC_S, grid_rate
from cpnpose.media.source import is_live
from cpnpose.pose.types import Frame, ImageArray
from cpnpose.whole_file import remove_stale, temporary_path, write_error

_QUICKEST_GIF_S = Fraction(2, 100)
"""Browsers show frames of a GIF that are shorter than this for 0.1 s."""
_FAILURES = (av.error.FFmpegError, OSError, ValueError)


class VideoWriter:
    """Encodes frames to a file that plays everywhere (H.264, yuv420p, BT.709, index in front), with the input's audio.

    Each frame keeps its own timestamp, and the last one its duration; in AVI, which has neither, it stands at the
    nearest place of a constant frame rate: the source's own, or a higher one where its frames come unevenly. With
    audio, time 0 of the output is ``start`` on the input's clock; without, it is the first frame. Odd sizes grow by one
    row or column of repeated pixels. The file is written under a temporary name in the same folder and gets its name in
    :meth:`close`; :meth:`abort` removes it. A context manager: an error aborts, KeyboardInterrupt closes with what was
    written up to there.

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
        chosen = choose_codec(self.path, codec, crf, preset)
        check_output(self.path, source, overwrite)
        self._overwrite, self._size = overwrite, size
        remove_stale(self.path)
        self._temporary = temporary_path(self.path)
        self._origin: Fraction | None = None
        self._last_pts: int | None = None
        self._audio: AudioCarrier | None = None
        self._container: OutputContainer | None = None
        self._late, self._slowed = Fraction(0), False
        if self.path.suffix.lower() == ".avi" and source is not None:
            fps = grid_rate(source, start, end, fps)
        try:
            self._container = self._open()
            self._encoder = FrameEncoder(self._container, self.path, chosen, size, time_base, fps, threads)
            if source is not None:
                self._add_audio(self._container, source, start, end)
            self._container.start_encoding()
        except _FAILURES as error:
            self.abort()
            if isinstance(error, ValueError) and not isinstance(error, av.error.FFmpegError):
                raise OptionError(f"{self.path}: {error}. Choose another codec or file ending.") from error
            raise write_error(self.path, error) from error
        except BaseException:
            self.abort()
            raise

    def _open(self) -> OutputContainer:
        suffix = self.path.suffix.lower()
        options = {"movflags": "+faststart"} if suffix in (".mp4", ".m4v", ".mov") else {}
        if suffix == ".avi":  # Sound that begins before 0 (AAC does) would put an empty place before the first frame.
            options = {"avoid_negative_ts": "disabled"}
        self._temporary.touch(exist_ok=False)
        return av.open(f"file:{self._temporary}", "w", container_options=options)

    def _add_audio(self, container: OutputContainer, source: str | Path, start: float, end: float | None) -> None:
        if is_live(source):
            self.notes.append("the sound of a live stream or pipe is not recorded")
            return
        audio = AudioCarrier(source, container, self.path, start, end)
        self.notes += audio.notes
        audio.notes = self.notes
        if audio:
            self._audio, self._origin = audio, audio.origin
        else:
            audio.close()

    def convert(self, image: ImageArray) -> VideoFrame:
        """``image`` (H, W, 3) uint8 RGB of the size given at the start, as :meth:`write` takes it, too: half of the
        work of writing, for another thread. One thread at a time may call this."""
        if image.shape != (*self._size, 3) or image.dtype != np.uint8:
            raise ValueError(f"image is {image.dtype} {image.shape}, not uint8 {(*self._size, 3)}")
        try:
            return self._encoder.convert(image)
        except _FAILURES as error:
            raise write_error(self.path, error) from error

    def write(self, frame: Frame, image: ImageArray | VideoFrame) -> None:
        """Add ``image`` (H, W, 3) uint8 RGB of the size given at the start, or what :meth:`convert` made of it, shown
        at the time of ``frame``.

        Raises :class:`OutputError` when the disk is full or the encoder fails; the file is then gone.
        """
        if self._container is None:
            raise OutputError(f"{self.path}: is closed already. Open a new writer.")
        picture = image if isinstance(image, VideoFrame) else self.convert(image)
        time = frame.pts * frame.time_base
        if self._origin is None:
            self._origin = time
        pts = round((time - self._origin) / self._encoder.time_base)
        if self._last_pts is not None:
            pts = max(pts, self._last_pts + 1)
            self._slowed |= (pts - self._last_pts) * self._encoder.time_base < _QUICKEST_GIF_S
        self._last_pts = pts
        self._late = max(self._late, pts * self._encoder.time_base - (time - self._origin))
        shown_s = 0 if frame.duration is None else frame.duration * frame.time_base
        try:
            packets = self._encoder.encode(picture, pts, shown_s)
            if self._audio is not None:
                self._audio.advance(pts * self._encoder.time_base)
            self._container.mux(packets)
        except _FAILURES as error:
            self.abort()
            raise write_error(self.path, error) from error
        self.frames_written += 1

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
            self._container.mux(self._encoder.flush())
            if self._audio is not None:
                self._audio.finish()
            self._container.close()
            self._container = None
        except _FAILURES as error:
            self.abort()
            raise write_error(self.path, error) from error
        except BaseException:
            self.abort()
            raise
        self._close_audio()
        if self._slowed and self.path.suffix.lower() == ".gif":
            self.notes.append(
                "browsers show this GIF too slowly: frames of less than 0.02 s stay for 0.1 s there. Take every second "
                "or third frame (--every), or end the name with .mp4"
            )
        elif self._late > max(Fraction(LIP_SYNC_S), self._encoder.time_base):
            self.notes.append(
                f"pictures come up to {float(self._late):.1f} s late: they are quicker than the frame rate of "
                f"{self.path.suffix}, which is constant. End the name with .mp4 or .mkv to keep each frame's time"
            )
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
