"""Headscope: multi-head attention for PyTorch that you can see into."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from headscope import errors, hf, look, nn, train
    from headscope.attention.api import attend, attend_lse, plan
    from headscope.attention.bias import alibi, dense_bias, relative
    from headscope.attention.masks.convert import from_additive, from_block_mask, from_torch_mha_mask
    from headscope.attention.masks.lengths import documents, first, padding, prefix
    from headscope.attention.masks.mask import Mask, dense
    from headscope.attention.masks.window import causal, window
    from headscope.attention.merge import merge
    from headscope.attention.paths.formula import scaled_dot_product
    from headscope.change.ablate import ablate
    from headscope.change.importance import importance
    from headscope.change.patch import patch
    from headscope.look.axis import Axis
    from headscope.look.head import Head
    from headscope.nn.explain import explain
    from headscope.recording.recording import Recording, load
    from headscope.recording.session import record
    from headscope.server.run import serve
    from headscope.train.watch import Watch
    from headscope.view.compare import compare
    from headscope.view.figure import figure
    from headscope.view.page import page
    from headscope.view.show import show

__all__ = [
    "Axis",
    "Head",
    "Mask",
    "Recording",
    "Watch",
    "ablate",
    "alibi",
    "attend",
    "attend_lse",
    "causal",
    "compare",
    "dense",
    "dense_bias",
    "documents",
    "errors",
    "explain",
    "figure",
    "first",
    "from_additive",
    "from_block_mask",
    "from_torch_mha_mask",
    "hf",
    "importance",
    "load",
    "look",
    "merge",
    "nn",
    "padding",
    "page",
    "patch",
    "plan",
    "prefix",
    "record",
    "relative",
    "scaled_dot_product",
    "serve",
    "show",
    "train",
    "window",
]

# Where each name lives. A package is loaded when the first of its names is used, so the import costs next to nothing.
_HOMES = {
    "Axis": "headscope.look.axis",
    "Head": "headscope.look.head",
    "Mask": "headscope.attention.masks.mask",
    "Recording": "headscope.recording.recording",
    "Watch": "headscope.train.watch",
    "ablate": "headscope.change.ablate",
    "alibi": "headscope.attention.bias",
    "attend": "headscope.attention.api",
    "attend_lse": "headscope.attention.api",
    "causal": "headscope.attention.masks.window",
    "compare": "headscope.view.compare",
    "dense": "headscope.attention.masks.mask",
    "dense_bias": "headscope.attention.bias",
    "documents": "headscope.attention.masks.lengths",
    "errors": "headscope.errors",
    "explain": "headscope.nn.explain",
    "figure": "headscope.view.figure",
    "first": "headscope.attention.masks.lengths",
    "from_additive": "headscope.attention.masks.convert",
    "from_block_mask": "headscope.attention.masks.convert",
    "from_torch_mha_mask": "headscope.attention.masks.convert",
    "hf": "headscope.hf",
    "importance": "headscope.change.importance",
    "load": "headscope.recording.recording",
    "look": "headscope.look",
    "merge": "headscope.attention.merge",
    "nn": "headscope.nn",
    "padding": "headscope.attention.masks.lengths",
    "page": "headscope.view.page",
    "patch": "headscope.change.patch",
    "plan": "headscope.attention.api",
    "prefix": "headscope.attention.masks.lengths",
    "record": "headscope.recording.session",
    "relative": "headscope.attention.bias",
    "scaled_dot_product": "headscope.attention.paths.formula",
    "serve": "headscope.server.run",
    "show": "headscope.view.show",
    "train": "headscope.train",
    "window": "headscope.attention.masks.window",
}


# Hidden from mypy, to which every misspelt name would be there.
if not _TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'headscope' has no attribute {name!r}; its names are {', '.join(__all__)}")
        module = _import_module(_HOMES[name])
        found = module if module.__name__ == f"headscope.{name}" else getattr(module, name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
