"""
From a raw tilt series to particle sizes
========================================

Align, reconstruct, segment and measure a simulated HAADF-STEM series of a supported catalyst, and compare the result
with the truth.
"""

# %%
# A raw series with known truth: 8 particles on a porous support, seen from -68 to 68 degrees, with jitter, drift, a
# tilt axis that is neither vertical nor centred, and the noise of 400 electrons per pixel. For a series of your own:
# ``raw = ts.read_series("HAADF.mrc", angles="HAADF.rawtlt")``.
import matplotlib.pyplot as plt
import numpy as np

import tomoseg as ts
from tomoseg.simulate import simulate_series

series = simulate_series(96, 8, tilt_step_deg=4, tilt_axis_angle_deg=5, seed=1)
print(series.raw.shape, series.raw.dtype)

# %%
# Alignment
# ---------
# Shifts and tilt axis are found from the images. The result says itself how good it is.
al = ts.align(series.raw, series.angles_deg)
print(f"tilt axis {al.tilt_axis_angle_deg:.2f} degrees from the vertical (true: 5)")
for note in al.notes:
    print("-", note)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.imshow(series.raw[:, 48], cmap="gray", aspect="auto")
left.set(title="one row of the raw images", xlabel="x (px)", ylabel="tilt")
right.imshow(al.aligned[:, 48], cmap="gray", aspect="auto")
right.set(title="aligned: the sinogram of a slice", xlabel="x (px)")

# %%
# Reconstruction
# --------------
# MLEM, with the number of iterations that predicts left-out tilts best.
rec = ts.reconstruct(al.aligned, al.angles_deg, pixel_size_nm=series.pixel_size_nm)
print(f"{rec.iterations} iterations, resolution {rec.resolution_nm:.2f} nm")

# %%
# Segmentation
# ------------
# Three classes by intensity thresholds. A trained network does better: ``model="gamma-alumina-pt"``.
with np.errstate(all="ignore"):
    seg = ts.segment(rec.volume, classes=3, voxel_size_nm=rec.voxel_size_nm)

figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
y = 48
axes[0].imshow(series.truth.phantom.density[:, y], cmap="gray")
axes[0].set_title("truth")
axes[1].imshow(rec.volume[:, y], cmap="gray")
axes[1].set_title("reconstruction")
axes[2].imshow(seg.labels[:, y], cmap="viridis")
axes[2].set_title(", ".join(seg.class_names))

# %%
# Measurement
# -----------
# Tables are DataFrames with units in the names of their columns.
mes = ts.measure(
    seg.labels, rec.volume, voxel_size_nm=rec.voxel_size_nm, class_names=seg.class_names, angles_deg=al.angles_deg
)
true_nm = series.truth.phantom.particles["diameter_px"] * series.pixel_size_nm
print(f"{len(mes.particles)} particles (true: {len(true_nm)})")
print(f"mean diameter {mes.particles.diameter_nm.mean():.2f} nm (true: {true_nm.mean():.2f} nm)")
mes.particles[["diameter_nm", "surface_area_nm2", "sphericity", "neighbour_gap_nm"]].round(2)
