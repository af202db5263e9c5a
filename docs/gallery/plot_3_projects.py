"""
Projects from Python
====================

Run the whole pipeline into a project file, read what it holds, change one parameter, and see what that makes stale.
"""

# %%
# A raw series as a microscope leaves it: an MRC file, and its tilt angles beside it.
import tempfile
from pathlib import Path

import tomoseg as ts
from tomoseg.io.mrc import write_angles, write_mrc
from tomoseg.simulate import simulate_series

folder = Path(tempfile.mkdtemp())
series = simulate_series(64, 5, tilt_step_deg=6, seed=2)
write_mrc(folder / "series.mrc", series.raw, series.pixel_size_nm, kind="stack", label="simulated")
write_angles(folder / "series.rawtlt", series.angles_deg)

# %%
# `run` is the command ``tomoseg run``: from the raw series to exported files.
p = ts.run(folder / "series.mrc", folder / "series.h5", settings={"export.formats": ["vti", "csv"]})
p.status()

# %%
# One picture of the whole experiment:
figure = p.show()

# %%
# Arrays are read from the file as they are sliced; tables are DataFrames.
print(p.volume.shape, p.volume.dtype, p.labels.attrs["class_names"])
p.particles[["diameter_nm", "z_nm", "y_nm", "x_nm"]].round(2)

# %%
# With another number of iterations only what depends on it is computed again.
p.close()
p = ts.run(folder / "series.h5", settings={"reconstruct.iterations": 10})
print(p.info("reconstruction_info")["iterations"], "iterations")
print(sorted(path.name for path in (folder / "series_export").iterdir()))
p.close()
