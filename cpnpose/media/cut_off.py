"""Whether a file ends long before its header says."""

from __future__ import annotations

import re
from fractions import Fraction

import av
from av.container.input import InputContainer
from av.video.stream import VideoStream

from cpnpose.errors import InputError
from cpnpose.media.rational import fraction
from cpnpose.media.source import is_stored, open_input

_CUT_OFF_S = 0.25
"""A file that ends so many seconds before its header says was cut off."""


def cut_off_note(
    source: str, container: InputContainer, stream: VideoStream, reached: Fraction, origin: Fraction
) -> str | None:
    """What to tell the user of a file whose pictures end at ``reached``, long before its header says: it was cut off.
    None where it was not, or where nothing tells it. Times are seconds on the container's clock, which starts at
    ``origin``.

    The header of Matroska has the length of its longest stream only. That of the pictures stands in a tag, if at all;
    without one, a file whose other streams go on to its end is whole.
    """
    pictures = reached
    time_base = fraction(stream.time_base)
    if stream.duration is not None and time_base is not None:
        promised = ((stream.start_time or 0) + stream.duration) * time_base
    elif container.duration:
        promised = Fraction(container.duration, av.time_base)
        if len(container.streams) > 1:
            tag = _duration_tag(stream.metadata)
            if tag is not None:
                promised = min(promised, tag)
            elif not is_stored(source):
                return None
            elif promised - reached > _CUT_OFF_S:
                reached = _end_of_all_streams(source)
    else:
        return None
    if promised - reached <= _CUT_OFF_S:
        return None
    return (
        f"the pictures end after {float(pictures - origin):.2f} s, though the header says "
        f"{float(promised - origin):.2f} s: the file seems to be cut off"
    )


def _duration_tag(metadata: dict[str, str]) -> Fraction | None:
    """Seconds that Matroska's tag DURATION (or DURATION-eng) says, "00:01:02.345000000"."""
    for key, value in metadata.items():
        match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", value)
        if key.split("-")[0] == "DURATION" and match:
            return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3])
    return None


def _end_of_all_streams(source: str) -> Fraction:
    """Seconds at which the last packet of any stream ends."""
    end = Fraction(0)
    try:
        with open_input(source) as container:
            for packet in container.demux():
                if packet.pts is not None and packet.size:
                    end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
    except (InputError, av.error.FFmpegError):
        pass  # That is where it ends.
    return end
