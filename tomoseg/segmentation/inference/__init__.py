"""Labels and confidence from a trained network, for slices and whole volumes."""
