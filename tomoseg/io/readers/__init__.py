"""One module per family of file formats: `read(path)` opens a stack lazily. See `tomoseg.io.raw` for the table."""
