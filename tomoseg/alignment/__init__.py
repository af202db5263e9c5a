"""Shifts between tilts and the tilt axis: plain functions on arrays."""
