"""Versions that build on others: made, listed, pinned, deleted, compared."""
