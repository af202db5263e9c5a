"""Single micrographs: scale, particles, their sizes, one image or thousands."""
