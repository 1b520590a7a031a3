"""`ls3dw bench`: how fast every stage of a build is on this machine, and what bounds the whole."""
