"""Compare a project with the truth of the simulated series behind it: `python benchmarks/truth.py PROJECT.h5 TRUTH.h5`.

No alignment can know where the object is: a translation (a constant along the axis, x0 cos(t) + z0 sin(t) across it) is
taken out of the shifts before they are compared.
"""

import sys

import h5py
import numpy as np

from tomoseg import schema
from tomoseg.alignment.images.warp import rotate_vectors


def main() -> None:
    with h5py.File(sys.argv[1]) as found, h5py.File(sys.argv[2]) as true:
        across, along = residual_shifts_px(found, true)
        here, there = (f[schema.ALIGNMENT_INFO.path].attrs for f in (found, true))
        diameters = true[schema.PARTICLE_TABLE.path]["diameter_px"] * true[schema.VOLUME.path].attrs["voxel_size_nm"]
        measured = found[schema.MEASUREMENT_INFO.path].attrs
        print(f"{'':<34}{'found':>10}{'true':>10}")
        for name, unit in (("tilt_axis_angle_deg", "degrees"), ("tilt_axis_offset_px", "px")):
            print(
                f"{name.rsplit('_', 1)[0].replace('_', ' ') + ', ' + unit:<34}{here[name]:>10.3f}{there[name]:>10.3f}"
            )
        print(f"{'residual shift across, px rms':<34}{np.sqrt(np.mean(across**2)):>10.3f}")
        print(f"{'residual shift along, px rms':<34}{np.sqrt(np.mean(along**2)):>10.3f}")
        print(f"{'particles':<34}{measured['n_particles']:>10}{len(diameters):>10}")
        print(f"{'mean diameter, nm':<34}{measured['mean_diameter_nm']:>10.3f}{diameters.mean():>10.3f}")


def residual_shifts_px(found: h5py.File, true: h5py.File) -> tuple[np.ndarray, np.ndarray]:
    """Return errors of the shifts across and along the axis, (n_tilt,) each, in px."""
    error = _moves_px(found) - _moves_px(true)
    tilts = np.deg2rad(true[schema.ANGLES.path][:])
    unknowable = np.stack([np.cos(tilts), np.sin(tilts)], axis=1)
    across = error[:, 1] - unknowable @ np.linalg.lstsq(unknowable, error[:, 1], rcond=None)[0]
    return across, error[:, 0] - error[:, 0].mean()


def _moves_px(file: h5py.File) -> np.ndarray:
    info = file[schema.ALIGNMENT_INFO.path].attrs
    shifts = rotate_vectors(file[schema.SHIFTS.path][:], info["tilt_axis_angle_deg"])
    return shifts - [0.0, info["tilt_axis_offset_px"]]


if __name__ == "__main__":
    main()
