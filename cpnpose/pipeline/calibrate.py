"""Crops of people from a user's own images, on which a network's activations can be measured."""

from __future__ import annotations

from collections.abc import Sequence
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
    order = np.random.default_rng(0).permutation(len(images))
    parts: list[ImageArray] = []
    found = 0
    for number in order.tolist():
        if found >= count:
            break
        image = read_image(images[number])
        crops = crop_persons([image], detector([image], [number]), input_size, preprocessing)
        parts.append(np.asarray(crops.pixels))
        found += len(crops)
    if not found:
        raise InputError(f"{images[0].parent}: nobody was found in {len(images)} images; give images of people")
    return np.concatenate(parts)[:count]
