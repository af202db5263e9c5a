"""The report of a project: a self-contained page, an overview picture, plots as files, and a view in napari."""
