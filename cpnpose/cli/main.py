"""The command ``cpnpose``: gathers the commands and turns errors into messages and exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

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
from cpnpose.errors import CpnposeError

COMMANDS = (video, images, webcam, record, report, weights, evaluate, evaluate_boxes, bench, train)
"""Modules that add commands, in the order of the help."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class CommandGroup(TyperGroup):
    """The one place where errors become one line on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; errors that a user can mend are told in one line, all others keep their traceback."""
        try:
            return super().invoke(ctx)
        except CpnposeError as error:
            typer.echo(f"cpnpose: error: {error}", err=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            typer.echo("cpnpose: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # whoever read the output has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None


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
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    application.callback()(_root)
    for module in COMMANDS:
        module.register(application)
    return application


app = build_app()
