"""Training on labelled slices, and cross-validation."""
