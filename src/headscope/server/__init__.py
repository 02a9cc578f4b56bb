"""The map of long heads over HTTP; docs/tiles.md is the protocol."""
