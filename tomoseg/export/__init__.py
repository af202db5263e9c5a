"""Export: files for other programs; `api.export` is the function to call, `formats` the table of formats."""
