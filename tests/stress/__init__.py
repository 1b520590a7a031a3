"""Harnesses that run for minutes: `make stress`. Not part of the usual suite."""
