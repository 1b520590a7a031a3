"""Posed heads before a camera, with what they wear and what comes before them: geometry only."""
