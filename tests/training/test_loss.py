from __future__ import annotations

import math

import pytest
import torch

from cpnpose.models.cpn import CPNMaps
from cpnpose.pose.heatmaps import gaussian_targets, target_sigmas
from cpnpose.training.loss import cpn_loss, location_loss

SIZE = (64, 48)
H, W = 16, 12


def example(people: int = 3, seed: int = 0) -> tuple[CPNMaps, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    maps = [40 * torch.randn(people, 17, H, W, generator=generator, dtype=torch.float64).float() for _ in range(5)]
    xy = torch.rand(people, 17, 2, generator=generator) * torch.tensor([SIZE[1], SIZE[0]])
    visibility = torch.randint(0, 3, (people, 17), generator=generator, dtype=torch.uint8)
    return CPNMaps(maps[:4], maps[4]), xy, visibility


def target(x: float, y: float, sigma: float, quantised: bool) -> list[list[float]]:
    column, row = (math.floor(x / 4), math.floor(y / 4)) if quantised else (x / 4 - 0.5, y / 4 - 0.5)
    return [
        [255 * math.exp(-((j - column) ** 2 + (i - row) ** 2) / (2 * sigma**2)) for j in range(W)] for i in range(H)
    ]


def slow_losses(maps: CPNMaps, xy: torch.Tensor, v: torch.Tensor, published: bool) -> tuple[float, float]:
    """Both losses by the definition, number by number."""
    sigmas = target_sigmas(SIZE)
    people = len(xy)

    def error(predicted: torch.Tensor, wanted: list[list[float]] | None) -> float:
        values = predicted.tolist()
        return sum((values[i][j] - (wanted[i][j] if wanted else 0.0)) ** 2 for i in range(H) for j in range(W)) / (
            H * W
        )

    global_loss = refine_loss = 0.0
    for n in range(people):
        hard = []
        for k in range(17):
            x, y = xy[n, k].tolist()
            for level in range(4):
                if v[n, k] > 0 or published:
                    wanted = target(x, y, sigmas[level], published) if v[n, k] == 2 else None
                    global_loss += error(maps.global_maps[level][n, k], wanted) / 17 / people / (2 if published else 1)
            hard.append(error(maps.refined[n, k], target(x, y, sigmas[3], published)) if v[n, k] > 0 else 0.0)
        refine_loss += sum(sorted(hard, reverse=True)[:8]) / 8 / people
    return global_loss, refine_loss


@pytest.mark.parametrize("published", [False, True])
def test_losses_agree_with_the_definition(published: bool) -> None:
    """As published, GlobalNet's loss is half of the mean square, and a keypoint without a label is a target without a
    peak there (pytorch-cpn's and tf-cpn's training)."""
    maps, xy, visibility = example()
    loss = cpn_loss(maps, xy, visibility, SIZE, published=published)
    expected = slow_losses(maps, xy, visibility, published)
    assert (float(loss.global_loss), float(loss.refine_loss)) == pytest.approx(expected, rel=1e-5)
    assert float(loss.total) == pytest.approx(sum(expected), rel=1e-5)


def test_unlabelled_keypoints_count_in_neither_loss() -> None:
    maps, xy, visibility = example()
    leaves = [level.requires_grad_() for level in (*maps.global_maps, maps.refined)]
    cpn_loss(maps, xy, visibility, SIZE).total.backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert (leaf.grad[visibility == 0] == 0).all()
    assert all((leaf.grad[visibility > 0].abs().amax((-1, -2)) > 0).all() for leaf in leaves[:4])


def test_people_without_any_label_cost_nothing() -> None:
    maps, xy, visibility = example()
    assert float(cpn_loss(maps, xy, torch.zeros_like(visibility), SIZE).total) == 0


def test_hidden_keypoints_have_an_empty_target_in_the_global_maps_only() -> None:
    _, xy, _ = example(1)
    hidden = torch.ones(1, 17, dtype=torch.uint8)
    empty = torch.zeros(1, 17, H, W)
    loss = cpn_loss(CPNMaps([empty] * 4, empty), xy, hidden, SIZE)
    assert float(loss.global_loss) == 0
    assert float(loss.refine_loss) > 1


def test_only_the_eight_hardest_keypoints_get_a_gradient() -> None:
    maps, xy, _ = example(1)
    visibility = torch.full((1, 17), 2, dtype=torch.uint8)
    refined = maps.refined.clone().requires_grad_()
    cpn_loss(CPNMaps(maps.global_maps, refined), xy, visibility, SIZE).refine_loss.backward()
    sigma = target_sigmas(SIZE)[3]
    wanted = torch.tensor([target(*xy[0, k].tolist(), sigma, False) for k in range(17)])
    errors = (maps.refined[0] - wanted).square().mean((-1, -2))
    assert refined.grad is not None
    assert refined.grad[0].abs().amax((-1, -2)).nonzero()[:, 0].tolist() == sorted(errors.topk(8).indices.tolist())


def test_gradients_are_those_of_the_formula() -> None:
    maps, xy, visibility = example()
    level = maps.global_maps[0].clone().requires_grad_()
    cpn_loss(CPNMaps([level, *maps.global_maps[1:]], maps.refined), xy, visibility, SIZE).global_loss.backward()
    n, k = (visibility == 2).nonzero()[0].tolist()
    wanted = torch.tensor(target(*xy[n, k].tolist(), target_sigmas(SIZE)[0], False))
    expected = 2 * (maps.global_maps[0][n, k] - wanted) / (H * W) / 17 / len(xy)
    assert level.grad is not None
    assert torch.allclose(level.grad[n, k], expected, atol=1e-6)


def test_bfloat16_maps_get_bfloat16_gradients_of_a_float32_loss() -> None:
    maps, xy, visibility = example()
    halves = [level.bfloat16().requires_grad_() for level in (*maps.global_maps, maps.refined)]
    loss = cpn_loss(CPNMaps(halves[:4], halves[4]), xy, visibility, SIZE)
    assert loss.total.dtype == torch.float32
    loss.total.backward()
    assert all(half.grad is not None and half.grad.dtype == torch.bfloat16 for half in halves)
    assert float(loss.total) == pytest.approx(float(cpn_loss(maps, xy, visibility, SIZE).total), rel=0.01)


def test_the_maps_are_left_alone() -> None:
    maps, xy, visibility = example()
    before = [level.clone() for level in (*maps.global_maps, maps.refined)]
    cpn_loss(maps, xy, visibility, SIZE)
    assert all(torch.equal(a, b) for a, b in zip(before, (*maps.global_maps, maps.refined), strict=True))


def slow_location_loss(maps: torch.Tensor, xy: torch.Tensor, labelled: torch.Tensor, sigma: float) -> float:
    total, narrow = 0.0, sigma * math.sqrt(0.1)
    for n in range(len(xy)):
        for k in range(17):
            if not labelled[n, k]:
                continue
            x, y = (xy[n, k] / 4 - 0.5).tolist()
            wanted = [math.exp(-((j - x) ** 2 + (i - y) ** 2) / (2 * narrow**2)) for i in range(H) for j in range(W)]
            logits = [value * 10 / 255 for value in maps[n, k].flatten().tolist()]
            norm = math.log(sum(math.exp(value) for value in logits))
            total -= sum(w / sum(wanted) * (logit - norm) for w, logit in zip(wanted, logits, strict=True))
    return total / 17 / len(xy)


def test_the_location_loss_is_a_cross_entropy_over_the_pixels() -> None:
    maps, xy, visibility = example()
    labelled = visibility > 0
    found = location_loss(maps.refined, xy, labelled, 1.4)
    assert float(found) == pytest.approx(slow_location_loss(maps.refined, xy, labelled, 1.4), rel=1e-4)


def test_perfect_maps_have_little_location_loss_and_moved_peaks_much() -> None:
    _, xy, visibility = example()
    xy = xy.clamp(8, 40)
    labelled = torch.ones_like(visibility) > 0
    perfect = gaussian_targets(xy, labelled, 1.4, (H, W))
    moved = gaussian_targets(xy + 12, labelled, 1.4, (H, W))
    uniform = math.log(H * W)
    assert float(location_loss(perfect, xy, labelled, 1.4)) < 0.35 * uniform
    assert float(location_loss(moved, xy, labelled, 1.4)) > uniform


def test_location_loss_joins_both_losses_by_its_weight() -> None:
    maps, xy, visibility = example()
    plain, both = (cpn_loss(maps, xy, visibility, SIZE, location_weight=weight) for weight in (0.0, 3.0))
    sigmas = target_sigmas(SIZE)
    levels = sum(float(location_loss(m, xy, visibility > 1, s)) for m, s in zip(maps.global_maps, sigmas, strict=True))
    assert float(both.global_loss - plain.global_loss) == pytest.approx(3 * levels, rel=1e-3)
    refined = float(location_loss(maps.refined, xy, visibility > 0, sigmas[3]))
    assert float(both.refine_loss - plain.refine_loss) == pytest.approx(3 * refined, rel=1e-3)
