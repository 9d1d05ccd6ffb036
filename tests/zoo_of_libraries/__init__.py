"""Models of libraries from PyPI, each in an environment of its own: `make zoo`."""
