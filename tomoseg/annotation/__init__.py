"""Painting labels: slices worth painting, slices out, painted labels back in."""
