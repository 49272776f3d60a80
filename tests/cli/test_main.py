from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cpnpose.cli.main import CommandGroup, app
from cpnpose.errors import InputError, OutputError

ROOT = Path(__file__).resolve().parents[2]


def test_help_names_the_commands() -> None:
    done = CliRunner().invoke(app, ["--help"])
    assert done.exit_code == 0
    for command in ("video", "images", "webcam", "weights", "convert", "track", "smooth", "render", "report"):
        assert command in done.output
    for command in ("evaluate", "train", "bench"):
        assert command in done.output


def test_version() -> None:
    from cpnpose import __version__

    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"cpnpose {__version__}"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            InputError("x.mp4: no such file. Check the path."),
            3,
            "cpnpose: error: x.mp4: no such file. Check the path.\n",
        ),
        (OutputError("disk is full"), 4, "cpnpose: error: disk is full\n"),
        (KeyboardInterrupt(), 130, "cpnpose: interrupted\n"),
    ],
)
def test_errors_become_one_line_and_an_exit_code(error: BaseException, code: int, text: str) -> None:
    small = typer.Typer(cls=CommandGroup)

    @small.callback()
    def root() -> None:
        pass

    @small.command("fail")
    def fail() -> None:
        raise error

    done = CliRunner().invoke(small, ["fail"])
    assert done.exit_code == code
    assert done.stderr == text


def test_unexpected_errors_keep_their_traceback() -> None:
    small = typer.Typer(cls=CommandGroup)

    @small.callback()
    def root() -> None:
        pass

    @small.command("fail")
    def fail() -> None:
        raise ZeroDivisionError("a fault of the program")

    with pytest.raises(ZeroDivisionError):
        CliRunner().invoke(small, ["fail"], catch_exceptions=False)


def run_python(code: str) -> Any:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)


def test_help_does_not_load_the_heavy_libraries() -> None:
    code = "import sys, cpnpose.cli.main; print([n for n in ('torch', 'cv2', 'av', 'scipy') if n in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


def test_broken_pipe_is_quiet() -> None:
    done = subprocess.run(
        f"{sys.executable} -m cpnpose video --help | head -1", shell=True, cwd=ROOT, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr


def test_the_command_leaves_at_once_with_all_that_it_said() -> None:
    """What is registered for the exit runs, output into a pipe is whole, and the exit code is the command's."""
    code = (
        "import atexit, sys; atexit.register(lambda: print('registered'))\n"
        "sys.argv = ['cpnpose', *sys.argv[1:]]\n"
        "from cpnpose.cli.main import run; run()"
    )
    for arguments, expected, said in (
        (["--version"], 0, "cpnpose "),
        (["images", "nothing"], 3, "nothing: no such file"),
    ):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == expected
        assert said in done.stdout + done.stderr
        assert done.stdout.endswith("registered\n")


def test_an_exit_waits_for_threads_that_work() -> None:
    code = (
        "import sys, threading, time\n"
        "def work(): time.sleep(1); print('worked')\n"
        "threading.Thread(target=work).start()\n"
        "sys.argv = ['cpnpose', '--version']\n"
        "from cpnpose.cli.main import run; run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert "worked" in done.stdout
