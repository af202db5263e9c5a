"""One file per stage: its parameters, what it reads and writes, and its run()."""
