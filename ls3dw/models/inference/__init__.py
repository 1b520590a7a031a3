"""How networks run fast: number format, folding, OpenVINO, CUDA graphs, staging."""
