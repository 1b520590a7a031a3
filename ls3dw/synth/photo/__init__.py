"""Photographic degradation: blur, noise, JPEG."""
