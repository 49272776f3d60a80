"""What the control groups of Linux leave to this process: by them containers limit processor time and memory.

Each group in which the process is, from its own up to the root, may set a limit. Version 2 has one tree of groups,
version 1 one for each kind of limit. In a container the own group is often mounted as the root.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_ROOT, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cpu_quota(root: Path = _ROOT, own: Path = _OWN) -> float | None:
    """Processor time that this process may use, in cores, such as 1.5; None without a limit.

    Args:
        root: where the groups are mounted.
        own: the file that tells in which groups this process is.
    """
    quotas = []
    for folder in _groups("cpu", root, own):
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        with suppress(OSError, ValueError):  # "max 100000" without a limit
            quota, period = map(int, (folder / "cpu.max").read_text(encoding="ascii").split())
        if quota is not None and period is not None and quota > 0 and period > 0:  # -1 without a limit
            quotas.append(quota / period)
    return min(quotas, default=None)


def memory_left(root: Path = _ROOT, own: Path = _OWN) -> int | None:
    """Bytes that the groups still give to this process, with the files in memory that can be dropped; None without a
    limit. Arguments as for :func:`cpu_quota`."""
    left = []
    for folder in _groups("memory", root, own):
        for limit_file, used_file, droppable in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _number(folder / limit_file), _number(folder / used_file)
            if limit is not None and used is not None:
                left.append(max(0, limit - used + _row(folder / "memory.stat", droppable)))
    return min(left, default=None)


def _groups(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """The folders of the groups that may limit this process: its own and those above it, of both versions."""
    places = {root: PurePosixPath("/"), root / controller: PurePosixPath("/")}
    with suppress(OSError, ValueError):
        for line in own.read_text(encoding="utf-8").splitlines():  # "4:cpu,cpuacct:/a/b", of version 2 "0::/a/b"
            _, controllers, own_group = line.split(":", 2)
            if controller in controllers.split(","):
                places[root / controller] = PurePosixPath(own_group)
            elif not controllers:
                places[root] = PurePosixPath(own_group)
    for base, path in places.items():
        for group in (path, *path.parents):
            yield base / str(group).lstrip("/")


def _number(path: Path) -> int | None:
    with suppress(OSError, ValueError):  # no such file, or "max"
        return int(path.read_text(encoding="ascii"))
    return None


def _row(path: Path, name: str) -> int:
    """The number behind ``name`` in a file of such rows, 0 where it is not there."""
    with suppress(OSError, ValueError):
        rows = (line.split() for line in path.read_text(encoding="ascii").splitlines())
        return next((int(row[1]) for row in rows if len(row) == 2 and row[0] == name), 0)
    return 0
