"""Heads rendered with their 68 landmarks: geometry, appearance and the batches that training draws from."""
