"""A data set that the tests draw themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from cpnpose.pose.keypoints import SKELETON


@dataclass(frozen=True)
class Drawn:
    """Images and the annotation file of people in them."""

    images: Path
    annotations: Path


STANDING = np.array(
    [(50, 12), (53, 9), (47, 9), (57, 11), (43, 11), (62, 28), (38, 28), (70, 48), (30, 48), (74, 66), (26, 66),
     (57, 64), (43, 64), (60, 92), (40, 92), (61, 120), (39, 120)], np.float64,
)  # fmt: skip
"""A figure on 100 x 130 units, seen from the front: its left is on the right of the image."""


@pytest.fixture(scope="session")
def draw_people() -> Callable[..., Drawn]:
    """A function that writes ``count`` images with one or two coloured stick figures each."""

    def draw(folder: Path, count: int = 12, seed: int = 0, name: str = "people.json") -> Drawn:
        generator = np.random.default_rng(seed)
        images, people = [], []
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = np.full((160, 200, 3), generator.integers(90, 160), np.uint8)
            for place in range(1 + number % 2):
                points = STANDING * generator.uniform(0.9, 1.1) + (5 + 95 * place, 10) + generator.normal(0, 2, (17, 2))
                for index, (a, b) in enumerate(SKELETON):
                    colour = (40 + 11 * index, 255 - 12 * index, (97 * index) % 256)
                    ends = (tuple(points[i].round().astype(int).tolist()) for i in (a, b))
                    cv2.line(image, *ends, colour, 3, cv2.LINE_AA)
                seen = generator.choice([0, 1, 2], 17, p=[0.1, 0.1, 0.8])
                seen[:2] = 2
                low, high = points.min(0) - 4, points.max(0) + 4
                keypoints = np.concatenate([points * (seen[:, None] > 0), seen[:, None]], axis=1)
                people.append(
                    {
                        "id": len(people) + 1,
                        "image_id": number + 1,
                        "category_id": 1,
                        "iscrowd": 0,
                        "bbox": [*low.tolist(), *(high - low).tolist()],
                        "area": float((high - low).prod() / 2),
                        "num_keypoints": int((seen > 0).sum()),
                        "keypoints": keypoints.flatten().tolist(),
                    }
                )
            file = f"{number:03d}.png"
            cv2.imwrite(str(folder / "images" / file), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            images.append({"id": number + 1, "file_name": file, "height": 160, "width": 200})
        content = {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
        return Drawn(folder / "images", folder / name)

    return draw


@pytest.fixture(scope="session")
def drawn(draw_people: Callable[..., Drawn], tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """Twelve images with eighteen people; not to be changed."""
    return draw_people(tmp_path_factory.mktemp("drawn"))
