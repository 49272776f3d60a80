"""How the help shows commands and options."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class ReadableHelp:
    """For groups of commands: options that take no value are shown without a type, and in the list of commands each has
    its whole first sentence."""

    def get_params(self, ctx: Any) -> Any:
        """The group's own options."""
        return _without_types(super().get_params(ctx))  # type: ignore[misc]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, or None."""
        command = super().get_command(ctx, cmd_name)  # type: ignore[misc]
        if command is not None:
            _without_types(command.get_params(ctx))
            command.short_help = command.short_help or " ".join((command.help or "").split("\n\n")[0].split())
        return command


class Group(ReadableHelp, TyperGroup):
    """A group of commands within a command."""


def _without_types(options: Any) -> Any:
    for option in options:
        if getattr(option, "is_flag", False):
            option.metavar = ""
    return options
