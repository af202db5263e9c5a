"""Raw images brought to a form that can be compared: background, reduced series, warping, correlation."""
