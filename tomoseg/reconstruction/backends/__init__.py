"""Backends that compute projections (CPU kernels, ASTRA, TomoPy), and the choice between them."""
