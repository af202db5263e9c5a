"""Annotation: which slices to paint, slices out to paint labels on, painted labels back into the project."""
