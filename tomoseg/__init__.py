"""tomoseg: from a raw electron-tomography tilt series to a measured, segmented 3D volume."""

__version__ = "0.1.0"
