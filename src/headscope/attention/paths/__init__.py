"""The implementations of attention; none imports another."""
