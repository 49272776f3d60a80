"""Names of the results: where they go with and without ``--out``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from cpnpose.errors import OptionError, OutputError

VIDEO_SUFFIX = ".mp4"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
FILE_SUFFIXES = (".json", ".jsonl", ".csv", ".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".gif")
"""Of names for --out that are a file's, data or video."""
DRAWN_SUFFIX = ".png"
"""Of drawn images whose input's ending says no kind that can be written."""
_SHELL_PIPES = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
ADDED = "_pose"
"""What is added to the input's name."""


@dataclass(frozen=True)
class Switches:
    """Which results are wanted."""

    json: bool = False
    jsonl: bool = False
    csv: bool = False
    picture: bool | None = None
    """The video or the images with skeletons; None: yes with ``--out`` or without any data switch."""

    @property
    def data(self) -> bool:
        """Whether any data file is wanted."""
        return self.json or self.jsonl or self.csv


@dataclass(frozen=True)
class Outputs:
    """The files of one run. None: not wanted."""

    picture: Path | None = None
    """The video, or the folder of images."""
    json: Path | None = None
    jsonl: Path | None = None
    csv: Path | None = None
    stdout: bool = False
    """JSON Lines to standard output."""

    @property
    def data(self) -> bool:
        """Whether any data are written."""
        return self.stdout or any((self.json, self.jsonl, self.csv))

    @property
    def paths(self) -> list[Path]:
        """All files and folders."""
        values = (getattr(self, field.name) for field in fields(self))
        return [value for value in values if isinstance(value, Path)]


def plan_videos(inputs: Sequence[str], out: str | None, switches: Switches) -> list[Outputs]:
    """The outputs of each input.

    ``out`` is a file for one input, a folder for several (or if it is one, or ends in a slash), ``-`` for JSON Lines
    to standard output, or None: beside the input. The data files share the stem and folder of the video.

    Raises:
        OptionError: the options do not go together.
        OutputError: two inputs would give the same output.
    """
    if out == "-":
        if switches.data or switches.picture:
            raise OptionError("--out - writes JSON Lines to standard output and nothing else; leave the other out")
        return [Outputs(stdout=True) for _ in inputs]
    picture = (out is not None or not switches.data) if switches.picture is None else switches.picture
    if not picture and not switches.data:
        raise OptionError("--no-video leaves no result; add --json, --jsonl or --csv")
    if out is not None and (len(inputs) > 1 or is_folder(out)):
        if Path(out).is_file() or (Path(out).suffix.lower() in FILE_SUFFIXES and not is_folder(out)):
            raise OutputError(f"{out} is a file; several inputs go into a folder. Give a folder with --out")
        stems = [Path(out) / (input_stem(source) + ADDED) for source in inputs]
    elif out is not None:
        path = Path(out)
        if path.suffix.lower() in (".json", ".jsonl", ".csv"):
            return [_data_only(path, switches)]
        return [_outputs(path.with_suffix(""), path if picture else None, switches)]
    else:
        stems = [input_folder(source) / (input_stem(source) + ADDED) for source in inputs]
    stems = [_distinct(stem, stems, source) for stem, source in zip(stems, inputs, strict=True)]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        one, other, *_ = [source for source, stem in zip(inputs, stems, strict=True) if stem == twice]
        raise OutputError(
            f"{one} and {other} have the same name, and so would their results; run them one by one, each with its own "
            "--out"
        )
    return [_outputs(stem, _with_suffix(stem, VIDEO_SUFFIX) if picture else None, switches) for stem in stems]


def plan_images(folder: Path, name: str, out: str | None, switches: Switches, *, single: bool = True) -> Outputs:
    """The outputs of a set of images.

    Args:
        folder: where the results go without ``out``.
        name: stem of the results without ``out``.
        out: folder of the drawn images; the drawn image of a single one; a data file (then data only); ``-``; or None.
            With a slash at its end it is a folder, whatever its name.
        switches: see there.
        single: there is one image only.

    Raises:
        OptionError: the options do not go together, or several images have the name of one to go to.
    """
    if out == "-":
        return plan_videos([name], out, switches)[0]
    picture = (out is not None or not switches.data) if switches.picture is None else switches.picture
    if not picture and not switches.data:
        raise OptionError("--no-draw leaves no result; add --json, --jsonl or --csv")
    path = folder / name if out is None else Path(out)
    if path.name in ("", ".."):  # as in '.': data stand beside the folder, by its name
        path = path.resolve()
    if not path.name:
        raise OptionError(f"--out {out} is the root of the drive; give a folder in it")
    if out is None or is_folder(out):
        return _outputs(path, path if picture else None, switches)
    if path.suffix.lower() in (".json", ".jsonl", ".csv"):
        return _data_only(path, switches)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return _outputs(path, path if picture else None, switches)
    if picture and not single:
        raise OptionError(f"--out {out} is the name of one image, and there are several; give a folder for them")
    return _outputs(path.with_suffix(""), path if picture else None, switches)


def is_folder(out: str) -> bool:
    """Whether ``out`` is the name of a folder: it ends in a slash, or there is one of this name."""
    return out.endswith(("/", "\\")) or Path(out).is_dir()


def picture_path(out: Path, name: str, *, single: bool) -> Path:
    """Where a drawn image goes: ``out`` itself for a single one, else its ``name`` in the folder ``out``."""
    if single and out.suffix.lower() in IMAGE_SUFFIXES and not out.is_dir():
        return out
    path = out / name
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        path = path.with_name(path.name + DRAWN_SUFFIX)
    return path


def input_stem(source: str) -> str:
    """The input's name without folder and suffix, for an address from its path."""
    if "://" in source:
        parts = urlsplit(source)
        return PurePosixPath(parts.path).stem or parts.hostname or "stream"
    return Path(source).stem


def input_folder(source: str) -> Path:
    """The input's folder; for an address or a pipe of the shell the current one."""
    return Path() if "://" in source or source.startswith(_SHELL_PIPES) else Path(source).parent


def _outputs(stem: Path, picture: Path | None, switches: Switches) -> Outputs:
    return Outputs(
        picture=picture,
        json=_with_suffix(stem, ".json") if switches.json else None,
        jsonl=_with_suffix(stem, ".jsonl") if switches.jsonl else None,
        csv=_with_suffix(stem, ".csv") if switches.csv else None,
    )


def _data_only(path: Path, switches: Switches) -> Outputs:
    if switches.picture:
        raise OptionError(f"--out {path} is a data file; give the name of the video, the data files share its stem")
    kind = path.suffix.lower()[1:]
    wanted = Switches(*(getattr(switches, name) or name == kind for name in ("json", "jsonl", "csv")))
    return _outputs(path.with_suffix(""), None, wanted)


def _with_suffix(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def _distinct(stem: Path, stems: Sequence[Path], source: str) -> Path:
    """Two inputs of one name but other endings keep theirs in the results' names."""
    if stems.count(stem) == 1:
        return stem
    ending = Path(source).suffix.lstrip(".")
    return stem.with_name(f"{stem.name.removesuffix(ADDED)}_{ending}{ADDED}")
