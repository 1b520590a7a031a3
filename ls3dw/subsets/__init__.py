"""Subsets of a data set, drawn from its index: balanced by pose, split without leaks; pictures are never opened."""
