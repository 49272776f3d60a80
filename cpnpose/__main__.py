"""``python -m cpnpose`` is the same as ``cpnpose``."""

from cpnpose.cli.main import run

if __name__ == "__main__":
    run()
