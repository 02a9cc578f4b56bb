"""What the heads do over the course of a training, and checkpoints of it."""
