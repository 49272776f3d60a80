from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from cpnpose.pose.decode import Decoding, _largest_by_column, _largest_by_pooling, _tables, decode, decode_dark
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


def newton(near: np.ndarray) -> np.ndarray:
    """From the middle of 3x3 values to the top of the Gaussian there, x and y, at most one step each."""
    logs = np.log(np.maximum(near, 1e-3 * PEAK))
    slope = np.array([logs[1, 2] - logs[1, 0], logs[2, 1] - logs[0, 1]]) / 2
    bend_x, bend_y = logs[1, 2] - 2 * logs[1, 1] + logs[1, 0], logs[2, 1] - 2 * logs[1, 1] + logs[0, 1]
    both = (logs[2, 2] - logs[0, 2] - logs[2, 0] + logs[0, 0]) / 4
    if bend_x * bend_y - both**2 <= 1e-6 or bend_x >= 0:
        return np.zeros(2)
    return np.clip(-np.linalg.inv([[bend_x, both], [both, bend_y]]) @ slope, -1, 1)


def dark_one_by_one(heatmap: np.ndarray) -> tuple[list[float], float]:
    """The definition, map by map."""
    h, w = heatmap.shape
    y, x = (int(place) for place in np.unravel_index(heatmap.argmax(), heatmap.shape))
    padded = np.pad(heatmap.astype(np.float64), 2, mode="edge")
    sharp = np.array([x, y]) + newton(cv2.GaussianBlur(padded, (3, 3), 0.7)[y + 1 : y + 4, x + 1 : x + 4])
    rows, columns = (np.arange(-(-side // 4) + 2) * 4.0 for side in (h, w))
    rows, columns = rows + (h - 1 - rows[-1]) / 2, columns + (w - 1 - columns[-1]) / 2
    square_y, square_x = ((grid[:, None] - np.arange(side)) ** 2 for grid, side in ((rows, h), (columns, w)))
    weights = np.exp(-(square_y[:, None, :, None] + square_x[None, :, None, :]) / (2 * 4.0**2)) / (2 * np.pi * 4.0**2)
    smooth = (weights * heatmap).sum((2, 3))
    y, x = (int(place) + 1 for place in np.unravel_index(smooth[1:-1, 1:-1].argmax(), smooth[1:-1, 1:-1].shape))
    broad = np.array([columns[x], rows[y]]) + 4 * newton(smooth[y - 1 : y + 2, x - 1 : x + 2])
    heat = heatmap.max() / PEAK
    place = broad + (sharp - broad) * np.clip((heat - 0.5) / 0.2, 0, 1)
    return (np.clip(place, 0, [w - 1, h - 1]) * 4 + 2).tolist(), float(heat + 0.5)


@pytest.mark.parametrize("size", [SIZE, (96, 72), (16, 16), (13, 20), (4, 3)])
def test_dark_is_its_definition_map_by_map(size: tuple[int, int]) -> None:
    """Larger and smaller maps than the window, even and odd sides, peaks in corners, seen and guessed joints, and maps
    that are nowhere above 0, as is all that lies outside."""
    maps = rough_maps(6, size) * torch.tensor([1.0, 0.8, 0.65, 0.55, 0.4, 0.1])[:, None, None, None]
    maps[5] -= 1000
    for form in (maps, maps.contiguous(memory_format=torch.channels_last)):
        found, scores = decode_dark(form)
        wanted = [[dark_one_by_one(maps[n, k].numpy()) for k in range(17)] for n in range(6)]
        xy = torch.tensor([[place for place, _ in person] for person in wanted])
        assert (found - xy).abs().max() < 0.01
        assert scores == pytest.approx(torch.tensor([[score for _, score in person] for person in wanted]), abs=1e-5)


def test_a_seen_joint_is_where_the_map_is_largest_wherever_that_is() -> None:
    """Every pixel in turn, beside a broader and heavier second top."""
    h, w = 16, 12
    peaks = torch.zeros(1, h * w, h, w)
    peaks[0].flatten(1).fill_diagonal_(PEAK)
    peaks[..., 2:6, 2:6] += 0.4 * PEAK
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    middle = torch.stack([columns, rows], -1).view(1, h * w, 2) * 4 + 2.0
    for form in (peaks, peaks.bfloat16().contiguous(memory_format=torch.channels_last)):
        found, scores = decode_dark(form)
        assert (found - middle).abs().max() <= 4  # moved by a pixel at most
        assert scores.min() >= 1.5
        lonely = ((rows > 7) & (rows < h - 1) & (columns > 0) & (columns < w - 1)).flatten()
        torch.testing.assert_close(found[:, lonely], middle[:, lonely])  # symmetric, so not moved at all


def test_a_guessed_joint_does_not_jump_between_equal_tops() -> None:
    """Two tops 6 pixels apart of which now one, now the other is a little higher: it stays between them."""
    places = torch.tensor([[[80.0, 120.0]], [[104.0, 120.0]]])
    tops = gaussian_targets(places, torch.ones(2, 1), 1.7, SIZE)[:, 0] * 0.4
    flickering = torch.stack([tops[0] + 0.95 * tops[1], 0.95 * tops[0] + tops[1]])[:, None]
    guessed, _ = decode_dark(flickering)
    assert (guessed[0] - guessed[1]).norm() < 1.5
    assert (guessed - torch.tensor([92.0, 120.0])).abs().max() < 1
    seen, _ = decode_dark(flickering * 2)
    assert (seen[:, 0] - places[:, 0]).abs().max() < 1


@pytest.mark.parametrize("method", ["published", "dark"])
def test_every_layout_and_number_format_gives_the_same(method: Decoding) -> None:
    maps = (rough_maps(5) * torch.tensor([1.0, 0.8, 0.65, 0.55, 0.4])[:, None, None, None]).bfloat16()
    wanted_xy, wanted_scores = decode(maps.float(), method)
    strided = maps.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    every_other = torch.stack([maps, -maps], 1).flatten(0, 1)[::2]
    for form in (maps, maps.contiguous(memory_format=torch.channels_last), strided, every_other, maps.float()[:1]):
        xy, scores = decode(form, method)
        torch.testing.assert_close(scores, wanted_scores[: len(form)])
        # guessed joints are smoothed in the maps' own format
        torch.testing.assert_close(xy, wanted_xy[: len(form)], rtol=0, atol=0.5 if method == "dark" else 1e-3)


@pytest.mark.parametrize("part", [(64, 48), (62, 46), (3, 1)])
def test_both_ways_to_the_largest_value_give_the_same(part: tuple[int, int]) -> None:
    """Whichever way a device takes."""
    values = torch.randperm(2 * 17 * 64 * 48, generator=torch.Generator().manual_seed(0)).view(2, 64, 48, 17).float()
    wanted, place = values[:, : part[0], : part[1]].flatten(1, 2).max(1)
    which = place // part[1] * 48 + place % part[1]
    for way in (_largest_by_pooling, _largest_by_column):
        best, found = way(values, part)
        assert torch.equal(best, wanted.view(-1, 1))
        assert torch.equal(found, which.flatten())


@pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format])
def test_an_overflow_in_a_map_is_a_keypoint_all_the_same(form: torch.memory_format) -> None:
    maps = rough_maps(1)
    maps[:, :, 20, 10] = torch.inf
    found, _ = decode_dark(maps.contiguous(memory_format=form))
    assert (found - torch.tensor([42.0, 82.0])).abs().max() <= 4


def test_no_smoothing_weight_is_so_small_that_it_slows_products_down() -> None:
    """Below 1e-38 numbers are denormal: the products took six times as long."""
    tables = _tables((96, 72), 1, torch.float32, torch.device("cpu"))
    for weights in (tables.down, tables.across):
        assert weights[weights > 0].min() > 1e-12
