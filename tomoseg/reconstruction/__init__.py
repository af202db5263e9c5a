"""Projectors and reconstruction methods, one geometry convention for all backends."""
