"""The errors that cpnpose raises on purpose.

Each message says what is wrong, where, and what to do about it. The command line turns every
:class:`CpnposeError` into one line on standard error and the exit code that its class names.
"""

from __future__ import annotations


class CpnposeError(Exception):
    """Base of all errors that a user can mend. ``exit_code`` is what the command line returns."""

    exit_code = 1


class InputError(CpnposeError):
    """A file, folder, stream or camera cannot be read, or does not hold what it should."""

    exit_code = 3


class OutputError(CpnposeError):
    """A result cannot be written: it exists already, the folder is read-only, the disk is full."""

    exit_code = 4


class WeightsError(CpnposeError):
    """A weights file is missing, damaged, or does not fit the network."""

    exit_code = 5


class OptionError(CpnposeError):
    """Options that exclude each other, or a value outside its range."""

    exit_code = 2


class TrainingError(CpnposeError):
    """Training cannot go on: data without people, a loss that is no number, a checkpoint of another run."""

    exit_code = 6
