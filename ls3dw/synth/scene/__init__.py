"""Geometry of posed heads, worn things, and things in front of the face."""
