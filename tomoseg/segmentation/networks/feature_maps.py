"""The arrays that a network makes of a patch, told without computing anything."""

import math
from collections import defaultdict
from typing import Any

from tomoseg.segmentation.networks.keras_setup import keras


class Trial(keras.Layer):  # type: ignore[misc]
    """Calls a network layer by layer; Keras itself would only ask it for the shape of its output."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.graph: Any = None  # TensorFlow's, of the last call

    def call(self, x: Any) -> Any:
        """Call the network, as Keras does to learn the shape of the output."""
        output = self.model.call(x)
        self.graph = getattr(output, "graph", None)
        return output

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the output for an input of `shape`; nothing is computed."""
        return tuple(self(keras.KerasTensor(shape, "float32")).shape)


def largest_output(model: Any, height: int, width: int) -> int:
    """Return how many numbers the largest output of a layer has, for one patch."""
    every = keras.Function(model.inputs, [layer.output for layer in model.layers])
    outputs = every.compute_output_spec([keras.KerasTensor((1, height, width, model.input_shape[-1]))])
    return max(int(math.prod(output.shape)) for output in outputs)


def bytes_at_once(model: Any, height: int, width: int) -> int:
    """Return the bytes of all arrays that are needed at a time, at the most, for one patch; 0 without TensorFlow.

    Unlike the outputs of layers, these are also arrays inside of layers, and all of those that wait to be joined.
    """
    trial = Trial(model)
    trial.output_shape((1, height, width, model.input_shape[-1]))
    operations = trial.graph.get_operations() if trial.graph is not None else []
    last_use = {tensor.name: i for i, operation in enumerate(operations) for tensor in operation.inputs}
    held, most = 0, 0
    ending: dict[int, int] = defaultdict(int)  # bytes, by the last operation that needs them
    for i, operation in enumerate(operations):
        for tensor in operation.outputs:
            held += _bytes_of(tensor)
            ending[last_use.get(tensor.name, i)] += _bytes_of(tensor)
        most = max(most, held)
        held -= ending[i]
    return most


def _bytes_of(tensor: Any) -> int:
    """Return the bytes of an array in a graph, 0 where its shape is not known before it is computed."""
    is_known = tensor.shape.rank is not None and None not in tensor.shape.as_list()
    return math.prod(tensor.shape.as_list()) * int(tensor.dtype.size) if is_known else 0
