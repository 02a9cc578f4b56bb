"""Every name that the loaded modules have for a function of another library.

`from flash_attn import flash_attn_func` makes a second name for a function; each of them is replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from headscope.calls.replaced import Replacement, Wrapper


def replacements(homes: Mapping[str, Iterable[str]], wrapper: Wrapper) -> list[Replacement]:
    """A replacement for each name in each loaded module.

    Args:
        homes: for each module that defines functions, their names there.
    """
    functions = set()
    for home, names in homes.items():
        module = sys.modules.get(home)
        functions |= {id(getattr(module, name)) for name in names if callable(getattr(module, name, None))}
    if not functions:
        return []
    return [
        Replacement(module, name, wrapper)
        for module in [*sys.modules.values()]
        for name, value in list(getattr(module, "__dict__", {}).items())
        if id(value) in functions and callable(value)
    ]
