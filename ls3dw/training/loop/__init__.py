"""The loop: steps, checkpoints, log."""
