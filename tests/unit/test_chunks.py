"""Volumes read by whole chunks, and written from boxes."""

import numpy as np
import pytest

from tomoseg.chunks import pieces, pieces_of, planes_at_once, write_piece


class Chunked:
    """An array whose file has chunks."""

    def __init__(self, array, chunks):
        self.array, self.chunks = array, chunks
        self.shape, self.dtype = array.shape, array.dtype
        self.times = np.zeros([-(-n // c) for n, c in zip(array.shape, chunks, strict=True)], int)

    def __getitem__(self, key):
        self.times[tuple(slice(s.start // c, -(-s.stop // c)) for s, c in zip(key, self.chunks, strict=True))] += 1
        return self.array[key]


@pytest.mark.parametrize("n_bytes", [0, 10_000, 100_000, 10**9])
@pytest.mark.parametrize("shape", [(1, 1, 1), (20, 30, 40), (17, 5, 3)])
def test_pieces_end_where_chunks_end(shape, n_bytes):
    seen = np.zeros(shape, int)
    for piece in pieces(shape, (4, 8, 8), 4, n_bytes):
        seen[piece] += 1
        for part, chunk, n in zip(piece, (4, 8, 8), shape, strict=True):
            assert part.start % chunk == 0
            assert part.stop % chunk == 0 or part.stop == n
        assert seen[piece].nbytes // 2 <= max(n_bytes, 4 * 8 * 8 * 4)  # 4 bytes per voxel
    assert (seen == 1).all()
    if n_bytes == 10**9:
        assert len(pieces(shape, (4, 8, 8), 4, n_bytes)) == 1


def test_pieces_are_long_along_x():
    found = pieces((8, 8, 32), (4, 4, 4), 1, 64 * 8)  # eight chunks are a row
    assert found[0] == (slice(0, 4), slice(0, 4), slice(0, 32))
    assert len(found) == 4


@pytest.mark.parametrize("n_bytes", [1, 3000, 10**6])
@pytest.mark.parametrize("chunks", [(4, 3, 5), (7, 8, 9), (20, 1, 2)])
def test_boxes_written_one_by_one_make_the_volume(tmp_path, chunks, n_bytes):
    data = Chunked(np.random.default_rng(0).random((17, 10, 13), dtype=np.float32), chunks)
    path = tmp_path / "volume.raw"
    with path.open("wb") as file:
        file.write(b"head")
        for piece in pieces_of(data, 4, n_bytes):
            write_piece(file, 4, data[piece], piece, data.shape)
    assert (data.times == 1).all()
    assert path.read_bytes() == b"head" + data.array.tobytes()


def test_planes_are_the_chunks_of_an_array_without_any():
    data = np.zeros((10, 4, 4), np.float32)
    assert [z.stop - z.start for z, _, _ in pieces_of(data, 4, 3 * 64)] == [3, 3, 3, 1]
    assert planes_at_once(data, 7) == 7


@pytest.mark.parametrize(("most", "expected"), [(200, 192), (64, 64), (63, 32), (44, 32), (31, 22), (1, 1)])
def test_slabs_of_planes_read_few_chunks_twice(most, expected):
    assert planes_at_once(Chunked(np.zeros((256, 1, 1)), (64, 1, 1)), most) == expected
