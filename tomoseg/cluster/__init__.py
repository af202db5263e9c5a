"""Computing on the workers of a Dask cluster, which need no file of this machine."""

from tomoseg.cluster.asked import Asked, asked_for
from tomoseg.cluster.pool import DaskCluster

__all__ = ["Asked", "DaskCluster", "asked_for"]
