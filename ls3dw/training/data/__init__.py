"""Training data: rendered heads and photographs, augmented, batch by batch."""
