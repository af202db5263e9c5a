"""Labels by intensity thresholds, where there is no network."""
