import itertools

import h5py
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tomoseg.cli.app import app


def movie(project, *words):
    return CliRunner().invoke(app, ["movie", str(project), "--seconds", "0.5", "--size", "97", *map(str, words)])


def test_a_gif_turns_once(project, tmp_path):
    path = tmp_path / "turn.gif"
    done = movie(project, "-o", path)
    assert done.exception is None, done.exception
    with Image.open(path) as picture:
        assert (picture.size, picture.n_frames) == ((98, 98), 6)
        frames = []
        for i in range(picture.n_frames):
            picture.seek(i)
            frames.append(np.asarray(picture.convert("RGB"), float))
    assert (frames[0][0, 0] == 255).all()  # on white
    assert all(np.abs(a - b).mean() > 0.5 for a, b in itertools.pairwise(frames))


def test_an_mp4_has_all_frames_on_black(project, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "turn.mp4"
    done = movie(project, "-o", path, "--dark")
    assert done.exception is None, done.exception
    frames, seconds = ffmpeg.count_frames_and_secs(str(path))
    assert frames == 10
    assert seconds == pytest.approx(0.5, abs=0.1)
    reader = ffmpeg.read_frames(str(path))
    size = next(reader)["size"]
    assert size == (98, 98)
    assert np.frombuffer(next(reader), np.uint8)[:30].max() < 20


def test_what_cannot_be_shown_is_said(project, tmp_path):
    assert "must end in .mp4 or .gif" in str(movie(project, "-o", tmp_path / "turn.avi").exception)
    with h5py.File(project, "r+") as file:
        del file["segmentation"]
    assert "run segment first" in str(movie(project, "-o", tmp_path / "turn.gif").exception)
    assert not (tmp_path / "turn.gif").exists()
