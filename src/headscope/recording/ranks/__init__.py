"""The parts of a recording that several processes made."""
