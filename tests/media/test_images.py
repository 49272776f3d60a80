"""Still images: found in the order of people, read upright as RGB, written whole or not at all."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from cpnpose.errors import InputError, OutputError
from cpnpose.media.images import find_images, read_image, write_image


def picture() -> np.ndarray:
    """(24, 40, 3) RGB: red above left, green above right, blue below."""
    image = np.zeros((24, 40, 3), np.uint8)
    image[:12, :20], image[:12, 20:], image[12:] = (250, 5, 5), (5, 240, 5), (5, 5, 230)
    return image


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF block that says how it has to be turned."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    block = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_natural_order_endings_and_hidden_files(tmp_path: Path) -> None:
    names = ["img10.JPG", "img2.png", "img1.webp", "b.bmp", "z.TIFF", "notes.txt", ".hidden.png", "sub/deep3.jpg"]
    touch(*(tmp_path / n for n in names))
    found = [p.relative_to(tmp_path).as_posix() for p in find_images(tmp_path)]
    assert found == ["b.bmp", "img1.webp", "img2.png", "img10.JPG", "z.TIFF"]
    everything = [p.relative_to(tmp_path).as_posix() for p in find_images(tmp_path, recursive=True)]
    assert sorted(everything) == sorted([*found, "sub/deep3.jpg"])


def test_files_patterns_and_repetitions(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "c.png", tmp_path / "d.data", tmp_path / "e[1].png")
    assert [p.name for p in find_images(str(tmp_path / "*.jpg"))] == ["a.jpg", "b.jpg"]
    chosen = find_images([tmp_path / "d.data", tmp_path / "b.jpg", tmp_path / "*.jpg", tmp_path / "e[1].png"])
    assert [p.name for p in chosen] == ["d.data", "b.jpg", "a.jpg", "e[1].png"]
    touch(tmp_path / "s" / "t" / "u.png")
    assert [p.name for p in find_images(str(tmp_path / "**" / "u.png"))] == ["u.png"]


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a.png")
    monkeypatch.setattr("cpnpose.media.images.os.access", lambda path, mode: False)  # the superuser may everything
    with pytest.raises(InputError, match="permissions"):
        find_images(tmp_path)


def test_sources_without_images_are_named(tmp_path: Path) -> None:
    touch(tmp_path / "sub" / "a.png")
    for source, message in (
        (tmp_path, "--recursive"),
        (tmp_path / "*.png", "no image matches"),
        (tmp_path / "x", "no such"),
    ):
        with pytest.raises(InputError, match=message):
            find_images(source)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp", ".jpg"])
def test_formats_round_trip(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bild ä{suffix}"
    write_image(path, picture(), quality=100)
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    difference = np.abs(image.astype(int) - picture())
    if suffix in (".jpg", ".webp"):
        assert difference[4, 4].max() < 12
        assert difference[4, 35].max() < 12
        assert difference[20, 20].max() < 12
    else:
        assert difference.max() == 0
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    undo = {
        1: lambda i: i,
        2: lambda i: i[:, ::-1],
        3: lambda i: i[::-1, ::-1],
        4: lambda i: i[::-1],
        5: lambda i: i.transpose(1, 0, 2),
        6: lambda i: np.rot90(i, 1),
        7: lambda i: np.rot90(i, 2).transpose(1, 0, 2),
        8: lambda i: np.rot90(i, -1),
    }
    stored = np.ascontiguousarray(undo[orientation](picture()))
    jpeg = cv2.imencode(".jpg", stored[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    (tmp_path / "a.jpg").write_bytes(with_orientation(jpeg, orientation))
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == picture().shape
    for y, x in ((4, 4), (4, 35), (20, 20)):
        assert np.abs(image[y, x].astype(int) - picture()[y, x]).max() < 12


def test_grey_deep_and_transparent_pixels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((5, 7), 90, np.uint8))
    assert (read_image(tmp_path / "grey.png") == np.full((5, 7, 3), 90)).all()
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((5, 7, 3), (10 << 8, 20 << 8, 30 << 8), np.uint16))
    assert (read_image(tmp_path / "deep.png") == (30, 20, 10)).all()
    cv2.imwrite(str(tmp_path / "deepgrey.tiff"), np.full((5, 7), 40 << 8, np.uint16))
    assert (read_image(tmp_path / "deepgrey.tiff") == 40).all()
    cv2.imwrite(str(tmp_path / "floatgrey.tiff"), np.full((5, 7), 0.2, np.float32))
    assert (read_image(tmp_path / "floatgrey.tiff") == 51).all()
    bgra = np.full((5, 7, 4), (10, 20, 200, 255), np.uint8)
    bgra[:, 3:, 3] = 0
    bgra[:, 5:, 3] = 128
    cv2.imwrite(str(tmp_path / "clear.png"), bgra)
    image = read_image(tmp_path / "clear.png")
    assert (image[:, :3] == (200, 20, 10)).all()
    assert (image[:, 3:5] == 0).all()
    assert np.abs(image[:, 5:].astype(int) - (100, 10, 5)).max() <= 1


def tiff(pixels: np.ndarray, extra: int) -> bytes:
    """An uncompressed TIFF of (H, W, 4) RGBA; extra: 1 where the colours are multiplied by their opacity, else 2."""
    height, width, channels = pixels.shape
    bits, size = 8 * pixels.itemsize, pixels.nbytes
    short, long = 3, 4
    tags = [(256, long, 1, width), (257, long, 1, height), (258, short, 4, 8 + size), (259, short, 1, 1)]
    tags += [(262, short, 1, 2), (273, long, 1, 8), (277, short, 1, channels), (278, long, 1, height)]
    tags += [(279, long, 1, size), (338, short, 1, extra)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = struct.pack("<2sHI", b"II", 42, 16 + size)
    return head + pixels.tobytes() + struct.pack("<4H", *[bits] * 4) + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(("kind", "extra"), [(np.uint8, 1), (np.uint8, 2), (np.uint16, 1), (np.uint16, 2)])
def test_transparent_tiff_is_laid_over_black_once(tmp_path: Path, kind: type, extra: int) -> None:
    opacity = np.repeat(np.arange(0, 256, 5)[None], 4, axis=0)
    shown = np.stack([opacity * part // 10 for part in (10, 5, 2)], axis=-1)
    colours = shown if extra == 1 else np.broadcast_to((255, 127, 51), shown.shape)
    pixels = (np.dstack([colours, opacity]) * (257 if kind is np.uint16 else 1)).astype(kind)
    (tmp_path / "a.tif").write_bytes(tiff(pixels, extra))
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - shown).max() <= 1


@pytest.mark.parametrize("kind", [np.int32, np.uint32, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_depths_that_opencv_does_not_show(tmp_path: Path, kind: type, channels: int) -> None:
    """Scaled by the brightest number, whatever the depth; a fourth channel is transparency."""
    if kind is np.uint32 and int(cv2.__version__.partition(".")[0]) < 5:
        pytest.skip("OpenCV 4 writes no such file")
    plain = (cv2.IMWRITE_TIFF_COMPRESSION, 1)  # OpenCV 4 would keep floating point numbers as logarithms
    top = 1 if issubclass(kind, np.floating) else 40000
    stored = np.zeros((6, 8, 4), kind)
    stored[..., 3] = top
    stored[:3, :4, :3], stored[3:, :, 2] = top, top / 2
    pixels = {1: stored[..., 2], 3: stored[..., :3], 4: stored}[channels]
    assert cv2.imwrite(str(tmp_path / "deep.tiff"), np.ascontiguousarray(pixels), plain)
    image = read_image(tmp_path / "deep.tiff")
    assert image.shape == (6, 8, 3)
    assert (image[:3, :4] == 255).all()
    assert (image[:3, 4:] == 0).all()
    assert (image[3:] == ((127, 127, 127) if channels == 1 else (127, 0, 0))).all()
    if channels == 4:
        stored[:, 6:, 3] = 0
        assert cv2.imwrite(str(tmp_path / "clear.tiff"), stored, plain)
        assert (read_image(tmp_path / "clear.tiff") == image * (np.arange(8) < 6)[:, None]).all()


@pytest.mark.parametrize("content", [b"", b"this is no image" * 9, "half"])
def test_unreadable_images_are_named(tmp_path: Path, content: bytes | str) -> None:
    if content == "half":
        noise = np.random.default_rng(0).integers(0, 255, (50, 50, 3)).astype(np.uint8)
        encoded = cv2.imencode(".png", noise)[1].tobytes()
        content = encoded[: len(encoded) // 3]
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.png"):
        read_image(tmp_path / "bad.png")
    with pytest.raises(InputError, match=r"none\.png"):
        read_image(tmp_path / "none.png")


def test_a_kind_that_cannot_be_read_is_told_those_that_can(tmp_path: Path) -> None:
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    with pytest.raises(InputError, match=r"phone\.heic: .*JPEG, PNG"):
        read_image(tmp_path / "phone.heic")


def test_write_image_refuses_what_it_cannot(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="of this kind"):
        write_image(tmp_path / "a.xyz", picture())
    with pytest.raises(OutputError, match="missing"):
        write_image(tmp_path / "missing" / "a.png", picture())
    write_image(tmp_path / "a.png", picture())
    with pytest.raises(OutputError):
        write_image(tmp_path / "a.png", picture(), overwrite=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
