from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from cpnpose.pose.decode import decode, decode_dark
from cpnpose.pose.heatmaps import PEAK, gaussian_targets

SIZE = (64, 48)


def rough_maps(people: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    """Peaks anywhere, also on the border and outside, on some noise, with a weaker second peak elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    span = torch.tensor([size[1], size[0]]) * 4.0
    labelled = torch.ones(people, 17)
    first, second = (torch.rand(people, 17, 2, generator=generator) * (span + 8) - 4 for _ in range(2))
    maps = gaussian_targets(first, labelled, 1.7, size) + 0.5 * gaussian_targets(second, labelled, 1.4, size)
    return maps + 4 * torch.randn(maps.shape, generator=generator)


def dark_one_by_one(heatmap: np.ndarray) -> tuple[list[float], float]:
    """The definition, map by map: OpenCV smooths all of it a little, and there the largest value's place is refined."""
    y, x = (int(place) for place in np.unravel_index(heatmap.argmax(), heatmap.shape))
    padded = np.pad(heatmap.astype(np.float64), 2, mode="edge")
    near = cv2.GaussianBlur(padded, (3, 3), 0.7)[y + 1 : y + 4, x + 1 : x + 4]
    logs = np.log(np.maximum(near, 1e-3 * PEAK))
    slope = np.array([logs[1, 2] - logs[1, 0], logs[2, 1] - logs[0, 1]]) / 2
    bend_x, bend_y = logs[1, 2] - 2 * logs[1, 1] + logs[1, 0], logs[2, 1] - 2 * logs[1, 1] + logs[0, 1]
    both = (logs[2, 2] - logs[0, 2] - logs[2, 0] + logs[0, 0]) / 4
    move = np.zeros(2)
    if bend_x * bend_y - both**2 > 1e-6 and bend_x < 0:
        move = np.clip(-np.linalg.inv([[bend_x, both], [both, bend_y]]) @ slope, -1, 1)
    place = np.clip([x + move[0], y + move[1]], 0, np.array(heatmap.shape[::-1]) - 1)
    return (place * 4 + 2).tolist(), float(heatmap[y, x] / PEAK + 0.5)


@pytest.mark.parametrize("size", [SIZE, (96, 72), (16, 16), (13, 20), (4, 3)])
def test_dark_is_its_definition_map_by_map(size: tuple[int, int]) -> None:
    """Larger and smaller maps than the window, even and odd sides, peaks in corners included."""
    maps = rough_maps(6, size)
    for form in (maps, maps.contiguous(memory_format=torch.channels_last)):
        found, scores = decode_dark(form)
        wanted = [[dark_one_by_one(maps[n, k].numpy()) for k in range(17)] for n in range(6)]
        xy = torch.tensor([[place for place, _ in person] for person in wanted])
        assert (found - xy).abs().max() < 0.01
        assert scores == pytest.approx(torch.tensor([[score for _, score in person] for person in wanted]), abs=1e-5)


@pytest.mark.parametrize("lowest", [0.0, -50.0])
def test_the_largest_value_s_pixel_is_found_wherever_it_is(lowest: float) -> None:
    """Every pixel in turn, and where all values are negative."""
    h, w = 8, 6
    peaks = torch.zeros(1, h * w, h, w)
    peaks[0].flatten(1).fill_diagonal_(40.0)
    for form in (peaks + lowest, (peaks + lowest).bfloat16().contiguous(memory_format=torch.channels_last)):
        found, scores = decode_dark(form)
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        middle = torch.stack([columns, rows], -1).view(1, h * w, 2) * 4 + 2.0
        assert (found - middle).abs().max() <= 4  # moved by a pixel at most
        inner = ((rows % (h - 1) > 0) & (columns % (w - 1) > 0)).flatten()
        torch.testing.assert_close(found[:, inner], middle[:, inner])  # symmetric, so not moved at all
        assert scores == pytest.approx(torch.full((1, h * w), (40 + lowest) / PEAK + 0.5), abs=1e-6)


@pytest.mark.parametrize("method", ["published", "dark"])
def test_every_layout_and_number_format_gives_the_same(method: str) -> None:
    maps = rough_maps(5).bfloat16()
    wanted = decode(maps.float(), method)  # type: ignore[arg-type]
    strided = maps.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    every_other = torch.stack([maps, -maps], 1).flatten(0, 1)[::2]
    for form in (maps, maps.contiguous(memory_format=torch.channels_last), strided, every_other, maps.float()[:1]):
        found = decode(form, method)  # type: ignore[arg-type]
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs[: len(form)])
