"""Digests of files, computed once for each content: a raw series may have tens of gigabytes."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from tomoseg.io.regular import open_regular

PIECE = 1 << 20  # bytes


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex; read again only if size or modification time changed since the last call.

    No more is read than the size that the file has at the beginning. Raises `InputError` if it is no regular file.
    """
    stat = path.stat()
    return _sha256(path.absolute(), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=64)
def _sha256(path: Path, _size: int, _mtime_ns: int, _inode: int) -> str:
    digest, buffer = hashlib.sha256(), bytearray(PIECE)
    with open_regular(path) as file:
        left = os.fstat(file.fileno()).st_size  # 0 for those of /proc that never end
        while left and (n := file.readinto(memoryview(buffer)[: min(left, PIECE)])):
            digest.update(memoryview(buffer)[:n])
            left -= n
    return digest.hexdigest()
