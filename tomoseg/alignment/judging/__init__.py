"""Judging an alignment: prediction of held-out tilts, estimated errors, warnings."""
