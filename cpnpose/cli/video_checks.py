"""What is looked at before ``video`` and ``webcam`` load the networks, since their end may be hours away."""

from __future__ import annotations

from cpnpose.cli.outputs import Outputs
from cpnpose.cli.say import say_error
from cpnpose.errors import InputError


def check_inputs(inputs: list[str]) -> None:
    """Look at all inputs before the first is worked on, since that may take hours.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    from cpnpose.media.source import check_file, is_address

    failed: list[InputError] = []
    for source in inputs:
        try:
            if not is_address(source):
                check_file(source)
        except InputError as error:
            failed.append(error)
    if len(failed) == 1:
        raise failed[0]
    for each in failed:
        say_error(each)
    if failed:
        raise InputError(f"{len(failed)} of {len(inputs)} inputs cannot be read; nothing was done")


def check_formats(hwaccel: str | None, planned: list[Outputs], codec: str | None, crf: int | None) -> None:
    """Raises:
    OptionError, OutputError: FFmpeg does not know the device or the codec, or the kind of a video's name."""
    from cpnpose.media.codecs import choose_codec
    from cpnpose.media.source import check_hwaccel

    if hwaccel is not None:
        check_hwaccel(hwaccel)
    for outputs in planned:
        if outputs.picture is not None:
            choose_codec(outputs.picture, codec, crf, None)
