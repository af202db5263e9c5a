"""Digital Micrograph DM3 and DM4: RosettaSciIO parses the tags, the pixels are read from the file."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.errors import InputError
from tomoseg.io.series import RawSeries, chosen_stack, contiguous, heard, jsonable, native, stack_shape
from tomoseg.io.units import degrees_per, judged_pixel_size

# What of an image's tags is kept as metadata: settings, not the tables and thumbnails.
_KEPT_TAGS = ("Microscope Info", "DigiScan", "DataBar", "Acquisition")


def read(path: Path) -> RawSeries:
    """Open the image stack of a DM3 or DM4 file.

    Raises
    ------
    InputError
        No stack of grey images in it, or truncated.
    """
    from rsciio.digitalmicrograph import file_reader

    try:
        with heard("rsciio") as said:
            images: list[dict[str, Any]] = file_reader(str(path), lazy=True)
    except ValueError as error:
        if "RGB" in str(error):
            raise InputError(f"{path} holds colour images; a tilt series has one number per pixel") from error
        raise
    stacks = [image for image in images if image["data"].ndim >= 3] or images
    if not stacks:
        raise InputError(f"{path} holds no image")
    index, note = chosen_stack([str(image["metadata"]["General"].get("title", "")) for image in stacks])
    image = stacks[index]
    tags = image["original_metadata"]["ImageList"]["TagGroup0"]
    shape = stack_shape(path, image["data"].shape, image["data"].dtype)
    place = tags["ImageData"]["Data"]
    dtype = image["data"].dtype.newbyteorder(">" if place.get("endian") == "big" else "<")
    series = RawSeries(
        path, "Digital Micrograph", shape, native(dtype), contiguous(path, place["offset"], shape, dtype)
    )
    tilt, y, x = image["axes"]
    scales = float(y["scale"]), float(x["scale"])
    series.pixel_size = judged_pixel_size(scales, (y["units"], x["units"]), "Digital Micrograph calibration")
    _use_angles(series, tilt, tags)
    settings = {key: value for key, value in tags.get("ImageTags", {}).items() if key in _KEPT_TAGS}
    series.metadata = {"title": jsonable(image["metadata"]["General"].get("title", "")), "tags": jsonable(settings)}
    series.notes += [note] if note else []
    series.notes += said
    return series


def _use_angles(series: RawSeries, axis: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
    """Take the angles from the list that Gatan's tomography leaves in the tags, else from the axis calibration."""
    n = series.shape[0]
    dimensions = tags.get("ImageTags", {}).get("Meta Data", {}).get("Dimension info", {})
    for dimension in dimensions.values() if isinstance(dimensions, Mapping) else ():
        unit = re.search(r"\((.*)\)", str(dimension.get("Label", "")))
        values = dimension.get("Data", {})
        factor = degrees_per(unit[1]) if unit else None
        if factor is not None and isinstance(values, Mapping) and len(values) == n:
            listed = [float(values[key]) for key in sorted(values, key=int)]
            series.angles_deg, series.angles_source = factor * np.array(listed), f"tag '{dimension['Label']}'"
            return
    factor = degrees_per(str(axis["units"]))
    if factor is not None and float(axis["scale"]) != 0:
        start, step = factor * float(axis["offset"]), factor * float(axis["scale"])
        series.angles_deg = start + step * np.arange(n, dtype=np.float64)
        series.angles_source = "Digital Micrograph calibration of the stack axis"
