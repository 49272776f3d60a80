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
    assert [clock.stamp(7), clock.stamp(None, 33)] == [7, 40]


def test_times_behind_those_that_were_missing_go_on() -> None:
    assert stamps([None, None, None, 20, 60, 100]) == [0, 40, 80, 120, 160, 200]
    assert stamps([0, None, 40, 80]) == [0, 40, 41, 80]  # a single one that was guessed a little late


def test_repeated_times_move_by_a_tick() -> None:
    assert stamps([0, 40, 40, 40, 120]) == [0, 40, 41, 42, 120]


def test_after_a_jump_back_time_goes_on() -> None:
    assert stamps([5000, 5040, 0, 40, 80]) == [5000, 5040, 5080, 5120, 5160]
