"""The command ``cpnpose``: gathers the commands and turns errors into messages and exit codes."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import shutil
import sys
import threading
from typing import Annotated, Any, TextIO, cast

import typer
from typer.core import TyperGroup

from cpnpose import __version__
from cpnpose.cli import (
    bench,
    evaluate,
    evaluate_boxes,
    images,
    record,
    report,
    train,
    video,
    webcam,
    weights,
)
from cpnpose.cli.help import ReadableHelp
from cpnpose.cli.say import LastingStderr, say_error
from cpnpose.errors import CpnposeError, OutputError

COMMANDS = (video, images, webcam, record, report, weights, evaluate, evaluate_boxes, bench, train)
"""Modules that add commands, in the order of the help."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of writing that are no fault of the program."""

_OUT_OF_REACH = (errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTCONN, errno.ESTALE)
"""Errors of asking whether a file is there: a folder on the way may not be entered, a network drive has gone."""

NARROW = 100
"""Columns below which the panels of the help would cut the names of options; the help is then plain text."""


class CommandGroup(ReadableHelp, TyperGroup):
    """The one place where errors become one line on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; errors that a user can mend are told in one line, all others keep their traceback."""
        try:
            return super().invoke(ctx)
        except CpnposeError as error:
            say_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            typer.echo("cpnpose: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # whoever read the output has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except Exception as error:
            told = _told(error)
            if told is None:
                raise
            say_error(told)
            raise typer.Exit(told.exit_code) from error


def _told(error: Exception) -> CpnposeError | None:
    """What a user can mend of an error that Python raises, in our words."""
    if _is_out_of_memory(error):
        reason = " ".join(str(error).split())
        return CpnposeError(f"not enough memory ({reason}); close other programs, or give smaller pictures")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return CpnposeError(f"{error.filename}: the name is too long; give a shorter one, for results with --out")
    if isinstance(error, OSError) and error.errno in _OUT_OF_REACH and error.filename is not None:
        return CpnposeError(
            f"{error.filename}: cannot be reached ({error.strerror}); check the path and its permissions"
        )
    return None


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python or NumPy, OpenCV, or PyTorch outside of a network's batch, got no memory of the machine."""
    told = ("Insufficient memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in told)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cpnpose {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Multi-person pose in videos, images and cameras with the Cascaded Pyramid Network."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")  # broken images are told in our own words
    os.environ.setdefault("SVT_LOG", "1")  # of the AV1 encoder, errors alone


def build_app() -> typer.Typer:
    """The application with all commands."""
    application = typer.Typer(
        name="cpnpose",
        cls=CommandGroup,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None if shutil.get_terminal_size().columns < NARROW else "rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    application.callback()(_root)
    for module in COMMANDS:
        module.register(application)
    return application


app = build_app()


def run() -> None:
    """What the console command calls: :data:`app`, and then out at once.

    To take PyTorch down module by module takes half a second, as long as a few images. What is registered for the
    exit runs, and what was printed is written; where a thread is still at work, the exit is an ordinary one.
    """
    if sys.stderr is not None:
        sys.stderr = cast(TextIO, LastingStderr(sys.stderr))
    try:
        app()
    except SystemExit as ended:
        if not isinstance(ended.code, int) or _others_at_work():
            raise
        _leave(ended.code)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        place = "to standard output" if error.filename is None else error.filename
        told = OutputError(f"cannot write {place} ({error.strerror}); check where it goes")
        say_error(told)
        _leave(told.exit_code)


def _leave(code: int) -> None:
    atexit._run_exitfuncs()
    known = OSError if code else BrokenPipeError  # what cannot be written has been told
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(known, ValueError):
            if stream is not None:  # as Python has one that was closed from the start
                stream.flush()
    os._exit(code)


def _others_at_work() -> bool:
    """Whether threads run that an ordinary exit would wait for."""
    own = threading.current_thread()
    return any(thread is not own and not thread.daemon for thread in threading.enumerate())
