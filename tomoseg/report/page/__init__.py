"""The HTML page, its sections, its style sheet and its script."""
