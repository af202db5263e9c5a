"""The support: its surface, facets and curvature."""
