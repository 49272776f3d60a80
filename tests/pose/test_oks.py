from __future__ import annotations

import numpy as np
import pytest

from cpnpose.pose.keypoints import OKS_SIGMAS
from cpnpose.pose.oks import oks


def random_people(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 200, (count, 17, 2))


def test_identical_poses_have_similarity_one() -> None:
    people = random_people(3, 0)
    result = oks(people, people, np.ones((3, 17), bool), np.full(3, 5000.0))
    assert result.shape == (3, 3)
    np.testing.assert_allclose(np.diag(result), 1.0)
    assert result[0, 1] < 0.5


def test_known_value_of_one_keypoint() -> None:
    true = np.zeros((1, 17, 2))
    predicted = true.copy()
    predicted[0, 0] = (3, 4)
    visible = np.zeros((1, 17), bool)
    visible[0, 0] = True
    expected = np.exp(-25 / (2 * 1000.0 * (2 * 0.026) ** 2))
    assert oks(predicted, true, visible, np.array([1000.0]))[0, 0] == pytest.approx(expected, rel=1e-6)


def test_unlabelled_keypoints_do_not_count_even_when_not_numbers() -> None:
    true = random_people(1, 1)
    predicted = true.copy()
    predicted[0, 5:] += 1000
    true[0, 5:] = np.nan
    visible = np.arange(17)[None] < 5
    assert oks(predicted, true, visible, np.array([4000.0]))[0, 0] == pytest.approx(1.0)


def test_person_without_labels_and_empty_sides() -> None:
    people = random_people(2, 2)
    assert oks(people, people, np.zeros((2, 17), bool), np.full(2, 9.0)).max() == 0
    assert oks(np.zeros((0, 17, 2)), people, np.ones((2, 17), bool), np.full(2, 9.0)).shape == (0, 2)
    assert oks(people, np.zeros((0, 17, 2)), np.zeros((0, 17), bool), np.zeros(0)).shape == (2, 0)


def test_a_person_without_extent_is_like_nobody_but_itself() -> None:
    people = random_people(2, 5)
    np.testing.assert_array_equal(oks(people, people, np.ones((2, 17), bool), np.zeros(2)), np.eye(2))


@pytest.mark.parametrize("exponent", [710.0, 744.0, 1e6])
def test_who_is_far_away_is_like_nobody_to_the_last_bit(exponent: float) -> None:
    """Numbers below the normal ones take hundreds of times as long, and in a crowd most pairs are so far apart."""
    true = random_people(1, 2)
    predicted = true + np.array([np.sqrt(exponent * 2 * 400) * 0.2, 0.0])
    sigmas = np.full(17, 0.1)
    assert oks(predicted, true, np.ones((1, 17), bool), np.array([400.0]), sigmas)[0, 0] == 0.0


def test_agrees_with_pycocotools() -> None:
    coco_module = pytest.importorskip("pycocotools.coco")
    evaluation_module = pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(3)
    true = random_people(4, 4)
    predicted = true[[0, 1, 2]] + rng.normal(0, 6, (3, 17, 2))
    visible = rng.random((4, 17)) < 0.7
    area = rng.uniform(2000, 9000, 4)

    def flat(points: np.ndarray, flags: np.ndarray) -> list[float]:
        return np.concatenate([points, flags[:, None] * 2.0], axis=1).ravel().tolist()

    truth = coco_module.COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": 1}],
        "categories": [{"id": 1}],
        "annotations": [
            {
                "id": i + 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "area": area[i],
                "bbox": [0, 0, 200, 200],
                "num_keypoints": int(visible[i].sum()),
                "keypoints": flat(true[i], visible[i]),
            }
            for i in range(4)
        ],
    }
    truth.createIndex()
    results = truth.loadRes(
        [
            {"image_id": 1, "category_id": 1, "score": 1 - 0.1 * i, "keypoints": flat(predicted[i], np.ones(17))}
            for i in range(3)
        ]
    )
    evaluation = evaluation_module.COCOeval(truth, results, "keypoints")
    evaluation.params.imgIds = [1]
    evaluation.params.catIds = [1]
    evaluation._prepare()
    expected = evaluation.computeOks(1, 1)
    assert OKS_SIGMAS.shape == (17,)
    np.testing.assert_allclose(oks(predicted, true, visible, area), expected, rtol=1e-5)
