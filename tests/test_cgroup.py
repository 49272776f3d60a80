"""Limits of containers, from folders that look as Linux makes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cpnpose import processor
from cpnpose.cgroup import cpu_quota, memory_left
from cpnpose.processor import available_cores

OWN_1 = "5:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n1:name=systemd:/docker/ab\n0::/\n"
Files = dict[str, str]


def place(folder: Path, own: str, files: Files) -> tuple[Path, Path]:
    """The root of the groups with these files, and the file that tells the own ones."""
    (folder / "own").write_text(own)
    for name, text in files.items():
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder / "root", folder / "own"


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/a.slice/b\n", {"a.slice/cpu.max": "50000 100000", "a.slice/b/cpu.max": "300000 100000"}, 0.5),
        ("0::/a.slice/b\n", {"a.slice/cpu.max": "max 100000", "a.slice/c/cpu.max": "50000 100000"}, None),
        (OWN_1, {"cpu/docker/ab/cpu.cfs_quota_us": "250000", "cpu/docker/ab/cpu.cfs_period_us": "100000"}, 2.5),
        (OWN_1, {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 2.5),  # mounted as the root
        (OWN_1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("nonsense\n", {"cpu.max": "nonsense"}, None),
        ("", {}, None),
    ],
)
def test_the_least_limit_on_processor_time_counts(tmp_path: Path, own: str, files: Files, quota: float | None) -> None:
    assert cpu_quota(*place(tmp_path, own, files)) == quota
    assert cpu_quota(tmp_path / "nowhere", tmp_path / "none") is None


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        ("0::/\n", {"memory.max": "1000", "memory.current": "700", "memory.stat": "anon 1\ninactive_file 50"}, 350),
        ("0::/\n", {"memory.max": "max", "memory.current": "700", "memory.stat": "inactive_file 50"}, None),
        ("0::/\n", {"memory.max": "1000", "memory.current": "1001"}, 0),
        (
            "0::/a/b\n",
            {"a/memory.max": "500", "a/memory.current": "9", "a/b/memory.max": "900", "a/b/memory.current": "8"},
            491,
        ),
        (
            OWN_1,
            {
                "memory/docker/ab/memory.limit_in_bytes": "1000",
                "memory/docker/ab/memory.usage_in_bytes": "600",
                "memory/docker/ab/memory.stat": "inactive_file 7\ntotal_inactive_file 100",
                "memory/memory.limit_in_bytes": "9223372036854771712",  # of version 1: no limit
                "memory/memory.usage_in_bytes": "600",
            },
            500,
        ),
    ],
)
def test_the_least_limit_on_memory_counts(tmp_path: Path, own: str, files: Files, left: int | None) -> None:
    assert memory_left(*place(tmp_path, own, files)) == left


@pytest.mark.parametrize(("quota", "cores"), [(None, 6), (0.5, 1), (1.0, 1), (1.5, 2), (5.1, 6), (64.0, 6)])
def test_cores_are_those_of_the_affinity_within_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(processor, "cpu_quota", lambda: quota)
    assert available_cores() == cores
