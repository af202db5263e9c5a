"""Simulated worlds to train and to judge networks on: random samples, seen through random tilt series."""

from tomoseg.worlds.library import read_world, write_worlds
from tomoseg.worlds.views import World, world

__all__ = ["World", "read_world", "world", "write_worlds"]
