"""The project file: the only code that opens it."""
