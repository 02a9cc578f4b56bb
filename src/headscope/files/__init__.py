"""Files: the one way to write them, whose they are, what they belong to, and how those that people bring are read."""
