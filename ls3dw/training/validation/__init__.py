"""Validation on held-out faces."""
