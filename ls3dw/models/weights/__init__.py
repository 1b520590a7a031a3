"""Weights files: contracts, the zoo, downloads, import of other formats."""
