"""Multi-person pose in video with the Cascaded Pyramid Network."""

__version__ = "0.1.0"
