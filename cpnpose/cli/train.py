"""``cpnpose train``: the group of training commands."""

from __future__ import annotations

import importlib.util

import typer

from cpnpose.cli import pseudo_label, train_pose


def register(app: typer.Typer) -> None:
    """Add the command group ``train``."""
    group = typer.Typer(no_args_is_help=True, help="Train a pose network or a person detector.")
    train_pose.register(group)
    pseudo_label.register(group)
    if importlib.util.find_spec("cpnpose.cli.train_detector") is not None:
        importlib.import_module("cpnpose.cli.train_detector").register(group)
    app.add_typer(group, name="train")
