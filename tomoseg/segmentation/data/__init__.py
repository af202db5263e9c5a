"""Labelled slices as training and scoring see them: checks, folds, intensities, augmentation."""
