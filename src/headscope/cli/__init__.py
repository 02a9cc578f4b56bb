"""The command `headscope`: one file for each of its commands."""

from headscope.cli.app import main

__all__ = ["main"]
