"""Many series: run one after the other on one machine, or handed to a batch system as jobs."""
