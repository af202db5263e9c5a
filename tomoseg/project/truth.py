"""The truth behind a simulated series, as an HDF5 file with the same paths and names as a project."""

from pathlib import Path

import h5py

from tomoseg import schema
from tomoseg.io.atomic import atomic_path
from tomoseg.simulate import SimulatedSeries


def write_truth(path: Path, series: SimulatedSeries) -> None:
    """Write volume, labels, particles, shifts and tilt axis; read them with `h5py` at the paths of `tomoseg.schema`."""
    truth = series.truth
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file[schema.ANGLES.path] = series.angles_deg
        file[schema.SHIFTS.path] = truth.shifts_px
        file[schema.ALIGNMENT_INFO.path].attrs["tilt_axis_angle_deg"] = truth.tilt_axis_angle_deg
        file[schema.ALIGNMENT_INFO.path].attrs["tilt_axis_offset_px"] = truth.tilt_axis_offset_px
        file.create_dataset(schema.VOLUME.path, data=truth.phantom.density, compression="gzip")
        file[schema.VOLUME.path].attrs["voxel_size_nm"] = series.pixel_size_nm
        file.create_dataset(schema.LABELS.path, data=truth.phantom.labels, compression="gzip")
        file[schema.LABELS.path].attrs["class_names"] = list(truth.phantom.class_names)
        file[schema.PARTICLE_TABLE.path] = truth.phantom.particles
