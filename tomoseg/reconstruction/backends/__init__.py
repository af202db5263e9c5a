"""What computes projections: the CPU kernels, ASTRA, TomoPy, and the choice between them."""
