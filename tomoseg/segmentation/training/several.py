"""Training of several networks on the same slices: one after the other here, or at the same time on a cluster.

A worker of a cluster needs no file of this machine: it trains in pieces of some minutes, whose files come back. A piece
ends with a whole epoch; the next one goes on from its files, as a training does that is resumed. So what is lost with a
worker, or with this process, is a piece.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tomoseg.arrays import Array
from tomoseg.errors import Interrupted
from tomoseg.runtime import Runtime
from tomoseg.segmentation.networks.encoder_weights import fetch, name_of
from tomoseg.segmentation.networks.known_models import resolve_model
from tomoseg.segmentation.training.files import TrainFiles
from tomoseg.segmentation.training.parameters import TrainParameters
from tomoseg.segmentation.training.trainer import TrainResult, train

PIECE_S = 300.0  # after which a piece ends with its epoch
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Training:
    """A network to be trained: its file, its parameters, what it is called, and what is told of each epoch."""

    output: Path
    params: TrainParameters
    what: str
    told: Callable[[Row], None] | None


@dataclass(frozen=True)
class _Shared:
    """What all pieces share: slices, what `train` takes besides, and the files of weights that networks start from."""

    images: Sequence[Array]
    labels: Sequence[Array]
    about: Mapping[str, Any]
    weights: Mapping[str, tuple[str, bytes]]  # by the parameter that names it: name and content


@dataclass(frozen=True)
class _Piece:
    """What a worker is to do: go on from these files for so many seconds."""

    name: str
    params: TrainParameters
    content: Mapping[str, bytes]
    seconds: float


@dataclass(frozen=True)
class _Done:
    """What a worker did: the files as they are now, the rows of new epochs, and the result once all is done."""

    content: Mapping[str, bytes]
    rows: Sequence[Row]
    result: TrainResult | None


def train_each(
    images: Sequence[Array],
    labels: Sequence[Array],
    trainings: Sequence[Training],
    about: Mapping[str, Any],
    runtime: Runtime,
    *,
    resume: bool,
    overwrite: bool,
) -> Iterator[TrainResult]:
    """Train networks, and yield in order what `train` does for each.

    `about` are further keywords of `train`. Raises as `train`.
    """
    if runtime.cluster is not None:
        for one in trainings:
            files = TrainFiles(one.output)
            files.require_free(resume=resume, overwrite=overwrite)
            if not resume:
                files.remove()
        yield from _in_pieces(trainings, _Shared(images, labels, about, _weights(trainings, runtime)), runtime)
        return
    for one in trainings:
        if one.what:
            runtime.say(one.what)
        yield train(
            images,
            labels,
            one.output,
            on_epoch=one.told,
            resume=resume,
            overwrite=overwrite,
            params=one.params,
            runtime=runtime,
            **about,
        )


def _weights(trainings: Sequence[Training], runtime: Runtime) -> dict[str, tuple[str, bytes]]:
    """Return the files of weights that all networks start from, if there are any."""
    params, found = trainings[0].params, {}
    if params.encoder_weights:
        path = fetch(params.encoder_weights, runtime.say, runtime.check)[0]
        found["encoder_weights"] = name_of(params.encoder_weights), path.read_bytes()
    if params.start:
        path = resolve_model(params.start)
        found["start"] = path.name, path.read_bytes()
    return found


def _in_pieces(trainings: Sequence[Training], shared: _Shared, runtime: Runtime) -> list[TrainResult]:
    """Train all networks at the same time on the workers, piece by piece."""
    files = [TrainFiles(one.output) for one in trainings]
    results: dict[int, TrainResult] = {}
    longest = 1.0  # seconds of an epoch
    while left := [k for k in range(len(trainings)) if k not in results]:
        runtime.check(longest)
        seconds = PIECE_S if runtime.stop_at is None else min(PIECE_S, (runtime.stop_at - time.monotonic()) / 2)
        pieces = [_Piece(files[k].output.name, trainings[k].params, files[k].content(), seconds) for k in left]
        items = [(f"the training of {piece.name}", piece) for piece in pieces]
        with closing(runtime.each(_train_piece, shared, items)) as all_done:
            for k, done in zip(left, all_done, strict=True):
                files[k].replace(done.content)
                for row in done.rows:
                    longest = max(longest, row["seconds"])
                    if (told := trainings[k].told) is not None:
                        told(row)
                if done.result is not None:
                    results[k] = _placed(done.result, files[k])
    return [results[k] for k in range(len(trainings))]


def _placed(result: TrainResult, files: TrainFiles) -> TrainResult:
    """Return a result with the paths of its files here."""
    return replace(
        result, model=files.output, history_csv=files.history, curves_png=files.curves, checkpoint=files.checkpoint
    )


def _train_piece(shared: _Shared, piece: _Piece, runtime: Runtime) -> _Done:
    """Train for some minutes on a worker."""
    from tomoseg.segmentation.networks.keras_setup import keras

    keras.utils.clear_session()
    rows: list[Row] = []
    began = time.monotonic()

    def on_epoch(row: Row) -> None:
        rows.append(row)
        if time.monotonic() - began > piece.seconds and row["epoch"] < piece.params.epochs:
            raise Interrupted("the piece is over")

    with tempfile.TemporaryDirectory(prefix="tomoseg-") as folder:
        files, params = TrainFiles(Path(folder, piece.name)), piece.params
        files.replace(piece.content)
        for parameter, (name, content) in shared.weights.items():
            path = Path(folder, "weights", name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            params = params.changed(**{parameter: str(path)})
        result = None
        try:
            result = train(
                shared.images,
                shared.labels,
                files.output,
                on_epoch=on_epoch,
                resume=True,
                params=params,
                runtime=runtime,
                **shared.about,
            )
        except Interrupted:
            runtime.check()  # of the worker itself
        return _Done(files.content(), rows, result)
