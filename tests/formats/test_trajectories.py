from __future__ import annotations

import tracemalloc
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from cpnpose.errors import OptionError
from cpnpose.formats import ImageResult
from cpnpose.formats.trajectories import Trajectories


def test_people_over_time(clip):
    with Trajectories.collect(clip) as people:
        assert people.ids == (1, 3)
        assert people.indices.tolist() == [0, 1, 2, 3, 4]
        np.testing.assert_allclose(people.times, [result.frame.time_s for result in clip])
        track = people.person(3)
        present = list(people.frames())
    assert track.shape == (5, 17, 3)
    assert np.isnan(track[[1, 3]]).all()
    for frame, row in ((0, 1), (2, 0), (4, 0)):
        np.testing.assert_array_equal(track[frame, :, :2], clip[frame].poses.keypoints_xy[row])
        np.testing.assert_array_equal(track[frame, :, 2], clip[frame].poses.keypoint_scores[row])
        np.testing.assert_array_equal(present[frame][3], track[frame])
    assert [sorted(entry) for entry in present] == [[1, 3], [], [3], [1], [1, 3]]


def test_one_person_needs_no_id(make_poses, make_result):
    frames = [make_result(0, make_poses(1)), make_result(1, make_poses(0)), make_result(2, make_poses(1, seed=1))]
    with Trajectories.collect(frames) as people:
        assert people.ids == (1,)
        np.testing.assert_array_equal(people.person(1)[2, :, :2], frames[2].poses.keypoints_xy[0])


def test_several_people_without_ids_are_not_guessed(make_poses, make_result):
    with pytest.raises(OptionError, match="cpnpose track"):
        Trajectories.collect([make_result(0, make_poses(2))])


def test_nobody(make_poses, make_result):
    with Trajectories.collect([make_result(0, make_poses(0))]) as people:
        assert people.ids == ()
        assert list(people.frames()) == [{}]


def test_choosing_a_person(clip):
    with Trajectories.collect(clip) as people:
        assert people.choose(None) == (1, 3)
        assert people.choose(3) == (3,)
        with pytest.raises(OptionError, match="1, 3"):
            people.choose(2)


def test_rate(header, clip, make_result):
    with Trajectories.collect(clip) as people:
        assert people.rate(header) == pytest.approx(30000 / 1001, abs=1e-12)
    every_second = clip[::2]
    with Trajectories.collect(every_second) as people:
        assert people.rate(header) == pytest.approx(15000 / 1001, abs=1e-12)
    slow = [make_result(index, clip[0].poses, pts=index * 6000) for index in range(3)]
    with Trajectories.collect(slow) as people:
        assert people.rate(header) == pytest.approx(5.0)
    with Trajectories.collect(clip[:1]) as people:
        assert people.rate(replace(header, fps=Fraction(25))) == 25


def test_poses_do_not_stay_in_memory(make_poses, make_result):
    poses = make_poses([1, 2, 3, 4])

    def peak(count):
        tracemalloc.start()
        with Trajectories.collect(make_result(index, poses) for index in range(count)):
            size = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return size

    assert peak(2000) - peak(200) < 1800 * 250  # the poses would be 1800 * 4 * 220 bytes


def test_several_people_in_images_are_not_sent_to_track(clip, make_poses):
    """It takes no images."""
    with pytest.raises(OptionError, match="another format"):
        Trajectories.collect([ImageResult(clip[0].frame, make_poses(2), file="a.png")])
