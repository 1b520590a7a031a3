"""Audit galleries: static pages on which people judge the faces of a version, and sheets of its worst ones."""
