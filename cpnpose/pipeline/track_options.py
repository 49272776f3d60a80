"""How identities are given."""

from __future__ import annotations

from dataclasses import dataclass

from cpnpose.errors import OptionError


@dataclass(frozen=True)
class TrackerOptions:
    """How ids are given. Box scores are the detector's, in [0, 1]."""

    memory_s: float = 2.5
    """Somebody who comes back within so many seconds keeps the id, where the motion leads there."""
    confirm_s: float = 0.2
    """A person gets an id after being seen for so long; at once in the first frame or where sure."""
    confident_score: float = 0.5
    """Box score from which a pose starts a person."""
    weak_score: float = 0.1
    """Box score from which a pose may continue a person."""
    slow_score: float = 0.25
    """Box score from which a pose that stands apart from all others starts a person too, for ``slow_confirm_s``. Where
    it is not below ``confident_score``, weak poses start nobody, and continue only those who were confident for most of
    the last second: a weak pose that gets no id then leaves no trace in the tracker."""
    slow_confirm_s: float = 1.5
    """A doubtful person gets an id after being seen for so long: one who never reached ``confident_score``, and one
    whose pose is not sure and whose box is part of another person's, or appeared away from the picture's edges, or
    whose box is the box around several people."""
    sure_score: float = 0.9
    """Box score from which a person with a sure pose gets an id at once."""
    sure_pose: float = 0.95
    """Mean keypoint score from which a pose is sure."""
    reach: float = 1.0
    """How far, in sizes of the person, the error of the expected place may grow while the person is lost."""
    min_likeness: float = 0.1
    """Likeness, 0 to 1, under which a pose is not the same person."""
    far_better: float = 0.3
    """A confident pose leaves a person to a weak one that is so much more alike, 0 to 1, and is doubtful then: mostly
    its box is the box around that person and a neighbour."""
    duplicate_oks: float = 0.8
    """A new pose this similar to one that has an owner in the same frame is a second detection of that person."""

    def __post_init__(self) -> None:
        if self.memory_s < 0 or self.confirm_s < 0:
            raise OptionError(
                f"track memory ({self.memory_s} s) and confirmation ({self.confirm_s} s) cannot be negative; "
                "give seconds from 0 up"
            )
