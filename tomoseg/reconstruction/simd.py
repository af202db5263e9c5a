"""Vectors of `LANES` floats inside numba kernels.

Numba leaves the use of SIMD registers to the compiler's loop vectoriser, which gives up on exactly the loops that
matter here: short ones of fixed length, over arrays that might overlap. These intrinsics spell the vector operations
out instead. One value of the numba type `lanes` is an LLVM ``<16 x float>``: one register with AVX-512, two with AVX2,
four with SSE2 or NEON; LLVM splits it for the machine at hand, so there is one code for all of them.

All arrays are flat float32 (or int32) C-contiguous arrays; indices count elements, are not checked, and must not be
negative. Numba's on-disk cache watches the file of the kernel, not this one: touch `kernels.py` after a change here.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

LANES = 16

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INT32 = ir.IntType(32)
_INT_VECTOR = ir.VectorType(_INT32, LANES)


class Lanes(types.Type):
    """Numba type of a vector of LANES float32."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


lanes = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    """A vector lives in registers, as an LLVM vector."""

    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR)  # type: ignore[no-untyped-call]


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, pointee: Any) -> Any:
    """Emit the address of element `index` of `array`, as a pointer to `pointee`."""
    data = context.make_array(array_type)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [index]), pointee.as_pointer())


def _splat(builder: Any, scalar: Any, vector: Any = _VECTOR) -> Any:
    """Emit a vector with `scalar` in every lane."""
    empty = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(_INT_VECTOR, [0] * LANES))


def _call(builder: Any, name: str, operands: Any) -> Any:
    """Emit a call of the LLVM intrinsic `name` on vectors."""
    signature = ir.FunctionType(_VECTOR, [_VECTOR] * len(operands))
    get: Any = cgutils.get_or_insert_function
    return builder.call(get(builder.module, signature, f"llvm.{name}.v{LANES}f32"), operands)


def _zero(typingctx: Any) -> Any:
    """zero() -> lanes, all 0."""
    return lanes(), lambda context, builder, sig, args: ir.Constant(_VECTOR, [0.0] * LANES)


def _fill(typingctx: Any, scalar: Any) -> Any:
    """fill(scalar) -> lanes, all `scalar`."""
    return lanes(types.float32), lambda context, builder, sig, args: _splat(builder, args[0])


def _load(typingctx: Any, array: Any, index: Any) -> Any:
    """load(array, index) -> lanes, the elements from `index` on."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = builder.load(_address(context, builder, sig.args[0], args[0], args[1], _VECTOR))
        value.align = 4
        return value

    return lanes(array, types.int64), emit


def _store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """store(array, index, lanes), over the elements from `index` on."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, sig.args[0], args[0], args[1], _VECTOR)).align = 4
        return context.get_dummy_value()

    return types.none(array, types.int64, value), emit


def _store_offsets(typingctx: Any, array: Any, index: Any, value: Any, stride: Any, start: Any) -> Any:
    """store_offsets(int32 array, index, lanes, stride, start): store ``int(lanes)*stride + start``."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole = builder.fptosi(args[2], _INT_VECTOR)
        scaled = builder.mul(whole, _splat(builder, args[3], _INT_VECTOR))
        offset = builder.add(scaled, _splat(builder, args[4], _INT_VECTOR))
        builder.store(offset, _address(context, builder, sig.args[0], args[0], args[1], _INT_VECTOR)).align = 4
        return context.get_dummy_value()

    return types.none(array, types.int64, value, types.int32, types.int32), emit


def _at(typingctx: Any, array: Any, index: Any) -> Any:
    """at(array, index) -> element, without numba's test for negative indices."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, value=args[0]).data
        return builder.load(builder.gep(data, [args[1]]))

    return array.dtype(array, types.int64), emit


def _multiply_add(typingctx: Any, scalar: Any, value: Any, total: Any) -> Any:
    """multiply_add(scalar, lanes, total) -> total + scalar*lanes, fused where the machine can."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, "fmuladd", [_splat(builder, args[0]), args[1], args[2]])

    return lanes(types.float32, value, total), emit


def _add(typingctx: Any, a: Any, b: Any) -> Any:
    """add(lanes, lanes) -> lanes."""
    return lanes(a, b), lambda context, builder, sig, args: builder.fadd(*args)


def _subtract(typingctx: Any, a: Any, b: Any) -> Any:
    """subtract(lanes, lanes) -> lanes."""
    return lanes(a, b), lambda context, builder, sig, args: builder.fsub(*args)


def _multiply(typingctx: Any, a: Any, b: Any) -> Any:
    """multiply(lanes, lanes) -> lanes."""
    return lanes(a, b), lambda context, builder, sig, args: builder.fmul(*args)


def _floor(typingctx: Any, a: Any) -> Any:
    """floor(lanes) -> lanes."""
    return lanes(a), lambda context, builder, sig, args: _call(builder, "floor", list(args))


def _chooser(name: str, relation: str) -> Any:
    """Make `minimum` or `maximum`: the first operand where it stands in `relation` to the second."""

    def choose(typingctx: Any, a: Any, b: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.select(builder.fcmp_ordered(relation, args[0], args[1]), args[0], args[1])

        return lanes(a, b), emit

    choose.__name__ = name
    return choose


# `Any`: to the type checker these are called with one argument less than they are written with.
zero: Any = intrinsic(_zero)
fill: Any = intrinsic(_fill)
load: Any = intrinsic(_load)
store: Any = intrinsic(_store)
store_offsets: Any = intrinsic(_store_offsets)
at: Any = intrinsic(_at)
multiply_add: Any = intrinsic(_multiply_add)
add: Any = intrinsic(_add)
subtract: Any = intrinsic(_subtract)
multiply: Any = intrinsic(_multiply)
floor: Any = intrinsic(_floor)
minimum: Any = intrinsic(_chooser("minimum", "<"))
maximum: Any = intrinsic(_chooser("maximum", ">"))
