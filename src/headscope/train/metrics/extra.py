"""Metric libraries: found when they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from headscope.errors import MissingExtra


def library(name: str, package: str, what: str) -> ModuleType:
    """The module of a metric.

    Raises:
        MissingExtra: its package is not installed.

    Example:
        >>> library("json", "json", "nothing").__name__
        'json'
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra(
            f"finetune: {what} is computed by {package}, which is not installed ({error}): "
            "pip install 'headscope[finetune]'"
        ) from error
