"""Particles: separation, shape, gaps, sizes, and where they sit on the support."""
