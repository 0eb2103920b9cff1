"""relproxy: a reverse proxy that remembers which image came from which instance."""

__version__ = "0.1.0"
