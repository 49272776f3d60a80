"""Finding, reading and writing still images."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cpnpose.errors import InputError, OutputError
from cpnpose.media.atomic import publish
from cpnpose.pose.types import ImageArray
from cpnpose.whole_file import temporary_path, write_error

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Endings, in lower case, of the files that are taken from a folder."""


def natural_key(path: Path) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key that puts ``img2`` before ``img10``, folder by folder, regardless of case."""
    pieces = re.split(r"(\d+)", "\0".join(path.parts).casefold())
    return tuple((0, int(p), "") if p.isdigit() and p.isascii() else (1, 0, p) for p in pieces), str(path)


def find_images(sources: str | Path | Iterable[str | Path], *, recursive: bool = False) -> list[Path]:
    """The images that files, folders and patterns (``*``, ``?``, ``[...]``, ``**``) name, each once.

    Sources keep their order; within a folder or pattern the order is natural (2 before 10). A file that is named
    itself is taken whatever its ending; from folders and patterns only :data:`IMAGE_SUFFIXES`. recursive: also look
    into the folders' folders. Hidden files are left out. Raises :class:`InputError` for a source that names nothing.
    """
    found: dict[Path, None] = {}
    for source in [sources] if isinstance(sources, str | Path) else sources:
        path = Path(source)
        if path.is_file():
            chosen = [path]
        elif path.is_dir():
            if not os.access(path, os.R_OK | os.X_OK):
                raise InputError(f"{source}: the folder may not be looked into. Check its permissions.")
            inside = path.rglob("*") if recursive else path.glob("*")
            chosen = sorted((p for p in inside if _is_image(p, path)), key=natural_key)
            if not chosen:
                hint = "" if recursive else " Use --recursive to look into its folders too."
                raise InputError(f"{source}: the folder holds no image ({', '.join(IMAGE_SUFFIXES)}).{hint}")
        elif glob.has_magic(str(source)):
            matches = map(Path, glob.glob(os.path.expanduser(str(source)), recursive=True))
            chosen = sorted((p for p in matches if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()), key=natural_key)
            if not chosen:
                raise InputError(f"{source}: no image matches this pattern. Check the folder and the ending.")
        else:
            raise InputError(f"{source}: no such file or folder. Check the path.")
        found.update(dict.fromkeys(chosen))
    return list(found)


def _is_image(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def read_image(path: str | Path) -> ImageArray:
    """Read an image: (H, W, 3) uint8 RGB, upright by its EXIF orientation.

    Grey becomes RGB, 16 bits become 8, other depths are scaled so that their brightest pixel (at least 1) becomes 255,
    and transparent pixels are laid over black. Raises :class:`InputError`, naming the file, where it is missing or
    cannot be decoded.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check the path and its permissions.") from error
    if data.size == 0:
        raise InputError(f"{path}: is empty (0 bytes). Check that it was copied whole.")
    try:
        # Without IMREAD_UNCHANGED, OpenCV turns the picture by its EXIF orientation, but drops its transparency.
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        jpeg = bytes(data[:2]) == b"\xff\xd8"  # has no transparency, and need not be decoded twice
        stored = pixels if jpeg else cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InputError(f"{path}: cannot be decoded ({error.err}). Check that the file is whole.") from error
    if stored is None:
        kinds = "JPEG, PNG, WebP, BMP or TIFF"
        raise InputError(f"{path}: is no image that can be decoded. Check that the file is whole, and {kinds}.")
    # OpenCV gives no colours for TIFF that is deeper than 16 bits and grey or transparent.
    image = _to_8_bit(pixels) if pixels is not None else _to_bgr(_to_8_bit(stored))
    if image is None:
        raise InputError(f"{path}: has {stored.shape[2]} channels, which cannot be shown. Save it as RGB or grey.")
    if stored.ndim == 3 and stored.shape[2] == 4:
        layers = _to_8_bit(stored)
        # The colours of TIFF may be multiplied by their opacity already, as libtiff does with 8 bits.
        multiplied = bytes(data[:2]) in (b"II", b"MM") and (layers[..., :3] <= layers[..., 3:]).all()
        image = image if multiplied else _over_black(image, layers)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _over_black(upright: ImageArray, stored: ImageArray) -> ImageArray:
    """Upright BGR (H, W, 3) with the transparency of the stored BGRA, which may still have to be turned."""
    if (stored[..., 3] == 255).all():
        return upright
    for mirrored in (stored, stored[:, ::-1]):
        for quarter_turns in range(4):
            turned = np.rot90(mirrored, quarter_turns)
            if np.array_equal(turned[..., :3], upright):
                return ((turned[..., :3].astype(np.uint16) * turned[..., 3:] + 127) // 255).astype(np.uint8)
    return upright


def _to_bgr(stored: ImageArray) -> ImageArray | None:
    """(H, W, 3) of grey (H, W), BGR or BGRA; None for another number of channels."""
    if stored.ndim == 2:
        return np.repeat(stored[..., None], 3, axis=2)
    return np.ascontiguousarray(stored[..., :3]) if stored.shape[2] in (3, 4) else None


def _to_8_bit(pixels: npt.NDArray[Any]) -> ImageArray:
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, dtype=np.uint8)
    if pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)
    # TIFF of floating point numbers, 0 to 1 by convention, or of integers that rarely fill their 32 bits.
    finite = np.nan_to_num(pixels.astype(np.float32), posinf=0.0, neginf=0.0)
    scaled = finite * (255.0 / max(1.0, float(finite.max(initial=0.0))))
    return np.asarray(np.clip(scaled, 0, 255), dtype=np.uint8)


def write_image(path: str | Path, image: ImageArray, *, overwrite: bool = True, quality: int = 95) -> None:
    """Write (H, W, 3) uint8 RGB as the file's ending says; it appears under its name only when whole.

    quality: of JPEG and WebP, 0 to 100. Raises :class:`OutputError`.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise OutputError(f"{path}: cannot write an image of this kind. End the name with one of {IMAGE_SUFFIXES}.")
    settings = {".webp": [cv2.IMWRITE_WEBP_QUALITY, quality]}
    settings |= {name: [cv2.IMWRITE_JPEG_QUALITY, quality] for name in (".jpg", ".jpeg")}
    done, encoded = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings.get(suffix, []))
    if not done:
        raise OutputError(f"{path}: could not be encoded as {suffix}. Choose another ending.")
    temporary = temporary_path(target)
    try:
        temporary.write_bytes(encoded.tobytes())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_error(target, error) from error
    publish(temporary, target, overwrite)
