from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cpnpose.pose.decode import decode, decode_dark
from cpnpose.pose.decode_published import decode_published
from cpnpose.pose.heatmaps import (
    PEAK,
    gaussian_targets,
    merge_flipped,
    mirror_maps,
    target_sigmas,
)
from cpnpose.pose.keypoints import FLIP_INDEX

CROP, SIZE = (256, 192), (64, 48)


def places(people: int, border: float = 12.0, seed: int = 0) -> Tensor:
    """Keypoints (people, 17, 2) in the crop, at least ``border`` pixels from its edge."""
    generator = torch.Generator().manual_seed(seed)
    span = torch.tensor([CROP[1], CROP[0]]) - 2 * border
    return torch.rand(people, 17, 2, generator=generator) * span + border


def encode(xy: Tensor, sigma: float = 1.4, quantised: bool = False) -> Tensor:
    return gaussian_targets(xy, torch.ones(xy.shape[:2], dtype=torch.bool), sigma, SIZE, quantised=quantised)


def test_the_peak_stands_where_the_keypoint_is() -> None:
    # Heatmap pixel (column 5, row 9) covers crop pixels 20 to 24 and 36 to 40, its centre is (22, 38).
    maps = encode(torch.tensor([[[22.0, 38.0]]]))
    assert maps.shape == (1, 1, *SIZE)
    assert maps[0, 0, 9, 5] == PEAK
    assert maps[0, 0, 9, 6] == pytest.approx(PEAK * torch.exp(torch.tensor(-0.5 / 1.4**2)).item(), rel=1e-5)
    assert maps[0, 0, 9, 4] == maps[0, 0, 9, 6] == maps[0, 0, 8, 5] == maps[0, 0, 10, 5]


def test_quantised_peaks_stand_on_the_pixel_that_holds_the_keypoint() -> None:
    for xy in ((20.1, 36.1), (22.0, 38.0), (23.9, 39.9)):
        maps = encode(torch.tensor([[xy]]), quantised=True)
        assert maps[0, 0, 9, 5] == PEAK
        assert (maps == PEAK).sum() == 1


def test_unbiased_targets_are_the_gaussian_of_the_true_place() -> None:
    xy = torch.tensor([[[30.7, 41.3]]])
    maps = encode(xy, 2.0)
    for column, row in ((5, 9), (7, 10), (12, 3)):
        distance = (torch.tensor([4.0 * column + 2, 4.0 * row + 2]) - xy[0, 0]) / 4
        expected = PEAK * torch.exp(-distance.square().sum() / (2 * 2.0**2))
        assert maps[0, 0, row, column].item() == pytest.approx(expected.item(), rel=1e-4)


def test_keypoints_without_label_have_empty_targets() -> None:
    labelled = torch.zeros(1, 17, dtype=torch.bool)
    labelled[0, 3] = True
    maps = gaussian_targets(places(1), labelled, 1.4, SIZE)
    assert [k for k in range(17) if maps[0, k].any()] == [3]


def test_sigmas_are_those_of_the_paper_at_its_sizes_and_never_vanish() -> None:
    assert target_sigmas((256, 192)) == pytest.approx((2.6, 2.0, 1.7, 1.4))
    assert target_sigmas((384, 288)) == pytest.approx((3.8, 2.9, 2.3, 1.7))
    small = target_sigmas((64, 64))
    assert small == pytest.approx((1.82, 1.4, 1.19, 0.98))
    assert list(small) == sorted(small, reverse=True)


@pytest.mark.parametrize("sigma", [1.0, 1.4, 1.7, 2.6])
def test_dark_gives_back_what_was_encoded(sigma: float) -> None:
    xy = places(8, border=28)  # nearer the edge the smoothing pulls it inwards
    found, scores = decode_dark(encode(xy, sigma))
    assert (found - xy).norm(dim=-1).max() < 0.02  # crop pixels; a heatmap pixel is four of them
    assert scores.min() > 1.2
    assert scores.max() <= 1.5


def test_published_decoding_is_within_its_quarter_pixel() -> None:
    xy = places(8)
    found, _ = decode_published(encode(xy))
    error = (found - xy).norm(dim=-1)
    assert error.max() < 3.0
    assert 0.5 < error.mean() < 1.5


def test_dark_is_better_than_the_quarter_offset_also_on_rough_maps() -> None:
    xy = places(8)
    noise = torch.randn(8, 17, *SIZE, generator=torch.Generator().manual_seed(3))
    maps = encode(xy, 1.7) * 0.6 + 3.0 * noise
    mean = {method: (decode(maps, method)[0] - xy).norm(dim=-1).mean() for method in ("dark", "published")}  # type: ignore[arg-type]
    assert mean["dark"] < 0.6 * mean["published"]


def test_published_targets_lose_up_to_half_a_heatmap_pixel() -> None:
    xy = places(8)
    found, _ = decode_dark(encode(xy, quantised=True))
    centre = (xy / 4).floor() * 4 + 2
    assert (found - centre).norm(dim=-1).max() < 0.1  # the code is exact, what was encoded is rounded
    assert (found - xy).norm(dim=-1).mean() > 1


@pytest.mark.parametrize(("method", "most"), [("published", 6.0), ("dark", 4.5)])
def test_peaks_at_the_border_stay_in_the_crop(method: str, most: float) -> None:
    columns, rows = torch.tensor([0.2, 2.0, 100.0, 190.0, 191.9]), torch.tensor([0.2, 2.0, 130.0, 254.0, 255.9])
    xy = torch.cartesian_prod(columns, rows)[None]
    found, scores = decode(encode(xy), method)  # type: ignore[arg-type]
    assert torch.isfinite(found).all()
    assert (found - xy).abs().max() < most
    assert (found >= 0).all()
    assert (found <= torch.tensor([192.0, 256.0])).all()
    assert scores.min() > 0.8


@pytest.mark.parametrize("method", ["published", "dark"])
def test_empty_and_negative_maps_give_finite_keypoints(method: str) -> None:
    for value in (0.0, -3.0):
        found, scores = decode(torch.full((2, 17, *SIZE), value), method)  # type: ignore[arg-type]
        assert torch.isfinite(found).all()
        assert scores == pytest.approx(torch.full((2, 17), value / 255 + 0.5))


@pytest.mark.parametrize("method", ["published", "dark"])
def test_the_score_is_the_map_at_the_keypoint(method: str) -> None:
    maps = encode(torch.tensor([[[22.0, 38.0], [62.0, 98.0]]])) * torch.tensor([1.0, 0.2])[None, :, None, None]
    _, scores = decode(maps, method)  # type: ignore[arg-type]
    assert scores[0].tolist() == pytest.approx([1.5, 0.7])


def test_of_two_peaks_the_higher_one_counts() -> None:
    maps = encode(torch.tensor([[[50.0, 60.0]]])) + 0.8 * encode(torch.tensor([[[150.0, 200.0]]]))
    for method in ("published", "dark"):
        found, _ = decode(maps, method)  # type: ignore[arg-type]
        assert (found[0, 0] - torch.tensor([50.0, 60.0])).norm() < 2


def test_nobody_is_a_normal_value() -> None:
    for method in ("published", "dark"):
        found, scores = decode(torch.zeros(0, 17, *SIZE), method)  # type: ignore[arg-type]
        assert found.shape == (0, 17, 2)
        assert scores.shape == (0, 17)


def test_a_mirrored_crop_gives_the_same_pose_after_merging() -> None:
    xy = places(4)
    of_mirrored = xy[:, list(FLIP_INDEX)].clone()  # what a network should see in the mirrored crop
    of_mirrored[..., 0] = CROP[1] - of_mirrored[..., 0]
    direct, mirrored = encode(xy), encode(of_mirrored)
    assert torch.allclose(mirror_maps(mirrored), direct, atol=0.05)
    assert torch.allclose(merge_flipped(direct, mirrored), direct, atol=0.05)
    assert (decode_dark(merge_flipped(direct, mirrored))[0] - xy).norm(dim=-1).max() < 0.1


def test_merging_averages() -> None:
    generator = torch.Generator().manual_seed(5)
    first, second = torch.rand(2, 2, 17, 8, 6, generator=generator).unbind()
    merged = merge_flipped(first, second)
    assert merged[1, 9, 2, 1] == pytest.approx((first[1, 9, 2, 1] + second[1, 10, 2, 4]).item() / 2)
    assert merged[0, 0, 7, 5] == pytest.approx((first[0, 0, 7, 5] + second[0, 0, 7, 0]).item() / 2)
