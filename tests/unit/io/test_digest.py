import hashlib
import os

from tomoseg.io.digest import sha256


def test_the_digest_is_that_of_the_content_and_follows_it(tmp_path):
    path = tmp_path / "raw.bin"
    content = os.urandom(3_000_000)
    path.write_bytes(content)
    assert sha256(path) == hashlib.sha256(content).hexdigest()
    path.write_bytes(content[::-1] + b"more")
    assert sha256(path) == hashlib.sha256(content[::-1] + b"more").hexdigest()
