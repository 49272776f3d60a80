"""Skeletons where the keypoints are, nothing below the threshold, and heads that nobody can recognise."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from cpnpose.errors import OptionError
from cpnpose.media.blur import head_ellipses, people_mask
from cpnpose.media.draw import (
    LEFT_COLOR,
    MIDDLE_COLOR,
    RIGHT_COLOR,
    Background,
    DrawStyle,
    draw_poses,
    id_color,
    joint_sizes,
    line_widths,
)
from cpnpose.pose.types import Poses

# A person who faces the camera, in a box of 100 x 250: the person's left is on the right of the picture.
STANDING = np.array(
    [
        (50, 20), (55, 15), (45, 15), (62, 18), (38, 18), (75, 50), (25, 50), (85, 90), (15, 90), (88, 125), (12, 125),
        (68, 130), (32, 130), (70, 185), (30, 185), (72, 240), (28, 240),
    ],
    np.float32,
)  # fmt: skip


def people(*places: tuple[float, float, float], score: float = 1.3, ids: list[int] | None = None) -> Poses:
    """Standing people at (x, y, scale)."""
    corner = np.array([(x, y) for x, y, _ in places], np.float32).reshape(-1, 2)
    scale = np.array([s for *_, s in places], np.float32)
    count = len(places)
    return Poses(
        keypoints_xy=STANDING[None] * scale[:, None, None] + corner[:, None],
        keypoint_scores=np.full((count, 17), score, np.float32),
        scores=np.ones(count, np.float32),
        boxes_xyxy=np.concatenate([corner, corner + scale[:, None] * [100, 250]], axis=1).astype(np.float32),
        box_scores=np.ones(count, np.float32),
        track_ids=None if ids is None else np.array(ids),
    )


def texture(height: int = 300, width: int = 400) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)


def plain(height: int = 300, width: int = 400) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def color_at(image: np.ndarray, x: float, y: float) -> tuple[int, ...]:
    return tuple(image[int(y), int(x)].tolist())


def test_left_right_and_middle_have_their_colours() -> None:
    poses = people((100, 20, 1))
    image = draw_poses(plain(), poses)
    for keypoint, expected in (
        (0, MIDDLE_COLOR),
        (7, LEFT_COLOR),
        (15, LEFT_COLOR),
        (8, RIGHT_COLOR),
        (16, RIGHT_COLOR),
    ):
        assert color_at(image, *poses.keypoints_xy[0, keypoint]) == expected
    for (a, b), expected in (
        ((5, 7), LEFT_COLOR),
        ((12, 14), RIGHT_COLOR),
        ((5, 6), MIDDLE_COLOR),
        ((11, 12), MIDDLE_COLOR),
    ):
        assert color_at(image, *poses.keypoints_xy[0, [a, b]].mean(axis=0)) == expected


def test_the_given_image_stays_as_it_is() -> None:
    image = texture()
    before = image.copy()
    for background in ("keep", "black", "blur"):
        draw_poses(image, people((100, 20, 1)), DrawStyle(background=background, draw_boxes=True, blur_faces=True))
    assert np.array_equal(image, before)


def test_nobody() -> None:
    image = texture()
    assert np.array_equal(draw_poses(image, Poses.empty()), image)
    assert not draw_poses(image, Poses.empty(), DrawStyle(background="black")).any()
    assert draw_poses(image, Poses.empty(), DrawStyle(background="blur", blur_faces=True)).shape == image.shape


def test_low_scores_are_not_drawn() -> None:
    poses = people((100, 20, 1))
    poses.keypoint_scores[0, 9] = 0.59
    image = draw_poses(plain(), poses)
    assert color_at(image, *poses.keypoints_xy[0, 9]) == (90, 90, 90)
    assert color_at(image, *poses.keypoints_xy[0, [7, 9]].mean(axis=0)) == (90, 90, 90)
    assert color_at(image, *poses.keypoints_xy[0, 7]) == LEFT_COLOR
    assert color_at(draw_poses(plain(), poses, DrawStyle(threshold=0.5)), *poses.keypoints_xy[0, 9]) == LEFT_COLOR
    assert np.array_equal(draw_poses(plain(), people((100, 20, 1), score=0.5)), plain())


def test_the_threshold_itself_is_drawn() -> None:
    assert not np.array_equal(draw_poses(plain(), people((100, 20, 1), score=0.61)), plain())
    assert not np.array_equal(draw_poses(plain(), people((100, 20, 1), score=1.0), DrawStyle(threshold=1.0)), plain())


def test_a_joint_with_half_a_place_is_not_drawn() -> None:
    poses, without = people((100, 20, 1)), people((100, 20, 1))
    poses.keypoints_xy[0, 9, 0] = np.nan
    without.keypoint_scores[0, 9] = 0
    assert np.array_equal(draw_poses(plain(), poses), draw_poses(plain(), without))


def test_who_is_nearer_lies_on_top_in_any_order() -> None:
    """The left wrist of somebody far away is where the right ankle of somebody near is."""
    near = (50, 20, 1)
    ankle = STANDING[16] + (50, 20)
    far = (ankle[0] - 0.4 * STANDING[9, 0], ankle[1] - 0.4 * STANDING[9, 1], 0.4)
    for order in ((near, far), (far, near)):
        assert color_at(draw_poses(plain(), people(*order)), *ankle) == RIGHT_COLOR


def test_lines_have_a_dark_outline_that_shows_on_any_ground() -> None:
    for level in (90, 255):
        image = draw_poses(np.full((300, 400, 3), level, np.uint8), people((100, 20, 1)))
        assert (image.max(axis=2) < 60).sum() > 50


def test_thickness_follows_the_person() -> None:
    assert line_widths(people((0, 0, 1), (0, 0, 4), (0, 0, 0.1), (0, 0, 40))).tolist() == [2, 8, 1, 16]
    assert line_widths(Poses.empty()).shape == (0,)
    assert joint_sizes(people((0, 0, 1), (0, 0, 4), (0, 0, 0.2), (0, 0, 40))).tolist() == [5, 17, 2, 33]


def test_small_people_are_no_blobs() -> None:
    small = draw_poses(plain(), people((50, 20, 0.2), (120, 20, 0.16)))
    for x, width, height, most in ((50, 20, 50, 0.6), (120, 16, 40, 0.6)):
        box = small[20 : 20 + height, x : x + width]
        assert 0.1 < (box != 90).any(axis=2).mean() < most  # a skeleton, and the picture in between
        for color in (LEFT_COLOR, RIGHT_COLOR):
            assert (np.abs(box.astype(int) - color).sum(axis=2) < 60).any()


def test_positions_are_exact_to_a_part_of_a_pixel() -> None:
    poses = people((100, 20, 1))
    for shift in (0.0, 0.25, 0.5):
        poses.keypoints_xy[0, 9] = (300 + shift, 200 + shift)
        poses.keypoint_scores[0] = 0
        poses.keypoint_scores[0, 9] = 1.4
        image = draw_poses(np.zeros((300, 400, 3), np.uint8), poses)[..., 2].astype(float)
        y, x = np.mgrid[:300, :400] + 0.5
        assert (x * image).sum() / image.sum() == pytest.approx(300 + shift, abs=0.1)
        assert (y * image).sum() / image.sum() == pytest.approx(200 + shift, abs=0.1)


def test_wild_coordinates_do_no_harm() -> None:
    poses = people((100, 20, 1), (-5000, 90000, 1), (380, 290, 3), (1, 1, 0))
    poses.keypoints_xy[0, 3] = np.nan
    poses.keypoints_xy[0, 4] = np.inf
    poses.boxes_xyxy[3] = np.nan
    for background in ("keep", "black", "blur"):
        style = DrawStyle(background=background, draw_boxes=True, draw_ids=True, blur_faces=True)
        assert draw_poses(texture(), poses, style).shape == (300, 400, 3)


def test_boxes_and_ids() -> None:
    poses = people((100, 20, 1), (220, 20, 1), (10, 20, 0.5), ids=[3, 8, -1])
    bare = draw_poses(plain(), poses)
    boxed = draw_poses(plain(), poses, DrawStyle(draw_boxes=True))
    assert color_at(bare, 100, 270) == (90, 90, 90)
    assert color_at(boxed, 200, 269) != (90, 90, 90)
    numbered = draw_poses(plain(), poses, DrawStyle(draw_ids=True))
    assert (numbered[:60, 110:190] == id_color(3)).all(axis=2).any()
    assert (numbered[:60, 230:310] == id_color(8)).all(axis=2).any()
    assert np.array_equal(numbered[:18, 10:60], plain()[:18, 10:60])
    assert id_color(3) != id_color(8)


def test_boxes_are_their_four_sides() -> None:
    changed = (draw_poses(plain(), people((100, 20, 1), score=0), DrawStyle(draw_boxes=True)) != 90).any(axis=2)
    for x, y in ((100, 145), (200, 145), (150, 20), (150, 270)):
        assert changed[y - 1 : y + 1, x - 1 : x + 1].any()
    assert not changed[25:265, 105:195].any()


@pytest.mark.parametrize("place", [(100, 20), (395, 100), (-90, 100), (100, -60), (100, 290)])
def test_the_id_of_somebody_at_the_edge_can_be_read(place: tuple[int, int]) -> None:
    poses = people((*place, 1), score=0, ids=[3])
    inside, here = people((150, 40, 1), score=0, ids=[3]), DrawStyle(draw_ids=True)
    shown, whole = ((draw_poses(plain(), p, here) == id_color(3)).all(axis=2).sum() for p in (poses, inside))
    assert shown > 0.9 * whole > 0


def test_who_has_no_id_has_no_number() -> None:
    numbers = DrawStyle(draw_ids=True, draw_unnamed=True)
    assert np.array_equal(draw_poses(plain(), people((100, 20, 1), score=0, ids=[-1]), numbers), plain())


def test_following_ids_have_hues_far_apart() -> None:
    hues = np.array([colorsys.rgb_to_hsv(*(value / 255 for value in id_color(number)))[0] for number in range(1, 40)])
    apart = np.abs(np.diff(hues))
    assert np.minimum(apart, 1 - apart).min() > 0.3


def test_heads_are_covered_on_a_blurred_background_too() -> None:
    image, poses = texture(), people((150, 20, 1))
    style = DrawStyle(background="blur", blur_faces=True, threshold=9.0)
    region = (slice(32, 42), slice(190, 210))
    assert draw_poses(image, poses, style).astype(float)[region].std() < 0.35 * image[region].std()


def label_of(image: np.ndarray, track_id: int) -> tuple[int, int, int, int]:
    """The rectangle (x1, y1, x2, y2) of the label of an id."""
    y, x = np.nonzero((image == id_color(track_id)).all(axis=2))
    return int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1


def overlap(a: tuple[int, int, int, int], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize(
    "places",
    [
        [(150, 120, 0.6), (150, 45, 0.6)],  # the head of the second is where the label of the first would be
        [(150, 120, 0.6), (160, 122, 0.6), (170, 120, 0.6), (178, 119, 0.6)],  # shoulder to shoulder
        [(150, -1, 1.1)],  # no room above
        [(-12, 0, 1), (315, 0, 1)],  # in the corners
    ],
)
def test_labels_lie_at_their_person_and_on_no_head_or_label(places: list[tuple[float, float, float]]) -> None:
    ids = list(range(1, len(places) + 1))
    poses = people(*places, ids=ids)
    image = draw_poses(np.zeros((300, 400, 3), np.uint8), poses, DrawStyle(draw_ids=True, threshold=9.0))
    labels = [label_of(image, i) for i in ids]
    heads = [(x + 38 * s, y + 12 * s, x + 62 * s, y + 22 * s) for x, y, s in places]  # from ear to ear
    for number, label in enumerate(labels):
        assert not any(overlap(label, head) for head in heads)
        assert not any(overlap(label, other) for other in labels[:number])
        assert 0 <= label[0] < label[2] <= 400
        assert 0 <= label[1] < label[3] <= 300
        x1, y1, x2, y2 = poses.boxes_xyxy[number].tolist()
        assert overlap(label, (x1 - 20, y1 - 20, x2 + 20, y2 + 20))


def test_a_label_keeps_off_the_bodies_of_others_where_there_is_room() -> None:
    for x in (155, 163):  # the head, and the corner of the box, of the second below a knee of the first
        poses = people((100, 20, 1), (x, 215, 0.3), ids=[1, 2])
        image = draw_poses(np.zeros((300, 400, 3), np.uint8), poses, DrawStyle(draw_ids=True))
        x1, y1, x2, y2 = label_of(image, 2)
        covered = ((poses.keypoints_xy[0] >= (x1, y1)) & (poses.keypoints_xy[0] <= (x2, y2))).all(axis=1)
        assert not covered.any()


def test_black_background_shows_the_skeleton_only() -> None:
    image = draw_poses(texture(), people((100, 20, 1)), DrawStyle(background="black"))
    assert (image == 0).all(axis=2).mean() > 0.9
    assert image.any()


@pytest.mark.parametrize("background", ["keep", "black", "blur"])
def test_a_turned_view_is_drawn_on_like_its_copy(background: Background) -> None:
    turned, style = np.rot90(texture(400, 300)), DrawStyle(background=background)
    poses = people((100, 20, 1))
    assert np.array_equal(draw_poses(turned, poses, style), draw_poses(turned.copy(), poses, style))


def test_blurred_background_keeps_people_sharp() -> None:
    image, poses = texture(), people((150, 20, 1))
    result = draw_poses(image, poses, DrawStyle(background="blur", threshold=9.0))
    assert np.array_equal(result[100:120, 190:210], image[100:120, 190:210])
    assert result[:, :100].std() < 0.3 * image[:, :100].std()
    mask = people_mask(poses, (300, 400))
    assert mask.shape == (75, 100)
    assert mask[25, 50] == 255
    assert mask[:, :25].max() == 0


@pytest.mark.parametrize("known", ["all", "head", "one eye", "shoulders", "nothing"])
def test_the_head_is_covered_whatever_is_known(known: str) -> None:
    poses = people((150, 20, 1))
    sure = {"all": range(17), "head": range(5), "one eye": [1], "shoulders": [5, 6], "nothing": []}[known]
    poses.keypoint_scores[:] = 0.52
    poses.keypoint_scores[0, list(sure)] = 1.2
    if known in ("shoulders", "nothing"):
        poses.keypoints_xy[0, :5] = (390, 290)
    if known == "nothing":
        poses.keypoints_xy[0] = (390, 290)
    image = texture()
    result = draw_poses(image, poses, DrawStyle(blur_faces=True, threshold=9.0)).astype(float)
    centers, axes = head_ellipses(poses)
    face = STANDING[:5] + np.array([150, 20])
    assert ((((face - centers[0]) / axes[0]) ** 2).sum(axis=1) < 1).all()
    region = (slice(32, 42), slice(190, 210))
    assert result[region].std() < 0.35 * image[region].std()
    assert np.array_equal(result[150:], image[150:])


def test_a_head_at_the_border_is_covered() -> None:
    for place in ((-45, -10, 1), (345, -10, 1), (150, -18, 1)):
        image, poses = texture(), people(place)
        result = draw_poses(image, poses, DrawStyle(blur_faces=True, threshold=9.0)).astype(float)
        x = int(np.clip(poses.keypoints_xy[0, 0, 0], 5, 394))
        region = (slice(0, 10), slice(x - 5, x + 5))
        assert result[region].std() < 0.4 * image[region].std()


def test_a_blurred_head_keeps_no_detail() -> None:
    stripes = plain(900, 900)
    stripes[:, ::12] = 255
    poses = people((300, 50, 3))
    result = draw_poses(stripes, poses, DrawStyle(blur_faces=True, threshold=9.0)).astype(float)
    x, y = poses.keypoints_xy[0, 0].astype(int)
    assert np.ptp(result[y - 10 : y + 10, x - 40 : x + 40]) < 12


def test_impossible_background() -> None:
    with pytest.raises(OptionError):
        DrawStyle(background="white")  # type: ignore[arg-type]


def test_who_has_no_id_while_others_are_tracked_is_drawn_on_request_only() -> None:
    both, one = people((100, 20, 1), (220, 20, 1), ids=[3, -1]), people((100, 20, 1), ids=[3])
    boxes = DrawStyle(draw_boxes=True)
    assert np.array_equal(draw_poses(plain(), both, boxes), draw_poses(plain(), one, boxes))
    untracked = draw_poses(plain(), people((100, 20, 1), (220, 20, 1)))
    assert np.array_equal(draw_poses(plain(), both, DrawStyle(draw_unnamed=True)), untracked)
    # a face stays covered all the same
    hidden = draw_poses(texture(), people((100, 20, 1), ids=[-1]), DrawStyle(blur_faces=True))
    assert not np.array_equal(hidden, texture())


def test_drawing_in_place_draws_on_the_image_itself_where_it_owns_its_memory() -> None:
    poses = people((100, 20, 1))
    own, wanted = plain(), draw_poses(plain(), poses)
    assert draw_poses(own, poses, in_place=True) is own
    np.testing.assert_array_equal(own, wanted)
    view = memoryview(plain().tobytes())  # as of a decoder, which may still need it
    borrowed = np.frombuffer(view, np.uint8).reshape(300, 400, 3)
    np.testing.assert_array_equal(draw_poses(borrowed, poses, in_place=True), wanted)
    np.testing.assert_array_equal(borrowed, plain())
