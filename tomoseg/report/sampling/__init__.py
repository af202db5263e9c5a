"""Slices, class fractions and triangles: what is taken from the large arrays, each read once."""
