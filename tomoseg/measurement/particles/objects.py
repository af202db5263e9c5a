"""The connected objects of a class, cut into the particles that touch in them and measured one by one."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, Box
from tomoseg.components import BYTES_PER_VOXEL, BoxReader, Component, Connectivity, find_components
from tomoseg.errors import StageFailed
from tomoseg.measurement.common.blocks import inside
from tomoseg.measurement.common.sparse_object import SparseObject
from tomoseg.measurement.particles import separation
from tomoseg.measurement.particles.gaps import Compact, SurfaceStore, surface_gaps
from tomoseg.measurement.particles.particle_table import MEASURED, Particle, ReadMask, Scene, box_voxels, grown_box
from tomoseg.runtime import Runtime, slabs

# Returns the part (n,), 1..n_parts, of each voxel of an object.
Separate = Callable[[SparseObject, Scene], NDArray[np.int32]]


@dataclass(frozen=True)
class Limits:
    """What is cut, and what is held in memory.

    Attributes
    ----------
    cut_voxels, cut_fraction : objects of more than both, in voxels and of the volume, are bodies rather than clusters
        of particles and are not cut. What is held of one while it is cut, `separation.BYTES_PER_VOXEL` per voxel, thus
        fits in the memory allowed for any volume of up to 6 times as much.
    large_voxels : larger boxes around particles are looked at in slabs and blocks
    cutting, reading, surfaces : shares of the memory allowed for cutting an object, for what is read of a volume at
        once, and for the surfaces kept
    """

    cut_voxels: int = 1 << 22
    cut_fraction: float = 0.015
    large_voxels: int = 96**3
    cutting: float = 0.6
    reading: float = 0.125
    surfaces: float = 0.125


LIMITS = Limits()


@dataclass(frozen=True)
class CountedParticles:
    """Particles as they are measured, and what was left out.

    Attributes
    ----------
    rows : (n,) of `tomoseg.measurement.particles.particle_table.MEASURED`
    gaps_px : (n,) distance from the surface of each to that of the nearest other one
    n_small : objects and parts too small to be counted
    n_cut, n_uncut : objects that were cut, and those too large to be a cluster of particles
    largest_fraction : of the volume, of the largest object before cutting
    """

    rows: Array = field(default_factory=lambda: np.zeros(0, MEASURED))
    gaps_px: Array = field(default_factory=lambda: np.zeros(0))
    n_small: int = 0
    n_cut: int = 0
    n_uncut: int = 0
    largest_fraction: float = 0.0


def count_particles(
    scene: Scene,
    connectivity: Connectivity,
    min_voxels: int,
    separate: Separate | None,
    runtime: Runtime,
    limits: Limits = LIMITS,
) -> CountedParticles:
    """Find the particles of a class and measure them; what memory is allowed does not change a bit of the result.

    Particles of fewer than `min_voxels` are only counted. `separate` cuts an object into the particles that touch in
    it; None: each object is one particle. For `connectivity` see `find_components`.
    """
    shape = scene.labels.shape
    pieces = _slabs_to_label(shape, runtime)
    masks = (scene.labels[z] == scene.class_index for z in runtime.track(pieces, "finding particles"))
    components, n_small = find_components(masks, connectivity, min_voxels)
    largest = int(components["voxels"].max(initial=0))
    n_uncut, to_cut = 0, np.zeros(len(components), bool)
    if separate is not None:
        to_cut = components["voxels"] <= max(limits.cut_voxels, limits.cut_fraction * math.prod(shape))
        n_uncut = int(np.count_nonzero(~to_cut))
        _check_memory(int(components["voxels"][to_cut].max(initial=0)), limits, runtime)
    objects = _Objects(components, to_cut, scene, connectivity, min_voxels, separate, runtime, limits)
    rows, home, n_cut = list[Any](), list[int](), 0
    surfaces = SurfaceStore(
        runtime.max_memory * limits.surfaces, lambda n: objects.surfaces(home[n], bisect_left(home, home[n]))
    )
    corners = list[tuple[Array, Array]]()
    for i in runtime.track(range(len(components)), "measuring particles"):
        particles, n_parts = objects.particles(i)
        n_cut += n_parts > 1
        n_small += n_parts - len(particles)
        for particle in particles:
            row, surface = objects.measured(particle)
            surfaces.add(len(rows), surface)
            corners.append(surface.corners())
            rows.append(row)
            home.append(i)
    low, high = np.array(corners, dtype=np.float64).reshape(-1, 2, 3).swapaxes(0, 1)
    gaps = surface_gaps(low, high, surfaces.__getitem__, lambda n: runtime.track(n, "measuring gaps"))
    return CountedParticles(np.array(rows, MEASURED), gaps, n_small, n_cut, n_uncut, largest / math.prod(shape))


@dataclass(frozen=True)
class _Objects:
    """The connected objects of the class counted, and the particles in each: the same whenever they are asked for."""

    components: Array
    to_cut: Array  # which of them may be cut
    scene: Scene
    connectivity: Connectivity
    min_voxels: int
    separate: Separate | None
    runtime: Runtime
    limits: Limits

    def particles(self, i: int) -> tuple[list[Particle], int]:
        """Return the particles of object i that are large enough, and how many there are of any size."""
        row = self.components[i]
        box = grown_box(row["start"], row["stop"], self.scene.labels.shape)
        component = self._component(row, box)
        if self.separate is not None and self.to_cut[i]:
            found = _parts(component, box, self.scene, self.separate)
        else:
            reader = BoxReader(component)
            found = [Particle(row, lambda wanted: reader.read(inside(wanted, box)))]
        return [p for p in found if p.extent["voxels"] >= self.min_voxels], len(found)

    def measured(self, particle: Particle) -> tuple[np.void, Compact]:
        """Return what is measured of a particle, and points of its surface."""
        strip_bytes = self.runtime.max_memory * self.limits.reading
        row, points = particle.measured(self.scene, self.limits.large_voxels, strip_bytes)
        return row, Compact.of(points)

    def surfaces(self, i: int, first: int) -> Mapping[int, Compact]:
        """Return points of the surfaces of the particles of object i, which are numbered from `first` on."""
        particles, _ = self.particles(i)
        return {first + k: self.measured(particle)[1] for k, particle in enumerate(particles)}

    def _component(self, row: Any, box: Box) -> Component:
        """Return an object's component, to be read in a box around it."""
        labels, lengths = self.scene.labels, [s.stop - s.start for s in box]
        held = labels[box] if box_voxels(box) <= self.limits.large_voxels else None
        pieces = [slice(0, lengths[0])] if held is not None else _slabs_to_label(lengths, self.runtime)

        def masks() -> Iterator[Array]:
            for z in pieces:
                self.runtime.check()
                yield (labels[_planes(box, z)] if held is None else held) == self.scene.class_index

        return Component(masks, row["seed"] - [s.start for s in box], self.connectivity)


def _parts(component: Component, box: Box, scene: Scene, separate: Separate) -> list[Particle]:
    """Return the particles into which a component is cut."""
    sparse = SparseObject.of(component, box)
    parts = separate(sparse, scene)

    def mask_of(part: int) -> ReadMask:
        return lambda wanted: sparse.mask(inside(wanted, box), parts, part)

    return [Particle(extent, mask_of(part)) for part, extent in enumerate(sparse.extents(parts), start=1)]


def _slabs_to_label(shape: Sequence[int], runtime: Runtime) -> list[slice]:
    return slabs(shape[0], runtime.slab_size(BYTES_PER_VOXEL * math.prod(shape[1:]), shape[0]))


def _planes(box: Box, z: slice) -> Box:
    """Return these planes of a box."""
    return slice(box[0].start + z.start, box[0].start + z.stop), box[1], box[2]


def _check_memory(n_voxels: int, limits: Limits, runtime: Runtime) -> None:
    """Raise `StageFailed` where an object of `n_voxels` cannot be cut in the memory allowed."""
    needed = separation.BYTES_PER_VOXEL * n_voxels / limits.cutting
    if needed > runtime.max_memory:
        raise StageFailed(
            f"an object of {n_voxels} voxels cannot be cut into touching particles within --max-memory "
            f"({runtime.max_memory / 2**20:.0f} MiB): allow {needed / 2**20:.0f} MiB, or count objects as they are "
            "(measure.separate_touching=false)."
        )
