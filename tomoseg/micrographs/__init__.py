"""Single micrographs: their scale, and the particles in them."""
