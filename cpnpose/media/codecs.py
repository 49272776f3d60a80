"""Which codec, options and container belong together when a video is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import av

from cpnpose.errors import OptionError, OutputError

_ALIASES = {
    "h264": "libx264",
    "avc": "libx264",
    "hevc": "libx265",
    "h265": "libx265",
    "av1": "libsvtav1",
    "vp9": "libvpx-vp9",
}
_DEFAULT_BY_SUFFIX = {
    ".mp4": "libx264",
    ".m4v": "libx264",
    ".mov": "libx264",
    ".mkv": "libx264",
    ".avi": "libx264",
    ".webm": "libvpx-vp9",
    ".gif": "gif",
}
_DEFAULT_CRF = {"libx264": 20, "libx265": 24, "libsvtav1": 32, "libvpx-vp9": 32}

_COPIED_AUDIO = {
    ".mp4": {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"},
    ".webm": {"opus", "vorbis"},
}
_COPIED_AUDIO[".m4v"] = _COPIED_AUDIO[".mp4"]
_COPIED_AUDIO[".mov"] = {"aac", "mp3", "ac3", "eac3", "alac"}
_PCM_SUFFIXES = (".mov", ".mkv", ".avi")
_COPIED_AUDIO[".avi"] = {"aac", "mp3", "ac3", "mp2"}


@dataclass(frozen=True)
class VideoCodec:
    """An encoder and how to run it."""

    encoder: str
    """FFmpeg's name of the encoder."""
    pixel_format: str
    options: dict[str, str] = field(default_factory=dict)
    tag: str | None = None
    """Four characters that players look for in the container, or None for FFmpeg's own choice."""

    @property
    def needs_even_size(self) -> bool:
        """Whether height and width must be even."""
        return self.pixel_format != "pal8"


def choose_codec(path: Path, codec: str | None, crf: int | None, preset: str | None) -> VideoCodec:
    """The encoder for a file of this name. Raises :class:`OutputError` for a name whose ending is not known, and
    :class:`OptionError` for a codec that this FFmpeg does not have."""
    suffix = path.suffix.lower()
    if suffix not in _DEFAULT_BY_SUFFIX:
        known = ", ".join(_DEFAULT_BY_SUFFIX)
        raise OutputError(f"{path}: cannot write a video of this kind. End the name with one of {known}.")
    if suffix == ".gif" and (codec not in (None, "gif") or crf is not None):
        option = "--codec" if codec not in (None, "gif") else "--crf"
        raise OptionError(f"{path}: {option} has no effect on a GIF, which has one codec. Leave it out, or write .mp4.")
    encoder = _DEFAULT_BY_SUFFIX[suffix] if codec is None else _ALIASES.get(codec, codec)
    try:
        found = av.codec.Codec(encoder, "w")
    except ValueError:
        raise OptionError(f"codec {codec}: this FFmpeg cannot encode it. Use h264, hevc, av1 or vp9.") from None
    if found.type != "video":
        raise OptionError(f"codec {codec}: is not a video codec. Use h264, hevc, av1 or vp9.")
    if encoder == "gif":
        return VideoCodec("gif", "pal8")
    options: dict[str, str] = {}
    quality = crf if crf is not None else _DEFAULT_CRF.get(encoder)
    if encoder.endswith("_nvenc"):
        options = {"preset": preset or "p4", "rc": "vbr", "cq": str(crf if crf is not None else 23), "b": "0"}
    elif encoder == "libsvtav1":
        options = {"preset": preset or "9", "crf": str(quality)}
    elif encoder == "libvpx-vp9":
        options = {"crf": str(quality), "b": "0", "deadline": "realtime", "cpu-used": preset or "6", "row-mt": "1"}
    elif encoder in ("libx264", "libx265"):
        options = {"preset": preset or "veryfast", "crf": str(quality)}
        if encoder == "libx265":
            options["x265-params"] = "log-level=error"
        if suffix == ".avi":
            options["bf"] = "0"  # AVI has no presentation times, so frames must be stored in the order of display.
    elif crf is not None:
        options = {"qscale": str(crf)}
    quicktime = suffix in (".mp4", ".m4v", ".mov")
    return VideoCodec(encoder, "yuv420p", options, "hvc1" if quicktime and found.canonical_name == "hevc" else None)


def can_copy_audio(path: Path, codec: str) -> bool:
    """Whether audio packets of FFmpeg codec name ``codec`` may stand in a file of this name and play there."""
    suffix = path.suffix.lower()
    if codec.startswith("pcm_"):
        return suffix in _PCM_SUFFIXES
    return suffix == ".mkv" or codec in _COPIED_AUDIO.get(suffix, set())


def can_hold_pauses(path: Path, codec: str) -> bool:
    """Whether sound of this codec stands at its own times in a file of this name, not packet after packet."""
    suffix = path.suffix.lower()
    return suffix != ".avi" and not (suffix == ".mov" and codec.startswith("pcm_"))


def can_hold_audio(path: Path) -> bool:
    """Whether a file of this name can carry sound at all."""
    return path.suffix.lower() != ".gif"


def audio_encoder(path: Path) -> str:
    """FFmpeg's name of the encoder for audio that cannot be copied into a file of this name."""
    return {".webm": "libopus", ".avi": "libmp3lame"}.get(path.suffix.lower(), "aac")
