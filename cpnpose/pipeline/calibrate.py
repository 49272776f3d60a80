"""A user's own images and crops of the people in them, on which a network's activations can be measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from cpnpose.errors import InputError
from cpnpose.media.images import read_image
from cpnpose.pipeline.crop import crop_persons
from cpnpose.pipeline.detect import Detector
from cpnpose.pose.types import ImageArray, Preprocessing


def people_in(
    images: Sequence[Path],
    detector: Detector,
    input_size: tuple[int, int],
    preprocessing: Preprocessing,
    count: int,
) -> ImageArray:
    """Crops of people, (n, H, W, 3) uint8 RGB, n at most ``count``.

    The images are taken in turns from all over the list until there are enough people.

    Raises:
        InputError: an image cannot be read, or there is nobody in any of them.
    """
    parts: list[ImageArray] = []
    found = 0
    for number, image in _in_turns(images):
        crops = crop_persons([image], detector([image], [number]), input_size, preprocessing)
        parts.append(np.asarray(crops.pixels))
        found += len(crops)
        if found >= count:
            break
    if not found:
        raise InputError(f"{images[0].parent}: nobody was found in {len(images)} images; give images of people")
    return np.concatenate(parts)[:count]


def pictures(images: Sequence[Path], count: int) -> Iterator[ImageArray]:
    """The images themselves, (H, W, 3) uint8 RGB, at most ``count``, from all over the list.

    Raises:
        InputError: an image cannot be read.
    """
    return (image for _, image in islice(_in_turns(images), count))


def _in_turns(images: Sequence[Path]) -> Iterator[tuple[int, ImageArray]]:
    """Each image and its number in the list, in an order that is always the same and never that of the list."""
    for number in np.random.default_rng(0).permutation(len(images)).tolist():
        yield number, read_image(images[number])
