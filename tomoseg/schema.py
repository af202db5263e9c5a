"""The project file: every HDF5 path, its dims, dtype and unit, and the schema version.

No other module spells a path. An `Artifact` is a dataset, a table, or a group that only carries attributes.

Schema history
    1  first version
    2  runs that did not end well are kept too: `outcome` and `continues` in each run's provenance; partial results
       under /staging
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

SCHEMA_VERSION = 2
SCHEMA_ATTR = "tomoseg_schema"
PROVENANCE = "/provenance"
HISTORY = "/provenance/history"
SETTINGS = "/settings"
STAGING = "/staging"


@dataclass(frozen=True)
class Artifact:
    """Something a stage reads or writes.

    `name` is the keyword under which `run()` receives it. `dims` is empty for a group of attributes; `dtype` is
    empty where it follows the data (raw counts, tables). `attrs` maps attribute names to their meaning and unit.
    """

    name: str
    path: str
    dims: tuple[str, ...] = ()
    dtype: str = ""
    unit: str = ""
    meaning: str = ""
    optional: bool = False
    attrs: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_group(self) -> bool:
        """True where the artifact is a group that only carries attributes."""
        return not self.dims


TILT_SERIES = Artifact(
    "tilt_series", "/tilt_series/data", ("tilt", "y", "x"), "", "counts", "as acquired, sorted by angle"
)
ANGLES = Artifact("angles_deg", "/tilt_series/angles_deg", ("tilt",), "f8", "degree", "stage tilt, ascending")
TILT_SERIES_INFO = Artifact(
    "tilt_series_info",
    "/tilt_series",
    meaning="what is known of the acquisition",
    attrs={
        "pixel_size_nm": "nm; NaN where unknown",
        "pixel_size_source": "where the pixel size came from, or 'unknown'",
        "angles_source": "where the angles came from",
        "tilt_axis": "'y', 'x' or 'unknown': nominal direction of the tilt axis in the raw image",
        "source": "path of the raw file at import",
        "source_sha256": "digest of the raw file",
        "metadata": "acquisition metadata as JSON",
    },
)

FURTHER_SIGNALS = Artifact(
    "further_signals",
    "/tilt_series/further_signals",
    ("tilt", "signal", "y", "x"),
    "",
    "counts",
    "other signals of the same tilts (elemental maps, a second detector), as acquired, in the order of the tilt series",
    optional=True,
    attrs={"names": "one per signal"},
)

SHIFTS = Artifact(
    "shifts_px",
    "/alignment/shifts_px",
    ("tilt", "2"),
    "f8",
    "px",
    "(dy, dx) to ADD to a raw image's coordinates to bring it into register, before rotation",
)
ALIGNMENT_INFO = Artifact(
    "alignment_info",
    "/alignment",
    meaning="the tilt axis and how good the alignment is",
    attrs={
        "tilt_axis_angle_deg": "degree, (-90, 90], of the tilt axis from the raw image's vertical, "
        "counter-clockwise as displayed (y down)",
        "tilt_axis_offset_px": "px, of the axis from the image centre, after rotation, towards +x",
        "method": "how the shifts were found",
        "correlation_before": "median normalised correlation of neighbouring tilts, raw",
        "correlation_after": "the same, aligned",
        "common_line_before": "median correlation of the images' projections onto the axis with their mean, raw",
        "common_line_after": "the same, aligned",
        "residual_before": "median over the tilts of ||measured - predicted|| / ||measured||, each tilt predicted from "
        "others by a quick reconstruction of its brightest rows, raw; NaN for fewer than 12 tilts, as all that follows",
        "residual_after": "the same, aligned",
        "estimated_error_px": "px of the raw images per direction, rms over the tilts: from where the others put them "
        "to where they are; never below error_uncertainty_px. Not in it is what no comparison shows: translations of "
        "the sample and, where the sample goes on outside the frame, errors that change slowly from tilt to tilt",
        "error_uncertainty_px": "px per direction, rms: an error of this size cannot be told from none",
        "film_inclination_deg": "degree, of a film about the tilt axis, by the angles as recorded; NaN for no film",
        "film_thickness_px": "px of the raw images, of a film and what lies on it, normal to it; NaN where unknown",
        "marker_residual_px": "mean distance of markers from where they must be, px; NaN without markers",
    },
)
TILT_QUALITY = Artifact(
    "tilt_quality",
    "/alignment/quality",
    ("tilt",),
    "",
    "",
    "per tilt: angle as recorded, n_replaced pixels (spikes, defective ones, those without a number), background, "
    "scale that evened out its brightness, correlation with neighbours before and after, whether it is an "
    "outlier; rotation_deg and magnification that each image was given about its centre, before its shift and on top "
    "of the tilt axis' angle, and tilt_error_deg that was added to its angle: 0, 1 and 0 where not asked for; residual "
    "||measured - predicted|| / ||measured|| against the prediction by others, before and after; error_px: estimated "
    "error of its position, px of the raw image per direction, and the least that can be seen (error_uncertainty_px); "
    "NaN where nothing can be said",
)
MARKERS = Artifact(
    "marker_places_px",
    "/alignment/marker_places_px",
    ("marker", "tilt", "2"),
    "f4",
    "px",
    "(y, x) of particles that served as markers, in the raw images, from their first pixel; NaN where one was not seen",
    optional=True,
)
MARKER_RESIDUALS = Artifact(
    "marker_residuals_px",
    "/alignment/marker_residuals_px",
    ("marker", "tilt", "2"),
    "f4",
    "px",
    "(dy', dx') in the aligned frame, from where a marker must be by the alignment to where it was seen",
    optional=True,
)
REFINED_ANGLES = Artifact(
    "refined_angles_deg",
    "/alignment/angles_deg",
    ("tilt",),
    "f8",
    "degree",
    "tilt of each image as found by the alignment, in the order of the images; only where that was asked for and found",
    optional=True,
)
ALIGNED = Artifact(
    "aligned",
    "/alignment/aligned",
    ("tilt", "y", "x"),
    "f4",
    "counts above background",
    "tilt axis vertical (along y) through x = (nx - 1)/2; each raw image resampled exactly once, and 0 outside its "
    "frame, or, of a film, what its border shows; of bright field, mass thickness -ln(I / I0) instead of counts",
)

ALIGNED_SIGNALS = Artifact(
    "aligned_signals",
    "/alignment/aligned_signals",
    ("tilt", "signal", "y", "x"),
    "f4",
    "counts",
    "further signals with the alignment of the tilt series; nothing is subtracted, and nothing evened out",
    optional=True,
    attrs={"names": "one per signal"},
)

ALIGNMENT_PREVIEW = Artifact(
    "alignment_preview",
    "/alignment/preview",
    ("before_after", "z", "x"),
    "f4",
    "relative",
    "quick reconstruction of one slice across the tilt axis, from the raw and from the aligned images, reduced",
    optional=True,
    attrs={
        "voxel_size_px": "px of the raw images per voxel",
        "row": "row of the aligned images through which the slice lies",
    },
)

VOLUME = Artifact(
    "volume",
    "/reconstruction/volume",
    ("z", "y", "x"),
    "f4",
    "counts per px",
    "y along the tilt axis, z along the beam at zero tilt",
    attrs={
        "voxel_size_nm": "nm; NaN where unknown",
        "offset_px": "(z, y, x) of the first voxel in the whole volume, of which this may be a part",
    },
)
SIGNAL_VOLUMES = Artifact(
    "signal_volumes",
    "/reconstruction/signal_volumes",
    ("signal", "z", "y", "x"),
    "f4",
    "counts per px",
    "volumes of further signals, voxel by voxel beside the volume",
    optional=True,
    attrs={"names": "one per signal", "voxel_size_nm": "nm; NaN where unknown"},
)
RESIDUALS = Artifact(
    "residuals",
    "/reconstruction/residuals",
    ("iteration",),
    "f8",
    "",
    "relative residual ||p - A v|| / ||p|| over all slices before each iteration and after the last",
)
STOPPING = Artifact(
    "stopping",
    "/reconstruction/stopping",
    ("tried",),
    meaning="numbers of iterations and the relative residual of tilts that were left out",
    optional=True,
)
SHELLS = Artifact(
    "shells",
    "/reconstruction/shells",
    ("shell",),
    meaning="Fourier shell correlation of reconstructions from even and odd tilts, by frequency (cycles per px)",
    optional=True,
)
RECONSTRUCTION_INFO = Artifact(
    "reconstruction_info",
    "/reconstruction",
    meaning="how the volume was made",
    attrs={
        "method": "algorithm",
        "backend": "what computed it",
        "device": "cpu or cuda",
        "iterations": "0 for fbp and gridrec",
        "resolution_px": "px; period at which the shell correlation falls below 1/7; NaN where nothing agrees",
        "resolution_nm": "nm; NaN where the pixel size is unknown",
        "resolution_x_px": "px; of directions near x; NaN where there are none",
        "resolution_y_px": "px; of directions near the tilt axis",
        "resolution_z_px": "px; that along x times the elongation",
        "elongation": "of a point along the beam, by the missing wedge",
        "crowther_px": "px; period to which the number of tilts suffices without constraints",
        "parameters": "JSON of all parameters",
    },
)

LABELS = Artifact(
    "labels",
    "/segmentation/labels",
    ("z", "y", "x"),
    "u1",
    "class index",
    "one class per voxel",
    attrs={
        "class_names": "one per class, in class order",
        "class_colors": "one #rrggbb per class",
        "voxel_size_nm": "nm; NaN where unknown",
    },
)
CONFIDENCE = Artifact(
    "confidence", "/segmentation/confidence", ("z", "y", "x"), "u1", "1/255", "255 = certain", optional=True
)
SEGMENTATION_INFO = Artifact(
    "segmentation_info",
    "/segmentation",
    meaning="how the labels were made",
    attrs={"method": "otsu or unet", "parameters": "JSON of all parameters"},
)

CLASS_TABLE = Artifact(
    "class_table", "/measurement/classes", ("class",), "", "", "volume, fraction and surface area of each class"
)
PARTICLE_TABLE = Artifact(
    "particle_table",
    "/measurement/particles",
    ("particle",),
    meaning="one row per particle, largest first; lengths as _nm and _px, NaN where unknown. class_index; voxels; "
    "volume; diameter of the sphere of equal volume; surface_area of the smoothed surface in the volume; sphericity "
    "(Wadell; NaN at the border); volume_half_voxel and diameter_half_voxel: by how much they grow when the surface "
    "moves outwards by half a voxel; major_axis, middle_axis, minor_axis: full lengths of the ellipsoid of equal "
    "second moments; elongation: major over minor; major_z, major_y, major_x: unit vector along the major axis; "
    "elongated_along_beam: suspected to be so by the missing wedge; z, y, x of the centroid, from the centre of the "
    "first voxel; neighbour_distance between centroids and neighbour_gap between surfaces, to the nearest other "
    "particle; contact_area: the part of the surface that faces support (neither background nor the class counted), "
    "contact_fraction of the whole; mean_intensity and integrated_intensity (sum over voxels); touches_border",
)
SIZE_TABLE = Artifact(
    "size_table",
    "/measurement/size_distribution",
    ("bin",),
    meaning="histogram of the diameters of the particles that do not touch the border: count, and the fractions of "
    "their number, surface (sum of d^2) and volume (sum of d^3) in each bin",
)
SUPPORT_INFO = Artifact(
    "support_info",
    "/measurement/support",
    meaning="the support (every class that is neither background nor counted as particles), its surface and its pores; "
    "lengths, areas and volumes as _nm and _px, NaN where there is none",
    optional=True,
    attrs={
        "support_classes": "names of the classes",
        "cell_px": "side of the cubes of voxels that pores were looked for in, px",
        "porosity": "volume of pores / volume of the body: support, pores, and what of particles lies in it",
        "porosity_with_gaps": "porosity if all that a ball of the radius of the widest pore (gap_ball_px) cannot reach "
        "from outside were pores: gaps between parts of the support and its corners too",
        "n_open_pores": "pores joined to the outside; like n_closed_pores without those that touch the border of the "
        "volume or are narrower than the resolution",
        "unresolved_porosity": "the part of the porosity in pores narrower than the resolution",
        "closed_porosity": "the part of it that no path through faces of background voxels joins to the outside",
        "porosity_half_voxel_out": "porosity if the surface lay half a voxel further out, as all ..._half_voxel_out",
        "specific_area_m2_g": "all of the support's surface, m2 per g of the support; _exposed_: without what "
        "particles cover",
        "tortuosity_z": "porosity / effective diffusivity along z in the box tortuosity_box_px within the body; NaN "
        "where no pore leads through",
        "pore_euler_number": "pores less tunnels plus what floats in them",
        "flat_share": "part of the exposed surface by kind of place: flat, ridge, valley, peak, pit, saddle",
        "crystal": "given, found or none found: orientation of a cubic crystal",
        "crystal_matrix": "9 numbers, row by row: turns the crystal's axes into (z, y, x)",
        "crystal_explained": "part of the variance of the normals' density that the best orientation explains",
        "crystal_explained_by_chance": "the same for facets of the same areas in random directions, mean",
        "particles_where_facets_meet_share": "particles with two or more facets around them; area_...: the same of "
        "places on the surface taken at random",
    },
)
FACET_TABLE = Artifact(
    "facet_table",
    "/measurement/facets",
    ("plane",),
    meaning="one row per family of crystal planes (kind family; where the orientation is known) and per direction that "
    "much of the surface faces (kind facet), each followed by the rest: area of the support's exposed surface within "
    "the tolerance, its share and that of normals without any order, and the particles that sit there",
    optional=True,
)
ORIENTATION_MAP = Artifact(
    "orientation_map",
    "/measurement/orientations",
    ("hemisphere", "row", "column"),
    "f4",
    "1/sr",
    "area density of the outward normals of the support's exposed surface in Lambert's equal-area projection, towards "
    "-z and towards +z; columns along x, rows along y; NaN outside the circle",
    optional=True,
    attrs={"kernel_deg": "width of the smoothing, degrees", "isotropic_per_sr": "density of normals without order"},
)
CURVATURE_TABLE = Artifact(
    "curvature_table",
    "/measurement/curvature",
    ("bin",),
    meaning="histogram of the mean curvature (positive where convex, 1/r on a ball) of the support's exposed surface "
    "by area, and of that around particles; the outermost bins hold what lies beyond",
    optional=True,
)
PORE_TABLE = Artifact(
    "pore_table",
    "/measurement/pores",
    ("pore",),
    meaning="one row per pore (background voxels joined through faces), largest first; elongation and flatness are "
    "ratios of the longest to the middle and of the middle to the shortest axis, (axis_z, axis_y, axis_x) the longest; "
    "angles are those of the longest and of the shortest axis to the normal of the nearest facet",
    optional=True,
)
PORE_SIZE_TABLE = Artifact(
    "pore_size_table",
    "/measurement/pore_sizes",
    ("bin",),
    meaning="pore volume by the diameter of the largest sphere in the pores that covers a place",
    optional=True,
)
LAYER_TABLE = Artifact(
    "layer_table",
    "/measurement/layers",
    ("layer",),
    meaning="one row per layer along the tilt axis, where the sample has layers: class, from, to and thickness, purity "
    "(mean share of the class in the sample's slices between them), touches_border",
    optional=True,
)
MEASUREMENT_INFO = Artifact(
    "measurement_info",
    "/measurement",
    meaning="summary numbers; each length as _nm and _px, NaN where there is none. With measure.uncertainty also "
    "..._uncertainty, 68% half-widths by even and odd tilts, and border_offset_px, by how much labels draw the border "
    "of particles further out than their intensity",
    attrs={
        "particle_class": "name of the class counted",
        "n_particles": "all that were counted",
        "n_below_resolution": "of the others, those smaller than resolution_px (at least 2 px)",
        "n_in_size_statistics": "those that neither touch the border of the volume nor are below the resolution",
        "mean_diameter_nm": "mean equivalent-sphere diameter",
        "median_diameter_nm": "median equivalent-sphere diameter",
        "std_diameter_nm": "sample standard deviation of the diameters",
        "d10_nm": "a tenth of the particles is smaller; also d50, d90; by surface ds10 to ds90, by volume dv10 to dv90",
        "d32_nm": "surface-weighted mean diameter (Sauter), sum d^3 / sum d^2",
        "d43_nm": "volume-weighted mean diameter, sum d^4 / sum d^3",
        "mean_diameter_ci95_low_nm": "lower end of the 95% confidence interval (bootstrap over particles); _high the "
        "upper one; also of d10, d50, d90, d32 and d43",
        "mean_diameter_half_voxel_nm": "by how much it grows when all surfaces move half a voxel outwards; also of d32",
        "dispersion": "part of the atoms at the surface, from d32 and atom_diameter_nm; NaN where that is unknown",
        "dispersion_ci95_low": "lower end of the 95% confidence interval; _high the upper one",
        "atom_diameter_nm": "diameter of the particles' atoms",
        "n_elongated_along_beam": "particles that the missing wedge is suspected to have elongated",
        "missing_wedge_deg": "largest gap between the directions of the tilts, degree",
        "voxel_size_nm": "nm; NaN where unknown",
        "resolution_nm": "of the reconstruction, by shell correlation; NaN where unknown",
    },
)

EXPORT_INFO = Artifact(
    "export_info",
    "/export",
    meaning="files written",
    attrs={"directory": "absolute path", "files": "JSON list of {name, bytes, mtime_ns}"},
)

# Painted by hand and taken in by `tomoseg annotate import`: no stage makes or changes them. Images are kept with the
# labels, as they were painted on: a volume that is made anew does not change what a network learns from.
ANNOTATED_IMAGES = Artifact(
    "annotated_images", "/annotation/images", ("slice", "row", "column"), "f4", "counts per px", "slices painted on"
)
ANNOTATED_LABELS = Artifact(
    "annotated_labels",
    "/annotation/labels",
    ("slice", "row", "column"),
    "u1",
    "class index",
    "painted labels; 255 where nobody painted",
)
ANNOTATED_SLICES = Artifact(
    "annotated_slices",
    "/annotation/slices",
    ("slice",),
    meaning="per slice: its number along the normal of the plane, and the run id of the reconstruction it was cut from",
)
ANNOTATION_INFO = Artifact(
    "annotation_info",
    "/annotation",
    meaning="what was painted",
    attrs={
        "plane": "'xz', 'xy' or 'yz'; rows and columns of the images are its two axes in the order z, y, x",
        "class_names": "one per class, in class order",
        "class_colors": "one #rrggbb per class",
        "pixel_size_nm": "nm; NaN where unknown",
    },
)
BY_HAND: tuple[Artifact, ...] = (ANNOTATED_IMAGES, ANNOTATED_LABELS, ANNOTATED_SLICES, ANNOTATION_INFO)

ARTIFACTS: tuple[Artifact, ...] = (
    TILT_SERIES,
    ANGLES,
    TILT_SERIES_INFO,
    FURTHER_SIGNALS,
    SHIFTS,
    ALIGNMENT_INFO,
    TILT_QUALITY,
    MARKERS,
    MARKER_RESIDUALS,
    REFINED_ANGLES,
    ALIGNED,
    ALIGNED_SIGNALS,
    ALIGNMENT_PREVIEW,
    VOLUME,
    SIGNAL_VOLUMES,
    RESIDUALS,
    STOPPING,
    SHELLS,
    RECONSTRUCTION_INFO,
    LABELS,
    CONFIDENCE,
    SEGMENTATION_INFO,
    CLASS_TABLE,
    PARTICLE_TABLE,
    SIZE_TABLE,
    SUPPORT_INFO,
    FACET_TABLE,
    ORIENTATION_MAP,
    CURVATURE_TABLE,
    PORE_TABLE,
    PORE_SIZE_TABLE,
    LAYER_TABLE,
    MEASUREMENT_INFO,
    EXPORT_INFO,
    *BY_HAND,
)
BY_NAME: Mapping[str, Artifact] = {artifact.name: artifact for artifact in ARTIFACTS}
