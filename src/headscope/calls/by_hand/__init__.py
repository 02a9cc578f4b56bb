"""Attention that a model writes out by hand: followed from its first product to its second, and read."""
