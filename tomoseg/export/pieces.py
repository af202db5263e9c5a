"""A volume cut along the chunks of a file, so that each chunk is written once, and little is held meanwhile."""

from collections.abc import Callable, Iterable, Sequence

from tomoseg.runtime import slabs

Piece = tuple[slice, slice]
# Like `Runtime.track`: yields the pieces one after the other while somebody watches.
Track = Callable[[Sequence[Piece], str], Iterable[Piece]]


def pieces(shape: Sequence[int], chunks: Sequence[int], itemsize: int, n_bytes: float) -> list[Piece]:
    """Cut a volume (z, y, x) into boxes over all of x that end where chunks end, as large as fits in `n_bytes`.

    At least one row of chunks, however little `n_bytes` is.

    Returns
    -------
    list of (z, y)
        Slices of the first two axes, in the order of the file.
    """
    row = chunks[0] * chunks[1] * shape[2] * itemsize
    in_y = max(1, int(n_bytes / row))
    rows = -(-shape[1] // chunks[1])
    in_z = max(1, in_y // rows)
    along_y = slabs(shape[1], min(in_y, rows) * chunks[1])
    return [(z, y) for z in slabs(shape[0], in_z * chunks[0]) for y in along_y]
