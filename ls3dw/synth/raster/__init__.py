"""Rasterization of triangle meshes, on the CPU and with Triton."""
