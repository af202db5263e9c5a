"""Single micrographs: their particles, the sizes of these, and simulated micrographs with known truth."""
