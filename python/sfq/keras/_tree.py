"""A model as a tree of layers: which layers there are, under which names, and copies of a model in
which some are others.

Functional and Sequential models are copied by Keras itself. A layer that the user wrote holds its
sub-layers in attributes: `SfqBlock` keeps it as it is, and swaps those attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Optional, Union

import keras
from keras import ops

from .. import errors
from ._layers import (REVERSIBLE, PackedLayer, SfqDense, SfqEinsumDense, SfqEmbedding,
                      SfqMultiHeadAttention, SfqReversibleEmbedding, is_plain, swap)
from ._pack import Array, Packed

Key = tuple[str, Union[int, str, None]]
PROJECTIONS = ("query", "key", "value", "gate", "output")


_OTHERS = ("_layers", "_modules", "_metrics", "_functional")


def is_graph(layer: Any) -> bool:
    """A Functional or Sequential model: Keras knows how its layers are connected."""
    return isinstance(layer, keras.Model) and any(
        base.__name__ in ("Functional", "Sequential") and base.__module__.startswith("keras.")
        for base in type(layer).__mro__)


def _attributes(layer: Any) -> Iterator[tuple[str, Any]]:
    found = {**vars(layer), **vars(layer).get("_modules", {})}  # torch keeps layers in _modules
    for name in sorted(found):
        if name not in _OTHERS and not name.startswith("_self_unconditional_"):  # TensorFlow's
            yield name, found[name]


def children(layer: Any) -> Iterator[tuple[Key, Any]]:
    """The layers right below a layer, each once for every place that it stands in."""
    if is_graph(layer):
        for i, child in enumerate(layer.layers):
            yield ("layers", i), child
        return
    for name, value in _attributes(layer):
        if isinstance(value, keras.layers.Layer):
            yield (name, None), value
        elif isinstance(value, Mapping):
            for key, child in value.items():
                if isinstance(child, keras.layers.Layer):
                    yield (name, key), child
        elif isinstance(value, (list, tuple)):
            for i, child in enumerate(value):
                if isinstance(child, keras.layers.Layer):
                    yield (name, i), child


def walk(model: Any) -> list[tuple[str, Any]]:
    """All layers below a model, each once, with a name like "encoder/attention/query"."""
    found: list[tuple[str, Any]] = []
    seen: set[int] = {id(model)}

    def below(parent: Any, prefix: str) -> None:
        for _, child in children(parent):
            if id(child) not in seen:
                seen.add(id(child))
                found.append((prefix + child.name, child))
                below(child, prefix + child.name + "/")

    below(model, "")
    return found


def _put(parent: Any, key: Key, new: Any) -> None:
    name, index = key
    if index is None:
        swap(parent, name, new)
        return
    old = getattr(parent, name)
    if isinstance(old, Mapping):
        swap(parent, name, {k: new if k == index else v for k, v in old.items()})
    else:
        kind = tuple if isinstance(old, tuple) else list
        swap(parent, name, kind(new if i == index else v for i, v in enumerate(old)))


def _follow(layer: Any, path: list[Key]) -> Any:
    for name, index in path:
        layer = getattr(layer, name)
        layer = layer if index is None else layer[index]
    return layer


# ---- a layer of the user's with others inside ----------------------------------------------------


@dataclass
class _Swaps:
    """What a block replaces. No list or dict, so that Keras does not take the layers for the
    block's own and save them twice."""

    config: dict[str, Any]
    layers: list[tuple[list[list[Key]], Any]]
    done: bool = False


_SIGNATURE = ("_call_signature", "call_signature_parameters", "_call_has_training_arg",
              "_call_has_mask_arg", "_call_context_args", "_call_has_context_arg")


@keras.saving.register_keras_serializable(package="sfq")
class SfqBlock(keras.layers.Layer):
    """A layer or model of any class, some of whose sub-layers are packed ones.

    Args:
        layer: the layer with its own sub-layers, not built.
        swaps: pairs of the places of a sub-layer (paths of attributes) and what stands there now.

    `block.layer` is the layer; it is called with what the block is called with. Its sub-layers are
    swapped at the first call, once it has built them.
    """

    def __init__(self, layer: Any, swaps: list[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        revive = keras.saving.deserialize_keras_object
        if isinstance(layer, Mapping):
            layer = revive(layer)
        self._swaps = _Swaps(
            keras.saving.serialize_keras_object(layer),
            [([[(name, index) for name, index in path] for path in paths],
              revive(new) if isinstance(new, Mapping) else new) for paths, new in swaps])
        self.layer = layer
        for name in _SIGNATURE:  # arguments, masks and training mode as the layer wants them
            if hasattr(layer, name):
                setattr(self, name, getattr(layer, name))
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        self.supports_masking = layer.supports_masking

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._swaps.done:
            self.layer(*args, **kwargs)
            self._swap()
        return super().__call__(*args, **kwargs)

    def build_from_config(self, config: Any) -> None:
        """Nothing: the first call builds."""

    def _swap(self) -> None:
        for paths, new in self._swaps.layers:
            old = _follow(self.layer, paths[0])
            if isinstance(new, PackedLayer):
                new.build()
            elif old.built and not new.built:  # a layer may ask its parts for shapes only
                new.build_from_config(old.get_build_config())
            for path in paths:
                _put(_follow(self.layer, path[:-1]), path[-1], new)
        self._swaps.done = True
        retrack(self.layer)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_mask(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_mask(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        config.update(layer=self._swaps.config, swaps=[
            [[[list(key) for key in path] for path in paths],
             keras.saving.serialize_keras_object(new)] for paths, new in self._swaps.layers])
        return config


def retrack(root: Any) -> None:
    """On torch a layer also lists all its variables as parameters of the module: anew, or those of
    layers that are gone stay alive."""
    if keras.backend.backend() == "torch":
        for layer in [root, *(child for _, child in walk(root))]:
            if hasattr(layer, "_torch_params"):
                layer._track_variables()


# ---- a model with other layers -------------------------------------------------------------------


@dataclass
class New:
    """What takes the place of a Dense, EinsumDense or Embedding layer."""

    packed: Packed
    bias: Optional[Array]
    kernel_shape: tuple[int, ...]
    bias_shape: Optional[tuple[int, ...]] = None


def _copy(layer: Any) -> Any:
    try:
        return type(layer).from_config(layer.get_config())
    except Exception as error:
        raise errors.UnsupportedError(
            f"sfq.keras: the layer {layer.name!r} of class {type(layer).__name__} cannot be copied "
            f"by get_config and from_config, as Keras copies and saves layers: {error}",
            "E_UNSUPPORTED") from error


class Builder:
    """Makes a model anew with packed layers.

    Args:
        packed: what takes the place of a layer, by the layer's id.
    """

    def __init__(self, packed: Mapping[int, New]) -> None:
        self._packed = packed
        self._made: dict[int, Any] = {}
        self._given: set[int] = set()

    def build(self, model: Any, inputs: Any) -> Any:
        """inputs: for a model that is no graph, `keras.Input`s of what it is called with."""
        if is_graph(model):
            new = self._layer(model)
        else:
            new = keras.Model(inputs, self._layer(model)(inputs), name=model.name)
        self._transfer(model, self._made[id(model)])
        for v in new.weights:
            if id(v) not in self._given:
                raise errors.UnsupportedError(
                    f"sfq.keras: the weight {v.path!r} is not in an attribute of its layer, nor in "
                    "a list or dict there, and cannot be copied", "E_UNSUPPORTED")
        retrack(new)
        return new

    def _layer(self, layer: Any) -> Any:
        """The function that Keras clones layers with."""
        if id(layer) not in self._made:
            new = self._other(layer)
            new = self._block(layer) if new is None else new
            self._made[id(layer)] = _copy(layer) if new is None else new
        return self._made[id(layer)]

    def _holds(self, layer: Any) -> bool:
        return any(id(below) in self._packed for _, below in walk(layer))

    def _other(self, layer: Any) -> Any:
        """None for a layer that stays, or whose class is the user's."""
        if id(layer) in self._packed:
            return self._leaf(layer, self._packed[id(layer)])
        if is_graph(layer):
            return keras.models.clone_model(layer, clone_function=self._layer)
        if is_plain(layer, keras.layers.MultiHeadAttention) and self._holds(layer):
            return self._attention(layer)
        return None

    def _block(self, layer: Any) -> Any:
        swaps: dict[int, tuple[list[list[Key]], Any]] = {}

        def below(parent: Any, path: list[Key]) -> None:
            for key, child in children(parent):
                if id(child) not in self._packed and not self._holds(child):
                    continue
                here = [*path, key]
                if id(child) in swaps:
                    swaps[id(child)][0].append(here)
                    continue
                if id(child) not in self._made:
                    self._made[id(child)] = self._other(child)
                if self._made[id(child)] is None:
                    del self._made[id(child)]
                    below(child, here)
                else:
                    swaps[id(child)] = ([here], self._made[id(child)])

        below(layer, [])
        if not swaps:
            return None
        return SfqBlock(_copy(layer), list(swaps.values()), name=layer.name,
                        dtype=layer.dtype_policy)

    def _leaf(self, layer: Any, new: New) -> Any:
        how = {"bits": new.packed.bits, "scale_dtype": str(new.packed.scales.dtype),
               "name": layer.name, "dtype": layer.dtype_policy, "trainable": layer.trainable}
        if isinstance(layer, keras.layers.Embedding):
            if is_plain(layer, REVERSIBLE):
                return SfqReversibleEmbedding(
                    layer.input_dim, layer.output_dim, layer.mask_zero, layer.reverse_dtype,
                    layer.logit_soft_cap, **how)
            return SfqEmbedding(layer.input_dim, layer.output_dim, layer.mask_zero, **how)
        activation = keras.activations.serialize(layer.activation)
        if isinstance(layer, keras.layers.Dense):
            return SfqDense(new.kernel_shape[1], new.kernel_shape[0], activation,
                            layer.use_bias, **how)
        return SfqEinsumDense(layer.equation, new.kernel_shape, new.bias_shape, activation, **how)

    def _attention(self, layer: Any) -> Any:
        packed = {}
        config = layer.get_config()
        for name in PROJECTIONS:
            new = self._packed.get(id(getattr(layer, f"_{name}_dense", None)))
            if new is not None:
                packed[name] = (new.packed.bits, str(new.packed.scales.dtype))
                if name == "query":
                    config["num_heads"] = new.kernel_shape[1]
        return SfqMultiHeadAttention.from_config({**config, "packed": packed})

    def _transfer(self, old: Any, new: Any) -> None:
        """The weights of what stays."""
        if isinstance(new, PackedLayer):
            self._given.update(id(v) for v in new.weights)
            value = self._packed[id(old)]
            new.fill(value.packed, value.bias)
            return
        if isinstance(new, SfqBlock):
            new = new.layer
        own = new._trainable_variables + new._non_trainable_variables
        self._given.update(id(v) for v in own)
        store: dict[str, Any] = {}
        if old._trainable_variables or old._non_trainable_variables:
            old.save_own_variables(store)
            new.load_own_variables({k: ops.convert_to_numpy(v) for k, v in store.items()})
        if is_graph(old):
            for child in old.layers:
                if id(child) in self._made:  # Keras makes inputs itself
                    self._transfer(child, self._made[id(child)])
            return
        places = dict(children(new))
        done: set[int] = set()
        for key, child in children(old):
            if id(child) not in done:
                done.add(id(child))
                self._transfer(child, places[key])
