"""A side channel: any model -> a Recording of Heads."""
