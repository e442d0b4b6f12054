"""Keras layers whose matrices are codes and scales.

They compute with plain operations of Keras: codes are cast, scaled, and multiplied as floats. A
graph that `model.export()` writes therefore holds the small weights and needs nothing of this
package to run. What is gained is size, on disk and in memory, not time (docs/KERAS.md).
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import keras
from keras import ops

from .. import errors
from ._pack import Array, Grid, Packed, grid

_register = keras.saving.register_keras_serializable(package="sfq")


REVERSIBLE: Any = getattr(keras.layers, "ReversibleEmbedding", None)  # from Keras 3.12 on


def is_plain(layer: Any, kind: Any) -> bool:
    """Whether a layer is of a class, or of a subclass of it that adds no code."""
    if kind is None or not isinstance(layer, kind):
        return False
    own = type(layer).__mro__[:type(layer).__mro__.index(kind)]
    return not any(callable(value) or isinstance(value, property)
                   for base in own for value in vars(base).values())


def refuse(what: str) -> errors.ArgumentError:
    return errors.ArgumentError(f"sfq.keras: {what}", "E_ARGUMENT")


class PackedLayer(keras.layers.Layer):
    """A matrix [rows, columns] as codes and scales; what the layers below have in common.

    Weights: `codes` int8 [rows, columns] at 8 bits, else planes `codes_4`, `codes_2`, `codes_1`
    uint8 [rows, bytes]; `scales` float16 or float32, one for a block of weights. None is trained.
    """

    def __init__(self, bits: int, scale_dtype: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(bits, int) or not 2 <= bits <= 8:
            raise refuse(f"bits is {bits!r}; it must be in 2..8")
        if scale_dtype not in ("float16", "float32"):
            raise refuse(f"scales are float16 or float32, not {scale_dtype!r}")
        if self.dtype_policy.quantization_mode is not None:
            raise refuse(f"the layer {self.name!r} is packed already; its dtype policy must not "
                         "quantize")
        self.bits = bits
        self.scale_dtype = scale_dtype
        self._grid: Optional[Grid] = None
        self._codes: list[Any] = []
        self.bias: Any = None

    def _add_matrix(self, rows: int, columns: int, table: bool) -> None:
        how = grid(rows, columns, self.bits, table)
        self._grid = how
        self._codes = [self.add_weight(name=name, shape=shape, dtype=dtype, initializer="zeros",
                                       trainable=False, autocast=False)
                       for name, dtype, shape in how.codes()]
        self.scales = self.add_weight(name="scales", shape=how.scales, dtype=self.scale_dtype,
                                      initializer="ones", trainable=False, autocast=False)

    def _add_bias(self, shape: Optional[Sequence[int]]) -> None:
        if shape is not None:
            self.bias = self.add_weight(name="bias", shape=tuple(shape), initializer="zeros")

    def fill(self, packed: Packed, bias: Optional[Array] = None) -> None:
        """Takes codes and scales (and a bias); the layer is built."""
        for variable, value in zip(self._codes, packed.codes):
            variable.assign(value)
        self.scales.assign(packed.scales)
        if bias is not None:
            self.bias.assign(bias)

    def _signed(self, codes: list[Any]) -> Any:
        """float32 [..., columns] of the rows of the planes."""
        how = self._grid
        assert how is not None
        if not how.planes:
            return ops.cast(codes[0], "float32")
        whole = None
        for width, plane in zip(how.planes, codes):
            parts = [plane if i == 0 else ops.right_shift(plane, _byte(width * i))
                     for i in range(8 // width)]
            part = ops.bitwise_and(ops.concatenate(parts, axis=-1)[..., :how.columns],
                                   _byte(2 ** width - 1))
            whole = part if whole is None else ops.bitwise_or(
                ops.left_shift(whole, _byte(width)), part)
        return ops.cast(whole, "float32") - 2 ** (self.bits - 1)

    def dequantize(self) -> Any:
        """float32 [rows, columns]: the matrix that the layer multiplies with."""
        how = self._grid
        if how is None:
            raise refuse(f"the layer {self.name!r} is not built")
        scales = ops.cast(ops.convert_to_tensor(self.scales), "float32")
        scales = _spread(scales, 0, how.row_block, how.rows)
        scales = _spread(scales, 1, how.column_block, how.columns)
        return self._signed([ops.convert_to_tensor(c) for c in self._codes]) * scales

    def _finish(self, x: Any) -> Any:
        if self.bias is not None:
            x = ops.add(x, self.bias)
        return self.activation(x) if self.activation is not None else x

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        config.update(bits=self.bits, scale_dtype=self.scale_dtype)
        return config


def _byte(value: int) -> Any:
    return ops.convert_to_tensor(value, dtype="uint8")


def _spread(scales: Any, axis: int, block: int, size: int) -> Any:
    """Repeats scales along an axis; a single one broadcasts."""
    if scales.shape[axis] == 1 or block == 1:
        return scales
    wide = ops.repeat(scales, block, axis=axis)
    return wide[:size] if axis == 0 else wide[:, :size]


@_register
class SfqDense(PackedLayer):
    """`keras.layers.Dense` with a packed kernel [input_dim, units].

    Args:
        units, activation, use_bias: as for Dense.
        input_dim: size of the input's last axis.
        bits: per weight, 2..8.
        scale_dtype: "float16" or "float32".
    """

    def __init__(self, units: int, input_dim: int, activation: Any = None, use_bias: bool = True,
                 *, bits: int = 8, scale_dtype: str = "float16", **kwargs: Any) -> None:
        super().__init__(bits, scale_dtype, **kwargs)
        if units < 1 or input_dim < 1:
            raise refuse(f"a kernel of {input_dim} x {units} weights is empty")
        self.units, self.input_dim = units, input_dim
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: input_dim})

    def build(self, input_shape: Any = None) -> None:
        if self._grid is None:
            self._add_matrix(self.input_dim, self.units, table=False)
            self._add_bias((self.units,) if self.use_bias else None)

    @property
    def kernel(self) -> Any:
        """As `dequantize`, for code that looks at a layer's kernel."""
        return self.dequantize()

    def call(self, inputs: Any) -> Any:
        return self._finish(ops.matmul(inputs, ops.cast(self.dequantize(), self.compute_dtype)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(units=self.units, input_dim=self.input_dim, use_bias=self.use_bias,
                      activation=keras.activations.serialize(self.activation))
        return config


def kernel_axes(equation: str) -> Optional[tuple[list[int], list[int]]]:
    """Axes of an EinsumDense kernel that are summed over, and those that the output has. None
    where the kernel is more than one matrix (an axis that input and output share)."""
    left, _, output = equation.replace(" ", "").partition("->")
    inputs, _, kernel = left.partition(",")
    if not output or not kernel or not all(c in string.ascii_letters for c in kernel):
        return None
    if len(set(kernel)) != len(kernel) or any(c in inputs and c in output for c in kernel):
        return None
    summed = [i for i, c in enumerate(kernel) if c not in output]
    kept = [i for i, c in enumerate(kernel) if c in output]
    return (summed, kept) if summed and kept else None


def _size(shape: Sequence[int], axes: Sequence[int]) -> int:
    size = 1
    for axis in axes:
        size *= shape[axis]
    return size


@_register
class SfqEinsumDense(PackedLayer):
    """`keras.layers.EinsumDense` with a packed kernel, for equations whose kernel is one matrix.

    Args:
        equation, activation: as for EinsumDense.
        kernel_shape: of the kernel in the equation; it is stored as [summed axes, output axes].
        bias_shape: of the bias as it is added, or None.
        bits, scale_dtype: as for `SfqDense`.
    """

    def __init__(self, equation: str, kernel_shape: Sequence[int],
                 bias_shape: Optional[Sequence[int]] = None, activation: Any = None, *,
                 bits: int = 8, scale_dtype: str = "float16", **kwargs: Any) -> None:
        super().__init__(bits, scale_dtype, **kwargs)
        axes = kernel_axes(equation)
        if axes is None or len(kernel_shape) != len(axes[0]) + len(axes[1]):
            raise refuse(f"the kernel {tuple(kernel_shape)} of {equation!r} is not one matrix")
        self.equation = equation
        self.kernel_shape = tuple(kernel_shape)
        self.bias_shape = None if bias_shape is None else tuple(bias_shape)
        self.activation = keras.activations.get(activation)
        self._summed, self._kept = axes

    def build(self, input_shape: Any = None) -> None:
        if self._grid is None:
            self._add_matrix(_size(self.kernel_shape, self._summed),
                             _size(self.kernel_shape, self._kept), table=False)
            self._add_bias(self.bias_shape)

    @property
    def kernel(self) -> Any:
        """float32, in the shape that the equation names."""
        order = self._summed + self._kept
        kernel = ops.reshape(self.dequantize(), [self.kernel_shape[axis] for axis in order])
        if order != sorted(order):
            kernel = ops.transpose(kernel, [order.index(axis) for axis in range(len(order))])
        return kernel

    def call(self, inputs: Any) -> Any:
        return self._finish(ops.einsum(self.equation, inputs,
                                       ops.cast(self.kernel, self.compute_dtype)))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(equation=self.equation, kernel_shape=self.kernel_shape,
                      bias_shape=self.bias_shape,
                      activation=keras.activations.serialize(self.activation))
        return config


@_register
class SfqEmbedding(PackedLayer):
    """`keras.layers.Embedding` with a packed table [input_dim, output_dim]; only the rows that are
    looked up are decoded.

    Args:
        input_dim, output_dim, mask_zero: as for Embedding.
        bits, scale_dtype: as for `SfqDense`.
    """

    def __init__(self, input_dim: int, output_dim: int, mask_zero: bool = False, *, bits: int = 8,
                 scale_dtype: str = "float16", **kwargs: Any) -> None:
        super().__init__(bits, scale_dtype, **kwargs)
        self.input_dim, self.output_dim = input_dim, output_dim
        self.mask_zero = mask_zero
        self.supports_masking = mask_zero
        self.autocast = False

    def build(self, input_shape: Any = None) -> None:
        if self._grid is None:
            self._add_matrix(self.input_dim, self.output_dim, table=True)

    @property
    def embeddings(self) -> Any:
        """As `dequantize`, for code that looks at a layer's table."""
        return self.dequantize()

    def call(self, inputs: Any) -> Any:
        how = self._grid
        assert how is not None
        ids = inputs
        if keras.backend.standardize_dtype(ids.dtype) not in ("int32", "int64"):
            ids = ops.cast(ids, "int32")
        rows = self._signed([ops.take(c, ids, axis=0) for c in self._codes])
        at = ids if how.row_block == 1 else ops.floor_divide(ids, how.row_block)
        scales = ops.cast(ops.take(self.scales, at, axis=0), "float32")
        if how.scales[1] > 1:
            scales = ops.repeat(scales, how.column_block, axis=-1)[..., :how.columns]
        return ops.cast(rows * scales, self.compute_dtype)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape, self.output_dim)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(input_dim=self.input_dim, output_dim=self.output_dim,
                      mask_zero=self.mask_zero)
        return config


@_register
class SfqReversibleEmbedding(SfqEmbedding):
    """`keras.layers.ReversibleEmbedding` with tied weights: the table that is looked up is what
    `reverse=True` multiplies with, too.

    Args:
        reverse_dtype, logit_soft_cap: as for ReversibleEmbedding; the rest as for `SfqEmbedding`.
    """

    def __init__(self, input_dim: int, output_dim: int, mask_zero: bool = False,
                 reverse_dtype: Any = None, logit_soft_cap: Optional[float] = None,
                 **kwargs: Any) -> None:
        super().__init__(input_dim, output_dim, mask_zero, **kwargs)
        self.reverse_dtype, self.logit_soft_cap = reverse_dtype, logit_soft_cap

    def call(self, inputs: Any, reverse: bool = False) -> Any:
        if not reverse:
            return super().call(inputs)
        dtype = self.reverse_dtype or self.compute_dtype
        logits = ops.matmul(ops.cast(inputs, dtype),
                            ops.transpose(ops.cast(self.dequantize(), dtype)))
        cap = self.logit_soft_cap
        return logits if cap is None else ops.tanh(logits / cap) * cap

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        ids = "int" in keras.backend.standardize_dtype(inputs.dtype)
        return super().compute_mask(inputs, mask) if ids else None

    def compute_output_spec(self, inputs: Any, reverse: bool = False) -> Any:
        shape = (*inputs.shape[:-1], self.input_dim) if reverse else (*inputs.shape,
                                                                      self.output_dim)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(reverse_dtype=self.reverse_dtype, logit_soft_cap=self.logit_soft_cap)
        return config


@_register
class SfqMultiHeadAttention(keras.layers.MultiHeadAttention):
    """`keras.layers.MultiHeadAttention` whose projections are packed.

    Args:
        packed: for each projection ("query", "key", "value", "gate", "output") that is packed,
            its bits and scale_dtype.

    The rest as for MultiHeadAttention; `num_heads` are those that stayed.
    """

    def __init__(self, *args: Any, packed: dict[str, tuple[int, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._packed = {name: (int(bits), str(kind)) for name, (bits, kind) in packed.items()}

    def build(self, query_shape: Any, value_shape: Any, key_shape: Any = None) -> None:
        super().build(query_shape, value_shape, key_shape)
        for name, (bits, scale_dtype) in self._packed.items():
            attribute = f"_{name}_dense"
            old = getattr(self, attribute)
            new = SfqEinsumDense(old.equation, old.kernel.shape,
                                 None if old.bias is None else old.bias.shape,
                                 keras.activations.serialize(old.activation), bits=bits,
                                 scale_dtype=scale_dtype, name=old.name, dtype=self.dtype_policy)
            new.build()
            swap(self, attribute, new)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        config.update(packed={name: list(how) for name, how in self._packed.items()})
        return config


def swap(parent: Any, attribute: str, new: Any) -> None:
    """Sets an attribute of a layer that may be built to another layer. The old one is forgotten:
    Keras keeps sub-layers in a list of its own, too, and counts and saves what is there."""
    tracker = parent._tracker
    locked = tracker.locked
    tracker.unlock()
    try:
        old = getattr(parent, attribute)
        some = old.values() if isinstance(old, Mapping) else old
        for layer in list(some) if isinstance(old, (Mapping, list, tuple)) else [old]:
            tracker.untrack(layer)
        setattr(parent, attribute, new)
    finally:
        if locked:
            tracker.lock()
