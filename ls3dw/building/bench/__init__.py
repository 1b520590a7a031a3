"""`ls3dw bench`: how fast each stage of a build is on this machine, and what limits the whole."""
