"""Options that would change nothing are refused, so that nobody waits for what does not come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cpnpose.cli.outputs import Outputs
from cpnpose.cli.pipeline_arguments import TRACK_MEMORY_S, BackgroundChoice
from cpnpose.errors import OptionError


def refuse_idle(given: Mapping[str, bool], why: str) -> None:
    """Args:
        given: names of options that have no effect here, and whether the user gave them.
        why: what they would need, and the remedy.

    Raises:
        OptionError: one of them was given.
    """
    names = [name for name, there in given.items() if there]
    if names:
        raise OptionError(f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'} no effect: {why}")


def refuse_idle_angles(angles: bool, planned: Sequence[Outputs]) -> None:
    """Raises:
    OptionError: angles are wanted, but no data that could hold them."""
    if not any(outputs.data for outputs in planned):
        refuse_idle({"--angles": angles}, "angles are added to data; add --json, --jsonl or --csv")


def refuse_idle_tracking(*, ids: bool, track_memory: float) -> None:
    """For runs with ``--no-track``.

    Raises:
        OptionError: an option needs identities.
    """
    given = {"--draw-ids": ids, "--track-memory": track_memory != TRACK_MEMORY_S}
    refuse_idle(given, "people get no identities; leave --no-track out")


def drawing_options(
    threshold: float | None, boxes: bool, ids: bool, background: BackgroundChoice, blur_faces: bool
) -> dict[str, bool]:
    """The options about the drawn picture, for :func:`refuse_idle`."""
    return {
        "--draw-threshold": threshold is not None,
        "--draw-boxes": boxes,
        "--draw-ids": ids,
        "--background": background is not BackgroundChoice.KEEP,
        "--blur-faces": blur_faces,
    }
