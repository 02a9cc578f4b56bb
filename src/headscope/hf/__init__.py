"""The transformers side. `register` makes `attn_implementation="headscope"` known to transformers."""

from headscope.hf.interface import register

__all__ = ["register"]
