"""Numbers from labels: volumes, surfaces, particles."""
