"""Grey images, plots and rendered surfaces."""
