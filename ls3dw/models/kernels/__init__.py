"""GPU kernels in Triton and Gluon. The rest of the house asks `available`, and never names a kernel."""
