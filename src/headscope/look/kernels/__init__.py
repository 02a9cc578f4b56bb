"""The arithmetic of the looks: passes over blocks of scores."""
