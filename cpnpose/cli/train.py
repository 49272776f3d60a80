"""``cpnpose train``: the group of training commands."""

from __future__ import annotations

import typer

from cpnpose.cli import pseudo_label, train_detector, train_pose
from cpnpose.cli.help import Group


def register(app: typer.Typer) -> None:
    """Add the command group ``train``."""
    group = typer.Typer(cls=Group, no_args_is_help=True, help="Train a pose network or a person detector.")
    train_pose.register(group)
    pseudo_label.register(group)
    train_detector.register(group)
    app.add_typer(group, name="train")
