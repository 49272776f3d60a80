"""How the help shows commands and options, and the one number that no option takes."""

from __future__ import annotations

import math
from typing import Any

import typer
from typer.core import TyperGroup


class ReadableHelp:
    """For groups of commands: options that take no value are shown without a type, and in the list of commands each has
    its whole first sentence. Their commands refuse ``nan``, which passes every check of a range before Typer 0.29."""

    def get_params(self, ctx: Any) -> Any:
        """The group's own options."""
        return _without_types(super().get_params(ctx))  # type: ignore[misc]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, or None."""
        command = super().get_command(ctx, cmd_name)  # type: ignore[misc]
        if command is not None:
            for option in _without_types(command.get_params(ctx)):
                option.callback = option.callback or _refuse_nan
            command.short_help = command.short_help or " ".join((command.help or "").split("\n\n")[0].split())
        return command


class Group(ReadableHelp, TyperGroup):
    """A group of commands within a command."""


def _without_types(options: Any) -> Any:
    for option in options:
        if getattr(option, "is_flag", False):
            option.metavar = ""
    return options


def _refuse_nan(ctx: Any, param: Any, value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        raise typer.BadParameter("nan is no number here.", ctx=ctx, param=param)
    return value
