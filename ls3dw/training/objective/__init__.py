"""Losses, optimizers, learning rates, averages of weights."""
