"""The tree of exceptions is the one that its module draws, and each is an exception of Python besides."""

import re

from headscope import errors
from headscope.errors import HeadscopeError


def test_the_tree_is_the_drawn_one():
    drawn = dict(re.findall(r"^[├└]── (\w+) \((\w+)\)", errors.__doc__, re.MULTILINE))
    kinds = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and kind is not HeadscopeError}
    there = {name: kind for name, kind in kinds.items() if issubclass(kind, HeadscopeError)}
    assert {name: kind.__bases__[1].__name__ for name, kind in there.items()} == drawn
    assert all(kind.__bases__[0] is HeadscopeError for kind in there.values())
