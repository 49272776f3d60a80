from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cpnpose.pose.keypoints import FLIP_INDEX, LOWER_BODY, UPPER_BODY
from cpnpose.pose.types import Preprocessing
from cpnpose.training import augment as module
from cpnpose.training.augment import PAPER, PLAIN, Augmented, AugmentOptions, augment, centre_crops
from cpnpose.training.dataset import PoseBatch, cache_size

SIZE = (128, 96)
CACHED = cache_size(SIZE)
GRAY = Preprocessing(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))


def dots(people: int, keypoint: int, seed: int = 0) -> PoseBatch:
    """Black crops with one soft white dot each, at the place of one keypoint; the others lie elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.tensor([CACHED[1], CACHED[0]]) / 2
    xy = centre + (torch.rand(people, 17, 2, generator=generator) - 0.5) * torch.tensor([SIZE[1], SIZE[0]]) * 0.7
    y, x = torch.arange(CACHED[0]) + 0.5, torch.arange(CACHED[1]) + 0.5
    dot = xy[:, keypoint]
    distance = (x[None, None] - dot[:, 0, None, None]) ** 2 + (y[None, :, None] - dot[:, 1, None, None]) ** 2
    pixels = (255 * torch.exp(-distance / (2 * 3.0**2))).round().to(torch.uint8)
    visibility = torch.full((people, 17), 2, dtype=torch.uint8)
    return PoseBatch(pixels[..., None].expand(-1, -1, -1, 3).contiguous().permute(0, 3, 1, 2), xy, visibility)


def found(view: Augmented) -> torch.Tensor:
    """Centre of brightness of every crop, corner-origin (B, 2)."""
    light = view.crops.float().mean(1).clamp_min(0)
    x, y = torch.arange(SIZE[1]) + 0.5, torch.arange(SIZE[0]) + 0.5
    total = light.sum((1, 2))
    return torch.stack([(light.sum(1) * x).sum(1), (light.sum(2) * y).sum(1)], 1) / total[:, None]


def view_of(batch: PoseBatch, options: AugmentOptions, seed: int = 0, **more: object) -> Augmented:
    return augment(batch, SIZE, options, GRAY, torch.Generator().manual_seed(seed), **more)  # type: ignore[arg-type]


GEOMETRY = replace(PLAIN, scale=(0.8, 1.3), rotation_deg=45.0, rotation_probability=1.0, shift=0.05)


@pytest.mark.parametrize("sampler", ["_sample_on_cpu", "_sample_on_device"])
@pytest.mark.parametrize(
    ("options", "keypoint"),
    [
        (PLAIN, 0),
        (replace(PLAIN, scale=(0.7, 1.35)), 9),
        (replace(PLAIN, rotation_deg=60.0, rotation_probability=1.0), 12),
        (replace(PLAIN, shift=0.06), 4),
        (replace(PLAIN, flip_probability=1.0), 0),
        (replace(GEOMETRY, flip_probability=0.0), 16),
        (replace(GEOMETRY, half_body_probability=1.0), 3),
    ],
)
def test_keypoints_follow_the_pixels(
    options: AugmentOptions, keypoint: int, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_sample_on_cpu", getattr(module, sampler))
    batch = dots(24, keypoint)
    view = view_of(batch, options)
    place = view.keypoints_xy[:, keypoint]
    far_inside = ((place > 14) & (place < torch.tensor([SIZE[1], SIZE[0]]) - 14)).all(1)
    assert far_inside.sum() >= 8
    assert (found(view) - place)[far_inside].abs().max() < 0.15


def test_a_flip_exchanges_left_and_right() -> None:
    """The pixels that were the left wrist are the right wrist of the mirrored person."""
    batch = dots(16, 9)
    view = view_of(batch, replace(GEOMETRY, flip_probability=1.0))
    place = view.keypoints_xy[:, 10]
    inside = ((place > 14) & (place < torch.tensor([SIZE[1], SIZE[0]]) - 14)).all(1)
    assert inside.sum() >= 5
    assert (found(view) - place)[inside].abs().max() < 0.15
    assert (found(view) - view.keypoints_xy[:, 9])[inside].abs().max() > 5


def test_a_plain_flip_is_the_mirror_image() -> None:
    batch = dots(4, 0)
    batch = replace(batch, visibility=torch.randint(0, 3, (4, 17), generator=torch.Generator().manual_seed(1)).byte())
    plain, flipped = view_of(batch, PLAIN), view_of(batch, replace(PLAIN, flip_probability=1.0))
    assert torch.allclose(flipped.crops, plain.crops.flip(-1), atol=0.02)
    mirrored = plain.keypoints_xy[:, list(FLIP_INDEX)]
    assert torch.allclose(flipped.keypoints_xy[..., 0], SIZE[1] - mirrored[..., 0], atol=1e-3)
    assert torch.allclose(flipped.keypoints_xy[..., 1], mirrored[..., 1], atol=1e-3)
    assert torch.equal(flipped.visibility, batch.visibility[:, list(FLIP_INDEX)])


def test_without_augmentation_the_middle_is_shown() -> None:
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (2, *CACHED, 3), generator=generator).byte().permute(0, 3, 1, 2)
    batch = PoseBatch(pixels, torch.full((2, 17, 2), 70.0), torch.full((2, 17), 2, dtype=torch.uint8))
    view = centre_crops(batch, SIZE, GRAY)
    top, left = (CACHED[0] - SIZE[0]) // 2, (CACHED[1] - SIZE[1]) // 2
    expected = pixels[:, :, top : top + SIZE[0], left : left + SIZE[1]].float() / 255
    assert (view.crops - expected).abs().max() < 1e-5
    assert torch.allclose(view.keypoints_xy, torch.tensor([70.0 - left, 70.0 - top]).expand(2, 17, 2), atol=1e-3)


def test_both_samplers_agree() -> None:
    generator = torch.Generator().manual_seed(3)
    smooth = torch.nn.functional.interpolate(torch.rand(6, 3, 12, 9, generator=generator), CACHED, mode="bilinear")
    pixels = (smooth * 255).byte().permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    linear = torch.eye(2).expand(6, 2, 2) + 0.4 * torch.randn(6, 2, 2, generator=generator)
    offset = 40 * torch.randn(6, 2, generator=generator)
    preprocessing = Preprocessing(mean=(120.0, 110.0, 100.0))
    on_cpu = module._sample_on_cpu(pixels, linear, offset, SIZE, preprocessing)
    on_device = module._sample_on_device(pixels, linear, offset, SIZE, preprocessing)
    difference = (on_cpu - on_device).abs()
    assert difference.mean() < 0.5
    assert (difference > 3).float().mean() < 0.01  # a few pixels of the image's border


def test_outside_the_cached_crop_is_the_mean() -> None:
    batch = PoseBatch(
        torch.full((2, 3, *CACHED), 255, dtype=torch.uint8),
        torch.zeros(2, 17, 2),
        torch.zeros(2, 17, dtype=torch.uint8),
    )
    view = augment(batch, SIZE, replace(PLAIN, scale=(3.0, 3.0)), Preprocessing(), torch.Generator())
    assert view.crops[:, :, 0, 0].abs().max() < 0.005  # the mean, rounded to a byte
    assert torch.allclose(view.crops[:, :, SIZE[0] // 2, SIZE[1] // 2], torch.ones(2, 3))


def test_joints_outside_the_view_lose_their_label() -> None:
    batch = dots(8, 0)
    batch.keypoints_xy[:, 5] = 1.0  # in the margin
    view = view_of(batch, PLAIN)
    assert (view.visibility[:, 5] == 0).all()
    assert (view.visibility[:, :5] == 2).all()
    shown = view_of(batch, replace(PLAIN, scale=(1.5, 1.5)))
    assert (shown.visibility[:, 5] == 2).all()


def test_half_bodies_fill_the_view() -> None:
    batch = dots(64, 0)
    batch.keypoints_xy[:, list(UPPER_BODY), 1] -= 40
    batch.keypoints_xy[:, list(LOWER_BODY), 1] += 40
    options = replace(PLAIN, half_body_probability=1.0)
    view = view_of(batch, options)
    upper = (view.visibility[:, list(UPPER_BODY)] > 0).all(1)
    lower = (view.visibility[:, list(LOWER_BODY)] > 0).all(1)
    assert (upper | lower).all()
    assert 0.5 < upper.float().mean() < 0.9  # seven in ten show the upper body
    few = replace(batch, visibility=batch.visibility * (torch.arange(17) < 7))
    assert torch.allclose(view_of(few, options).keypoints_xy, view_of(few, PLAIN).keypoints_xy)


def test_occlusion_hides_rectangles_by_the_neighbour_or_a_colour() -> None:
    pixels = torch.stack([torch.full((3, *CACHED), 10 * n, dtype=torch.uint8) for n in range(20)])
    batch = PoseBatch(pixels, torch.full((20, 17, 2), 90.0), torch.full((20, 17), 2, dtype=torch.uint8))
    view = view_of(batch, replace(PLAIN, occlusion_probability=1.0))
    own = torch.arange(20)[:, None, None] * 10 / 255
    changed = (view.crops[:, 0] - own).abs() > 1e-3
    share = changed.float().mean((1, 2))
    assert (share > 0).float().mean() > 0.8
    assert share.max() <= 0.41**2
    for row in range(20):
        covered = view.crops[row][:, changed[row]]
        assert covered.numel() == 0 or torch.equal(covered, covered[:, :1].expand_as(covered))
    neighbours = [row for row in range(20) if changed[row].any() and torch.allclose(
        view.crops[row][:, changed[row]], torch.tensor((row ^ 1) * 10 / 255), atol=1e-4)]  # fmt: skip
    assert 5 <= len(neighbours) < 20
    assert (view_of(batch, PLAIN).crops[:, 0] - own).abs().max() < 1e-5


def test_colour_changes_stay_within_their_bounds() -> None:
    batch = PoseBatch(
        torch.full((200, 3, *(6, 6)), 100, dtype=torch.uint8), torch.zeros(200, 17, 2), torch.zeros(200, 17).byte()
    )

    def levels(options: AugmentOptions) -> torch.Tensor:
        return augment(batch, (4, 4), options, GRAY, torch.Generator().manual_seed(0)).crops[:, :, 2, 2] * 255

    assert torch.allclose(levels(PLAIN), torch.tensor(100.0))
    gained = levels(replace(PLAIN, gain=0.2))
    assert gained.min() >= 79.9
    assert gained.max() <= 120.1
    assert gained.std(1).min() > 0  # each channel its own
    assert gained.std() > 5
    contrast = levels(replace(PLAIN, contrast=0.3))
    assert contrast.std(1).max() < 1e-3  # all channels alike
    assert contrast.min() >= 70 - 0.3 * 255 - 0.1
    assert contrast.max() <= 130 + 0.3 * 255 + 0.1
    gray = levels(replace(PLAIN, gain=0.2, gray_probability=0.5)).std(1) < 1e-3
    assert 0.3 < gray.float().mean() < 0.7


def test_gray_is_the_mean_of_the_channels() -> None:
    pixels = torch.tensor([30, 60, 120], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 6, 6).contiguous()
    batch = PoseBatch(pixels, torch.zeros(2, 17, 2), torch.zeros(2, 17).byte())
    view = augment(batch, (4, 4), replace(PLAIN, gray_probability=1.0), GRAY, torch.Generator())
    assert view.crops[:, :, 1, 1] * 255 == pytest.approx(torch.full((2, 3), 70.0), abs=1e-3)


@pytest.mark.parametrize("options", [AugmentOptions(), PAPER])
def test_the_generator_is_the_only_source_of_chance(options: AugmentOptions) -> None:
    batch = dots(6, 0)
    first = view_of(batch, options, 5)
    torch.manual_seed(99)
    again, other = view_of(batch, options, 5), view_of(batch, options, 6)
    assert torch.equal(first.crops, again.crops)
    assert torch.equal(first.keypoints_xy, again.keypoints_xy)
    assert torch.equal(first.visibility, again.visibility)
    assert not torch.equal(first.keypoints_xy, other.keypoints_xy)


def test_parts_of_a_step_are_the_rows_of_the_whole() -> None:
    batch = dots(8, 0)
    whole = view_of(batch, AugmentOptions(half_body_probability=0.5, occlusion_probability=1.0))
    for index in range(2):
        rows = slice(4 * index, 4 * index + 4)
        half = PoseBatch(batch.pixels[rows], batch.keypoints_xy[rows], batch.visibility[rows])
        part = view_of(half, AugmentOptions(half_body_probability=0.5, occlusion_probability=1.0), part=(index, 2))
        assert torch.allclose(part.crops, whole.crops[rows], atol=1e-6)
        assert torch.allclose(part.keypoints_xy, whole.keypoints_xy[rows], atol=1e-4)
        assert torch.equal(part.visibility, whole.visibility[rows])


def test_crops_are_ready_for_the_network() -> None:
    view = view_of(dots(3, 0), AugmentOptions())
    assert view.crops.shape == (3, 3, *SIZE)
    assert view.crops.dtype == torch.float32
    assert view.crops.is_contiguous(memory_format=torch.channels_last)


def test_strength_scales_everything_but_the_flip() -> None:
    full = AugmentOptions()
    assert full.scaled(1.0) == full
    half = full.scaled(0.5)
    assert half.scale == pytest.approx((0.825, 1.175))
    assert half.rotation_deg == full.rotation_deg / 2
    assert half.occlusion_probability == full.occlusion_probability / 2
    assert half.flip_probability == full.flip_probability
    none = full.scaled(0.0)
    assert none.scale == (1.0, 1.0)
    assert replace(none, flip_probability=0.0) == PLAIN
