"""Files for other programs: VTK, MRC."""
