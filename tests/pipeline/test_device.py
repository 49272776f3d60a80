"""Number formats that are asked for."""

from __future__ import annotations

import pytest

from cpnpose.errors import OptionError
from cpnpose.pipeline.device import check_precision

POSE, DETECTOR = "the pose network", "the detector"


@pytest.mark.parametrize(
    ("formats", "told"),
    [
        ({POSE: "bfloat16", DETECTOR: "float32"}, []),
        ({POSE: "int8", DETECTOR: "float32"}, ["--precision bf16 has no effect on the pose network, which is int8"]),
        ({POSE: "float32", DETECTOR: "int8"}, ["--precision bf16 has no effect on the detector, which is int8"]),
    ],
)
def test_a_precision_that_reaches_one_network_only_is_told(formats: dict[str, str], told: list[str]) -> None:
    assert check_precision("bf16", formats) == told
    assert check_precision("auto", formats) == []


def test_a_precision_that_reaches_no_network_is_refused() -> None:
    for formats, named in (
        ({POSE: "int8"}, "the pose network, which is int8; leave it out"),
        ({POSE: "int8", DETECTOR: "int8"}, "the pose network and the detector, which are int8; leave it out"),
    ):
        with pytest.raises(OptionError, match=f"--precision fp32 has no effect on {named}"):
            check_precision("fp32", formats)
        assert check_precision("auto", formats) == []
