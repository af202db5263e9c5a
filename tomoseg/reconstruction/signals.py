"""Volumes of further signals of a tilt series: elemental maps, other detectors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import ArraySink, Input, MemoryOutputs, Outputs, Part, signal_names
from tomoseg.errors import InputError, StageFailed, shown
from tomoseg.reconstruction.api import reconstruct_series
from tomoseg.reconstruction.parameters import ReconstructParameters
from tomoseg.runtime import Runtime


def chosen_signals(wanted: Sequence[str], signals: Input | None) -> list[int]:
    """Return the places of the signals that are wanted, by name or all.

    Raises `InputError` if there is none of a name.
    """
    names = [] if signals is None else signal_names(signals, 1)
    if not wanted:
        return []
    if not names:
        raise InputError(
            f"reconstruct.signals asks for {shown(', '.join(wanted), 100)}, but the project holds no further signals; "
            "import them with the tilt series (--further-signals)"
        )
    if [name.casefold() for name in wanted] == ["all"]:
        return list(range(len(names)))
    places = {name.casefold(): i for i, name in enumerate(names)}
    unknown = [name for name in wanted if name.casefold() not in places]
    if unknown:
        raise InputError(
            f"reconstruct.signals: there is no further signal {shown(', '.join(unknown), 100)}; the project holds "
            f"{shown(', '.join(names), 200)}"
        )
    return [places[name.casefold()] for name in dict.fromkeys(wanted)]


def reconstruct_signals(
    signals: Input,
    chosen: Sequence[int],
    angles_deg: NDArray[np.float64],
    *,
    outliers: NDArray[np.bool_] | None,
    pixel_size_nm: float,
    shape: Sequence[int],
    params: ReconstructParameters,
    runtime: Runtime,
    outputs: Outputs,
    film_thickness_px: float | None = None,
) -> None:
    """Reconstruct some of the aligned signals (n_tilt, n_signal, y, x), as the tilt series was.

    `outputs` receive 'signal_volumes', (n_chosen, z, y, x) f4; `shape` is that of the volume.
    """
    names = [signal_names(signals, 1)[i] for i in chosen]
    attrs = {"names": names, "voxel_size_nm": pixel_size_nm * params.binning}
    volumes = outputs.create("signal_volumes", (len(chosen), *shape), attrs=attrs)
    params = params.model_copy(update={"resolution": False})
    for k, (place, name) in enumerate(zip(chosen, names, strict=True)):
        runtime.say(f"signal {name}:")
        try:
            reconstruct_series(
                Part(signals, 1, place),
                angles_deg,
                outliers=outliers,
                pixel_size_nm=pixel_size_nm,
                params=params,
                runtime=runtime,
                outputs=_OneOf(volumes, k),
                film_thickness_px=film_thickness_px,
            )
        except StageFailed as error:
            raise StageFailed(f"signal {name}: {error}") from error


class _OneOf(MemoryOutputs):
    """Outputs of the reconstruction of one signal: its volume goes to its place among those of all signals."""

    def __init__(self, volumes: ArraySink, place: int) -> None:
        super().__init__()
        self._volume = Part(volumes, 0, place)

    def create(
        self, name: str, shape: tuple[int, ...], dtype: Any = None, attrs: Mapping[str, Any] | None = None
    ) -> ArraySink:
        """Return where an array goes."""
        return self._volume if name == "volume" else super().create(name, shape, dtype, attrs)
