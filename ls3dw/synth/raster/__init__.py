"""Which triangle is seen at each pixel."""
