"""Shading: skin, hair, cloth, light, backgrounds."""
