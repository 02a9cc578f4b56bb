"""The shapes and types in every signature of headscope, checked while the tests run.

What jaxtyping's own import hook does (`--jaxtyping-packages=headscope,beartype.beartype`), at a fraction of its cost.
jaxtyping binds the signature anew in every call, checks the arguments twice, and makes its checks again whenever a
nested function is defined; the tests then spend more time in checks than in what they check. Here a function's checks
are made once, by beartype, and run once before and once after the function. Only what fails goes through jaxtyping,
for its message: which argument it was, and how long each axis is.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, NamedTuple, get_args, get_type_hints

from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import AbstractArray, jaxtyped
from torch.compiler import is_dynamo_compiling

# What the decorator is called in the modules that are checked, and what their bytecode is stored under; another
# number for another way to write the decorators.
NAME, TAG = "_shape_checked", "shape-checks-1"

Function = Callable[..., Any]


class Checks(NamedTuple):
    """The checks of one function.

    Attributes:
        signature: the annotations as objects; `Any` where one cannot be evaluated outside of a type checker.
        arguments: is called as the function is, and raises; None where nothing is to check.
        result: the same for what the function returns.
        shapes: whether an axis is named, so that it has one length in the whole call.
    """

    signature: inspect.Signature
    arguments: Function | None
    result: Function | None
    shapes: bool


def evaluated(annotation: Any, namespace: dict[str, Any]) -> Any:
    """An annotation as an object; `Any` for none, and for names that only type checkers import."""

    def carrier(value: Any) -> None:
        pass

    if annotation is inspect.Signature.empty:
        return Any
    carrier.__annotations__["value"] = annotation
    try:
        return get_type_hints(carrier, namespace, include_extras=True)["value"]
    except (NameError, AttributeError, TypeError):
        return Any


def names_axes(hint: Any) -> bool:
    """Whether an annotation speaks of the shape of an array, itself or within."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    parts = hint if isinstance(hint, list) else get_args(hint)  # Callable[[A, B], C] has a list in it
    return any(names_axes(part) for part in parts)


def with_signature(
    function: Function, signature: inspect.Signature, hints: dict[str, Any], body: str = "pass"
) -> Function | None:
    """A function of one line, with a signature and checked annotations; None where there is nothing to check."""
    empty = inspect.Parameter.empty
    parameters = [
        one.replace(annotation=empty, default=empty if one.default is empty else None)
        for one in signature.parameters.values()
    ]
    scope: dict[str, Any] = {}
    exec(f"def made{inspect.Signature(parameters)}: {body}", scope)
    made: Function = scope["made"]
    made.__name__, made.__qualname__, made.__module__ = function.__name__, function.__qualname__, function.__module__
    made.__annotations__ = {name: hint for name, hint in hints.items() if hint is not Any}
    checking: Function = beartype(made)
    return None if checking is made else checking


def checks_of(function: Function) -> Checks:
    """The checks that a function's annotations ask for."""
    bare = inspect.signature(function)
    namespace = function.__globals__
    hints = {one.name: evaluated(one.annotation, namespace) for one in bare.parameters.values()}
    parameters = [one.replace(annotation=hints[one.name]) for one in bare.parameters.values()]
    returned = evaluated(bare.return_annotation, namespace)
    signature = inspect.Signature(parameters, return_annotation=returned)
    value = inspect.Signature([inspect.Parameter("value", inspect.Parameter.POSITIONAL_ONLY)])
    return Checks(
        signature,
        with_signature(function, bare, hints),
        with_signature(function, value, {"return": returned}, "return value"),
        any(map(names_axes, [*hints.values(), returned])),
    )


# By module, name and code.
KNOWN: dict[tuple[str, str, object], Checks] = {}


def checked(made: Any) -> Any:
    """A function, or the `__init__` of a dataclass, that checks its arguments and what it returns."""
    if isinstance(made, type):
        init = vars(made).get("__init__")
        if dataclasses.is_dataclass(made) and inspect.isfunction(init) and not hasattr(init, "__wrapped__"):
            made.__init__ = checked(init)  # type: ignore[misc]
        return made
    if not made.__annotations__:
        return made
    checks: Checks | None = None

    def checking(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        nonlocal checks
        if is_dynamo_compiling():  # graphs are those that users get
            return made(*args, **kwargs)
        if checks is None:  # now, and not when it was defined: classes further down in its module are known
            checks = known_checks(made)
        if checks.shapes:
            with jaxtyped("context"):
                return called(made, checks, args, kwargs)
        return called(made, checks, args, kwargs)

    return functools.wraps(made)(checking)


def known_checks(function: Function) -> Checks:
    """The checks of a function, made at its first call; a nested one is defined in every call of the one around it."""
    key = function.__module__, function.__qualname__, function.__code__
    if key not in KNOWN:
        KNOWN[key] = checks_of(function)
    return KNOWN[key]


def called(function: Function, checks: Checks, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Call a function, with checks before and after."""
    __tracebackhide__ = True
    signature, arguments, result, _ = checks
    if arguments is not None:
        try:
            arguments(*args, **kwargs)
        except BeartypeCallHintViolation:
            explain(function, signature, args, kwargs)
            raise
    out = function(*args, **kwargs)
    if result is not None:
        try:
            result(out)
        except BeartypeCallHintViolation:
            explain(function, signature, args, kwargs, out)
            raise
    return out


def explain(
    function: Function, signature: inspect.Signature, args: Sequence[Any], kwargs: dict[str, Any], out: Any = None
) -> None:
    """Raise jaxtyping's error for a call that failed a check: it says which argument, and how long each axis is."""

    def done(*args: Any, **kwargs: Any) -> Any:
        return out

    done.__name__, done.__qualname__, done.__module__ = function.__name__, function.__qualname__, function.__module__
    done.__signature__ = signature  # type: ignore[attr-defined]
    jaxtyped(done, typechecker=beartype)(*args, **kwargs)


class Decorating(ast.NodeTransformer):
    """Writes the decorator at every function, innermost, and at every class, outermost: after `@dataclass`."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Coroutines are left alone: what they return is not there when they are called. Kernels are no functions."""
        if any(ast.unparse(decorator).startswith("triton.") for decorator in node.decorator_list):
            return node
        node.decorator_list.append(ast.copy_location(ast.Name(NAME, ast.Load()), node))
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Only dataclasses have a function that is not written anywhere."""
        node.decorator_list.insert(0, ast.copy_location(ast.Name(NAME, ast.Load()), node))
        return self.generic_visit(node)


class Loader(SourceFileLoader):
    """Loads a module with the decorators in it; its bytecode is kept beside that of the plain module."""

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:
        tree = Decorating().visit(ast.parse(data, path))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)[NAME] = checked
        super().exec_module(module)

    def get_data(self, path: str) -> bytes:
        return super().get_data(tagged(path))

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        super().set_data(tagged(path), data, _mode=_mode)


def tagged(path: str) -> str:
    """Where bytecode with checks is; any other file is where it is."""
    return f"{path.removesuffix('.pyc')}.{TAG}.pyc" if path.endswith(".pyc") else path


class Finder(MetaPathFinder):
    """Finds the modules of some packages for the loader."""

    def __init__(self, *packages: str) -> None:
        self.packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As Python finds it, with the other loader."""
        if fullname.partition(".")[0] not in self.packages:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return None
        spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


def install(*packages: str) -> Finder:
    """Check packages that are imported from now on."""
    early = [package for package in packages if package in sys.modules]
    if early:
        raise RuntimeError(f"{early[0]} was imported before its checks were switched on")
    finder = Finder(*packages)
    sys.meta_path.insert(0, finder)
    return finder
