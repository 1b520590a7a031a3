"""Targets, losses, optimizers, learning rates, averages of weights."""
