from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cpnpose.cli.main import CommandGroup, app, build_app
from cpnpose.errors import InputError, OutputError

ROOT = Path(__file__).resolve().parents[2]


def test_help_names_the_commands() -> None:
    done = CliRunner().invoke(app, ["--help"])
    assert done.exit_code == 0
    for command in ("video", "images", "webcam", "weights", "convert", "track", "smooth", "render", "report"):
        assert command in done.output
    for command in ("evaluate", "train", "bench"):
        assert command in done.output


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("command", [[], ["video"], ["smooth"], ["evaluate"], ["train", "pose"], ["weights", "add"]])
def test_help_cuts_no_name_and_gives_flags_no_type(
    monkeypatch: pytest.MonkeyPatch, command: list[str], columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = CliRunner().invoke(build_app(), [*command, "--help"]).output
    assert "--help" in shown
    assert "bool" not in shown
    assert "…" not in shown
    assert command or "their keypoints as data." in " ".join(shown.split())


@pytest.mark.parametrize("command", [["smooth", "a.json", "--beta"], ["video", "a.mp4", "--start"]])
def test_nan_is_no_number(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "nan"], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert command[-1] in done.stderr
    assert "a.json" not in done.stderr  # not that there is no such file


def test_help_says_the_defaults_that_the_code_has(monkeypatch: pytest.MonkeyPatch) -> None:
    from cpnpose.media.codecs import choose_codec
    from cpnpose.media.draw import DrawStyle
    from cpnpose.models.manifest import load_manifest, locate
    from cpnpose.models.weights import read_metadata
    from cpnpose.pipeline.smooth import OneEuroOptions

    manifest = load_manifest()
    assert manifest.default_detector is not None
    detector = read_metadata(locate(manifest.default_detector, manifest)).config
    crf = {
        name: choose_codec(Path("o.mp4"), name, None, None).options["crf"] for name in ("h264", "hevc", "av1", "vp9")
    }
    assert crf["av1"] == crf["vp9"]
    monkeypatch.setenv("COLUMNS", "80")
    shown = " ".join(CliRunner().invoke(build_app(), ["video", "--help"]).output.split())
    for text in (
        f"Joints that score less are not drawn. Default: {DrawStyle.threshold:g}.",
        f"Default: what the weights name, {detector['nms']:g} with the shipped detector.",
        f"Default: what the weights name, {detector['score']:g} with the shipped detector, and "
        f"{detector['track_score']:g} for somebody new",
        f"Default: {crf['h264']} for h264, {crf['hevc']} for hevc, {crf['av1']} for av1 and vp9.",
    ):
        assert text in shown
    shown = " ".join(CliRunner().invoke(build_app(), ["smooth", "--help"]).output.split())
    assert f"lower is calmer. Default: {OneEuroOptions().min_cutoff_hz:g}." in shown
    assert f"rises with speed. Default: {OneEuroOptions().beta:g}." in shown


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
        (
            MemoryError("Unable to allocate\n309. MiB"),
            1,
            "cpnpose: error: not enough memory (Unable to allocate 309. MiB); close other programs, or give smaller "
            "pictures\n",
        ),
        (
            PermissionError(13, "Permission denied", "there/x.mp4"),
            1,
            "cpnpose: error: there/x.mp4: cannot be reached (Permission denied); check the path and its permissions\n",
        ),
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


@pytest.mark.skipif(sys.platform == "win32", reason="tells it otherwise")
@pytest.mark.parametrize(
    "arguments", [["video", "{}.mp4"], ["video", __file__, "--out", "{}.mp4"], ["report", "{}.jsonl"]]
)
def test_a_name_that_is_too_long_is_told_in_one_line(arguments: list[str]) -> None:
    done = CliRunner().invoke(build_app(), [text.format("a" * 300) for text in arguments], catch_exceptions=False)
    assert done.exit_code > 0
    assert done.stderr.startswith("cpnpose: error: ")
    assert len(done.stderr.splitlines()) == 1


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("command", ["--version", "--help", "weights list"])
def test_a_full_disk_is_told_in_one_line(command: str) -> None:
    done = subprocess.run(
        f"{sys.executable} -m cpnpose {command} > /dev/full", shell=True, capture_output=True, text=True
    )
    assert done.stderr.startswith("cpnpose: error: cannot write to standard output (No space left")
    assert (done.stderr.count("\n"), done.returncode) == (1, 4)


def test_figures_for_somebody_who_has_had_enough_end_as_other_output() -> None:
    code = (
        "import sys; from cpnpose.cli.main import app\n"
        "from cpnpose.cli.tables import output_console\n"
        "@app.command('figures')\n"
        "def figures() -> None:\n"
        "    for _ in range(20000): output_console().print('a line')\n"
        "sys.argv = ['cpnpose', 'figures']\n"
        "from cpnpose.cli.main import run; run()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


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
