"""Opening files and addresses with FFmpeg, and saying plainly why one cannot be opened."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.container.input import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from cpnpose.errors import InputError, OptionError
from cpnpose.media.pipe import Pipe, interruptible
from cpnpose.media.rational import fraction

_TOLERANT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
"""A tag that is no UTF-8 is no reason not to read a file; from version 19 on, PyAV reads every tag as it is."""
_TIMEOUTS_S = (20.0, 10.0)
"""For opening an address, and for each reading from it."""
_NO_TIMESTAMPS = 0x80
"""FFmpeg's AVFMT_NOTIMESTAMPS, a flag of formats."""
_LIVE = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt", "rist", "mms", "mmsh")


def is_address(source: str | Path) -> bool:
    """Whether the source is an address (``scheme://...``) rather than a path."""
    return isinstance(source, str) and "://" in source


def is_live(source: str | Path) -> bool:
    """Whether the source is a stream that cannot be read a second time from its beginning: an address of such a kind,
    or a pipe."""
    if is_address(source):
        return str(source).split("://", 1)[0].lower() in _LIVE
    return Path(source).is_fifo()


def is_stored(source: str | Path) -> bool:
    """Whether the source can be read again and again at little cost: a file, no address and no pipe."""
    return not is_address(source) and not is_live(source)


def check_hwaccel(name: str) -> None:
    """Raises:
    OptionError: FFmpeg knows no such kind of device."""
    known = sorted(hwdevices_available())
    if name not in known:
        raise OptionError(f"--hwaccel {name}: is no device that this FFmpeg knows. Use one of: {', '.join(known)}")


def check_file(source: str | Path) -> None:
    """Raises:
    InputError: there is no such file, or one that cannot be a video."""
    path = Path(source)
    if not path.exists():
        raise InputError(f"{source}: no such file. Check the path.")
    if path.is_dir():
        raise InputError(f"{source}: is a folder, not a video. Name the files in it.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{source}: may not be read. Check its permissions.")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{source}: is empty (0 bytes). Check that it was copied whole.")


def open_pipe(source: str | Path) -> Pipe | None:
    """The pipe that the source is, or None where it is none. Raises :class:`InputError`."""
    if is_address(source) or not is_live(source):
        return None
    try:
        return Pipe(source)
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}). Check the pipe.") from error


def open_input(
    source: str | Path, hwaccel: str | None = None, *, low_delay: bool = False, pipe: Pipe | None = None
) -> InputContainer:
    """Open a file or address for reading, or ``pipe``, which is the source. Raises :class:`InputError`, and whatever
    PyAV raises for a bad hwaccel."""
    name, timeout = str(source), None
    # PyAV has FFmpeg guess missing presentation times from the next packet: H.264 in AVI then comes a frame late.
    options = {"fflags": "-genpts"}
    if is_address(source):
        timeout = _TIMEOUTS_S
        if name.lower().startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        if low_delay:
            options |= {"fflags": "-genpts+nobuffer", "flags": "low_delay"}
    else:
        check_file(source)
        name = f"file:{Path(source)}"
    device = None if hwaccel is None else HWAccel(hwaccel, allow_software_fallback=True)
    try:
        with interruptible():
            container: InputContainer = av.open(
                pipe or name, options=options, timeout=timeout, hwaccel=device, **_TOLERANT
            )
        return container
    except av.error.FFmpegError as error:
        remedy = (
            "Check the address and that it is reachable." if is_address(source) else "Check that the file is whole."
        )
        reason = reason_of(error)
        raise InputError(f"{source}: is no video that FFmpeg can read ({reason}). {remedy}") from error


def close_input(container: InputContainer, stream: VideoStream) -> None:
    """Release the container and the decoder of its stream.

    PyAV takes a decoder down without letting go of Python's lock. Where PyAV's log is on (torchvision before 0.26 turns
    it on), a thread of the decoder that has something to tell waits for that lock, and the decoder for the thread, for
    ever. So the threads end their work before, while the lock is free.
    """
    stream.codec_context.flush_buffers()
    container.close()


def reason_of(error: av.error.FFmpegError) -> str:
    """Why reading failed, in words that mean something to a user."""
    if isinstance(error, av.error.ExitError):  # FFmpeg's "Immediate exit requested": PyAV's time limit
        return "nothing came for too long"
    return error.strerror or type(error).__name__


def pick_video(container: InputContainer, source: str | Path) -> VideoStream:
    """The container's video stream (the first of the largest, cover pictures aside); other streams are switched off.
    Raises :class:`InputError` where there is none."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise InputError(f"{source}: holds no video. Give a file with pictures in it.")
    usable = [s for s in streams if s.codec_context is not None]
    if not usable:
        raise InputError(f"{source}: its video format is not known to this FFmpeg. Convert it to H.264 first.")
    best = max(usable, key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height))
    for stream in container.streams:
        if stream.index != best.index:
            stream.discard = Discard.all
    return best


def rate_of(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Frames per second, None where nothing tells it. The average of a raw stream (.h264), which has no times, is what
    FFmpeg takes for want of one; what its pictures say is then true."""
    rates = stream.average_rate, stream.guessed_rate
    if container.format.flags & _NO_TIMESTAMPS:
        rates = rates[::-1]
    return fraction(rates[0]) or fraction(rates[1])


def origin_of(container: InputContainer) -> Fraction:
    """Seconds at which the container's own clock starts; 0 where it does not say or starts below 0."""
    return max(Fraction(0), Fraction(container.start_time or 0, av.time_base))
