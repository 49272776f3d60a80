"""``python -m cpnpose`` is the same as ``cpnpose``."""

from cpnpose.cli.main import app

if __name__ == "__main__":
    app()
