"""Timestamps that grow, whatever the stream says."""

from __future__ import annotations

from fractions import Fraction

from cpnpose.media.timing import FrameClock


def stamps(given: list[int | None], fps: Fraction | None = Fraction(25)) -> list[int]:
    clock = FrameClock(Fraction(1, 1000), fps)
    return [clock.stamp(pts) for pts in given]


def test_good_times_pass() -> None:
    assert stamps([5, 45, 46, 300]) == [5, 45, 46, 300]


def test_missing_times_go_on_at_the_frame_rate() -> None:
    assert stamps([None, None, 100, None, 180]) == [0, 40, 100, 140, 180]
    assert FrameClock(Fraction(1, 1000), None).stamp(None, 33) == 0
    clock = FrameClock(Fraction(1, 1000), Fraction(25))
    assert [clock.stamp(7), clock.stamp(None, 33), clock.stamp(None, 0)] == [7, 40, 80]
    assert stamps([None, None], fps=None) == [0, 40]  # 25 fps where nobody says


def test_the_end_is_that_of_the_last_frame() -> None:
    clock = FrameClock(Fraction(1, 1000), Fraction(25))
    assert clock.end == 0
    clock.stamp(100)
    assert clock.end == 140
    clock.stamp(140, 500)
    assert clock.end == 640


def test_times_behind_those_that_were_missing_go_on() -> None:
    assert stamps([None, None, None, 20, 60, 100]) == [0, 40, 80, 120, 160, 200]
    assert stamps([0, None, 40, 80]) == [0, 40, 41, 80]  # a single one that was guessed a little late
    assert stamps([None, None, 0, 40]) == [0, 40, 80, 120]
    assert stamps([0, None, 100, 60, 140]) == [0, 40, 100, 101, 140]  # none was missing just before


def test_repeated_times_move_by_a_tick() -> None:
    assert stamps([0, 40, 40, 40, 120]) == [0, 40, 41, 42, 120]


def test_after_a_jump_back_time_goes_on() -> None:
    assert stamps([5000, 5040, 0, 40, 80]) == [5000, 5040, 5080, 5120, 5160]
    assert stamps([5000, 0, 3000, 0, 100]) == [5000, 5040, 8040, 8080, 8180]
