"""Training: fine-tuning on the tasks of the Transformer, a watch over the heads, and checkpoints."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from headscope.train.finetuning import Finetuned, finetune

__all__ = ["Finetuned", "finetune"]

# Hidden from mypy, to which every misspelt name would be there.
if not _TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(
                f"module 'headscope.train' has no attribute {name!r}; its names are {', '.join(__all__)}"
            )
        from headscope.train import finetuning

        return getattr(finetuning, name)
