"""What the networks learn from: rendered heads and photographs, augmented, batch by batch."""
