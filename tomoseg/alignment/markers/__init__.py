"""Particles as markers: found in every image, followed through the tilts, and the alignment that fits them all."""
