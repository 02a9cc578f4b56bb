"""The map of a long head: levels cached on disk, filled by one pass, with an estimate until they are there."""
