"""Raw tilt series, angle files and labelled slices as they come from microscopes and other programs."""
