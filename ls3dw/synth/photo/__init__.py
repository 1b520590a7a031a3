"""From a picture to a photograph: blur, noise, JPEG."""
