"""Finding shifts, tilt axis and per-image corrections."""
