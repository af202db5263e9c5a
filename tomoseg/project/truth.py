"""The truth behind a simulated series, as an HDF5 file with the same paths and names as a project."""

from collections.abc import Sequence
from pathlib import Path

import h5py

from tomoseg import schema
from tomoseg.arrays import Array
from tomoseg.io.atomic import atomic_path


def write_truth(
    path: Path,
    *,
    angles_deg: Array,
    shifts_px: Array,
    tilt_axis_angle_deg: float,
    tilt_axis_offset_px: float,
    volume: Array,
    voxel_size_nm: float,
    labels: Array,
    class_names: Sequence[str],
    particles: Array,
) -> None:
    """Write a true volume, labels, particles, shifts and tilt axis, as the stages store them."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file[schema.ANGLES.path] = angles_deg
        file[schema.SHIFTS.path] = shifts_px
        file[schema.ALIGNMENT_INFO.path].attrs["tilt_axis_angle_deg"] = tilt_axis_angle_deg
        file[schema.ALIGNMENT_INFO.path].attrs["tilt_axis_offset_px"] = tilt_axis_offset_px
        file.create_dataset(schema.VOLUME.path, data=volume, compression="gzip")
        file[schema.VOLUME.path].attrs["voxel_size_nm"] = voxel_size_nm
        file.create_dataset(schema.LABELS.path, data=labels, compression="gzip")
        file[schema.LABELS.path].attrs["class_names"] = list(class_names)
        file[schema.PARTICLE_TABLE.path] = particles
