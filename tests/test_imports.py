"""Imports go one way, and what should load quickly does."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cpnpose"

LEVELS = {
    "cgroup": -2,
    "file_name": -1,
    "whole_file": -1,
    "processor": -1,
    "pose": 0,
    "models": 1,
    "media": 1,
    "formats": 1,
    "pipeline": 2,
    "api": 3,
    "training": 3,
    "evaluate": 3,
    "bench": 3,
    "cli": 4,
    "__main__": 5,
}
"""A room may import rooms of lower levels, and itself. Everybody may import errors and the package's version."""
SAME_LEVEL = {
    ("training", "evaluate"),
    ("evaluate", "training"),
    ("bench", "api"),
    ("evaluate", "api"),
    ("training", "api"),
}
"""The imports between rooms of one level that are wanted."""
HEAVY = {"torch", "torchvision"}
LIGHT_ROOMS = ("media", "formats", "cli")
LIGHT_FILES = ("pose/types.py", "pose/keypoints.py", "errors.py", "__init__.py")


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    name = first.removesuffix(".py")
    return name.split("_")[0] if name.startswith(("bench_", "evaluate_")) else name


def imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    """Each imported module with whether it is imported when the module is (and not in a function or for types only)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    later: set[ast.AST] = set()
    for node in ast.walk(tree):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for_types = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        if is_function or for_types:
            later.update(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "cpnpose":
                names = [f"cpnpose.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, node not in later


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "errors"):
        return
    for name, _ in imports_of(path):
        if not name.startswith("cpnpose."):
            continue
        other = name.split(".")[1]
        other = other.split("_")[0] if other.startswith(("bench_", "evaluate_")) else other
        if (
            other in ("errors", "__version__", room)
            or not (PACKAGE / other).exists() | (PACKAGE / f"{other}.py").exists()
        ):
            continue
        allowed = LEVELS[other] < LEVELS[room] or (room, other) in SAME_LEVEL
        assert allowed, f"{room} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_stays_out_of_what_needs_to_load_quickly(path: Path) -> None:
    place = path.relative_to(PACKAGE).as_posix()
    if room_of(path) not in LIGHT_ROOMS and place not in LIGHT_FILES:
        return
    for name, at_once in imports_of(path):
        assert not (at_once and name.split(".")[0] in HEAVY), f"{place} imports {name} at module level"


def test_library_code_neither_prints_nor_exits() -> None:
    for path in MODULES:
        if room_of(path) in ("cli", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "exit", "quit", "sys.exit", "os._exit"), f"{path}: {called}"
        names = {name.split(".")[0] for name, _ in imports_of(path)}
        assert not names & {"typer", "rich", "click"}, f"{path} imports what belongs to cli"


def test_importing_the_package_costs_nothing_and_brings_its_names() -> None:
    code = (
        "import sys, cpnpose\n"
        "assert not {'torch', 'numpy', 'cv2', 'av'} & set(sys.modules), sorted(sys.modules)\n"
        "for name in cpnpose.__all__: getattr(cpnpose, name)\n"
        "assert cpnpose.PoseEstimator.__module__ == 'cpnpose.api'\n"
        "try: cpnpose.nothing\n"
        "except AttributeError: print('fine')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "fine", done.stderr
