"""Reading the burnt-in scale bar: picture -> bars -> label lines -> readings."""
