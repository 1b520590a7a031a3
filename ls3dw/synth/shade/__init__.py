"""From geometry to pictures: skin, hair, cloth, light, backgrounds."""
