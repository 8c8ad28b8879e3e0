"""segfair's helper module: what the notebooks call."""

__version__ = "0.1.0"
