"""Scores of predicted labels against true ones."""
