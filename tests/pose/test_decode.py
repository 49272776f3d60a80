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


def dark_one_by_one(heatmap: np.ndarray, reach: int = 3) -> tuple[list[float], float]:
    """The definition, map by map: OpenCV smooths all of it, and the top near the largest even place is refined."""
    h, w = heatmap.shape
    smooth = cv2.GaussianBlur(heatmap, (11, 11), 2.0, borderType=cv2.BORDER_CONSTANT).astype(np.float64)
    top_y, top_x = (2 * int(place) for place in np.unravel_index(smooth[::2, ::2].argmax(), smooth[::2, ::2].shape))
    hidden = np.full_like(smooth, -np.inf)
    part = slice(max(top_y - reach, 0), top_y + reach + 1), slice(max(top_x - reach, 0), top_x + reach + 1)
    hidden[part] = smooth[part]
    y, x = (int(place) for place in np.unravel_index(hidden.argmax(), smooth.shape))
    move = np.zeros(2)
    if 0 < y < h - 1 and 0 < x < w - 1:
        logs = np.log(np.maximum(smooth[y - 1 : y + 2, x - 1 : x + 2], 1e-3 * PEAK))
        slope = np.array([logs[1, 2] - logs[1, 0], logs[2, 1] - logs[0, 1]]) / 2
        bend_x, bend_y = logs[1, 2] - 2 * logs[1, 1] + logs[1, 0], logs[2, 1] - 2 * logs[1, 1] + logs[0, 1]
        both = (logs[2, 2] - logs[0, 2] - logs[2, 0] + logs[0, 0]) / 4
        if bend_x * bend_y - both**2 > 1e-6 and bend_x < 0:
            move = np.clip(-np.linalg.inv([[bend_x, both], [both, bend_y]]) @ slope, -1, 1)
    return [float((x + move[0]) * 4 + 2), float((y + move[1]) * 4 + 2)], float(heatmap[y, x] / PEAK + 0.5)


@pytest.mark.parametrize("size", [SIZE, (96, 72), (16, 16), (12, 20)])
def test_dark_is_its_definition_map_by_map(size: tuple[int, int]) -> None:
    """Larger and smaller maps than the window, peaks in corners included."""
    maps = rough_maps(6, size)
    found, scores = decode_dark(maps)
    wanted = [[dark_one_by_one(maps[n, k].numpy()) for k in range(17)] for n in range(6)]
    xy = torch.tensor([[place for place, _ in person] for person in wanted])
    assert (found - xy).abs().max() < 0.01
    assert scores == pytest.approx(torch.tensor([[score for _, score in person] for person in wanted]), abs=1e-5)


def test_the_whole_map_s_top_is_found() -> None:
    """Odd places, too: what both steps find is the maximum of the map smoothed as a whole."""
    maps = rough_maps(20, seed=1)
    found, _ = decode_dark(maps)
    off = 0
    for heatmap, place in zip(maps.flatten(0, 1).numpy(), found.flatten(0, 1), strict=True):
        smooth = cv2.GaussianBlur(heatmap, (11, 11), 2.0, borderType=cv2.BORDER_CONSTANT)
        y, x = np.unravel_index(smooth.argmax(), smooth.shape)
        off += bool(np.abs(place.numpy() - (4 * x + 2, 4 * y + 2)).max() > 4.01)
    assert off <= 0.01 * 20 * 17


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


def test_a_broad_hill_is_higher_than_a_lonely_spike() -> None:
    """The largest value of the map itself does not count: smoothed, a single pixel is low."""
    maps = gaussian_targets(torch.tensor([[[82.0, 82.0]]]), torch.ones(1, 1), 2.6, SIZE) * 0.6  # pixel (20, 20)
    maps[0, 0, 40, 23] = PEAK
    for form in (maps, maps.bfloat16()):
        assert decode_dark(form)[0][0, 0].tolist() == pytest.approx([82, 82], abs=0.5)
