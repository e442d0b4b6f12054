"""SfqConfig: what to do with a checkpoint that is loaded, or what an artifact's config.json says."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from typing import Any, Optional, Union, cast

from transformers.utils.quantization_config import QuantizationConfigMixin

from .. import errors
from .._calls import Texts
from .._native import PathLike, ProgressOption, wrong

VERSION = 1
"""Of the artifacts that this package reads (docs/FORMAT.md)."""

LIMIT = 1 << 31
"""What a row, column or head count is below."""


def _plain(value: Any) -> Any:
    """As JSON has it: AutoModel copies a config deeply and writes it out."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return value
    return [_plain(item) for item in value]


class SfqConfig(QuantizationConfigMixin):
    """How a checkpoint is compressed while it loads.

    By default it is fused and quantized to 8 bits, which needs no data and takes seconds. With
    `prune`, `task` or `text` the whole recipe runs first, as `sfq.compress` does; the arguments
    have its names, meanings and defaults, but for `prune` (0 here) and `steps` (0 where nothing is
    pruned and no data is given).

    Args:
        recipe, prune, bits, embedding_bits, activation_bits, task, data, text, calib_fraction,
            calib_tokens, calib_length, pick, saliency, rounds, uniform, steps, minutes, keep,
            bits_for, max_drop, seed, threads: as for `sfq.compress`.
        output: a directory to keep the artifact in, which must not exist. None: a temporary one,
            gone when the model is there. It needs free space either way.
        progress: as for `sfq.compress`.
        exact: multiply with decoded weights in floating point instead of integers: slow, for
            checks. Also for artifacts: `from_pretrained(path, quantization_config=SfqConfig(
            exact=True))`; everything else is taken from their config.json.

    Example:
        >>> config = SfqConfig(prune=0.3, embedding_bits=4, text="book.txt")
        >>> AutoModelForCausalLM.from_pretrained("models/novels-5m", quantization_config=config)
    """

    def __init__(self, *, recipe: Optional[str] = None, prune: float = 0.0,
                 bits: Optional[int] = None, embedding_bits: Optional[int] = None,
                 activation_bits: Optional[int] = None,
                 task: Optional[str] = None, data: Optional[PathLike] = None, text: Texts = None,
                 calib_fraction: Optional[float] = None, calib_tokens: Optional[int] = None,
                 calib_length: Optional[int] = None, pick: Optional[str] = None,
                 saliency: Optional[str] = None, rounds: Optional[int] = None,
                 uniform: bool = False, steps: Optional[int] = None,
                 minutes: Optional[float] = None, keep: Union[str, Iterable[str]] = (),
                 bits_for: Union[Mapping[str, int], Iterable[tuple[str, int]]] = (),
                 max_drop: Optional[float] = None, seed: int = 0, threads: int = 0,
                 output: Optional[PathLike] = None, progress: ProgressOption = None,
                 exact: bool = False) -> None:
        given = {k: v for k, v in locals().items()
                 if k not in ("self", "output", "progress", "exact") and k[0] != "_"}
        self.quant_method = cast(Any, "sfq")  # an Enum in Transformers, of its own methods
        self.options: dict[str, Any] = {k: _plain(v) for k, v in given.items()}
        if steps is None and not prune and task is None and text is None:
            self.options["steps"] = 0
        if output is not None and not isinstance(output, (str, os.PathLike)):
            raise wrong("output", output, "a path")
        self.output = None if output is None else os.fspath(output)
        self.progress = progress
        self.exact = exact
        self.file: dict[str, Any] = {}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False,
                  **kwargs: Any) -> Any:
        """Of `SfqConfig`'s arguments, or of an artifact's quantization_config.

        Raises:
            UnsupportedError: the artifact is of a newer version.
            FormatError: a key is missing.
            ArgumentError: there is no such argument.
        """
        if isinstance(config_dict, Mapping) and "tensors" in config_dict:
            config = cls()
            config.take(config_dict)
        else:
            config = cls.of(config_dict)
        if "exact" in kwargs:
            config.exact = bool(kwargs.pop("exact"))
        return (config, kwargs) if return_unused_kwargs else config

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> SfqConfig:
        """SfqConfig(**arguments), with an ArgumentError for names that it does not know."""
        if not isinstance(arguments, Mapping):
            raise wrong("quantization_config", arguments, "a dict of SfqConfig's arguments")
        values = {k: v for k, v in arguments.items() if k != "quant_method"}
        known = set(cls.__init__.__kwdefaults__ or ())
        for name in values:
            if name not in known:
                raise errors.ArgumentError(f"SfqConfig has no argument {name!r}; there are "
                                           f"{', '.join(sorted(known))}", "E_ARGUMENT")
        return cls(**values)

    def take(self, file: Mapping[str, Any], path: str = "config.json") -> None:
        """Becomes what an artifact's quantization_config says."""
        version = file.get("version")
        if not isinstance(version, int) or version < 1:
            raise errors.FormatError(f"{path}: quantization_config has no version", "E_FORMAT",
                                     path)
        if version > VERSION:
            raise errors.UnsupportedError(
                f"{path}: quantization_config: version {version} was written by a newer sfq, this "
                f"one reads version {VERSION}", "E_UNSUPPORTED", path)
        for key, kind in (("layers", list), ("tensors", dict), ("shapes", dict)):
            if not isinstance(file.get(key, {} if key == "shapes" else None), kind):
                raise errors.FormatError(f"{path}: quantization_config.{key} is missing or no "
                                         f"{kind.__name__}", "E_FORMAT", path)
        for i, layer in enumerate(file["layers"]):
            counts = [layer.get(key) for key in ("heads", "kv_heads", "ffn")] \
                if isinstance(layer, dict) else [None]
            if not all(isinstance(n, int) and 0 <= n < LIMIT for n in counts):
                raise errors.FormatError(f"{path}: quantization_config.layers: number {i} has no "
                                         "heads, kv_heads and ffn", "E_FORMAT", path)
        self.file = copy.deepcopy(dict(file))

    @property
    def tensors(self) -> dict[str, dict[str, Any]]:
        """Of an artifact: by module name, the shape and bits of each packed matrix."""
        tensors: dict[str, dict[str, Any]] = self.file.get("tensors", {})
        return tensors

    @property
    def layers(self) -> list[dict[str, int]]:
        """Of an artifact: heads, kv_heads and ffn that each layer keeps."""
        layers: list[dict[str, int]] = self.file.get("layers", [])
        return layers

    def rename(self, names: Mapping[str, str]) -> None:
        """Packed matrices under new names; those that are not named are no longer there."""
        for key in ("tensors", "shapes"):
            old = self.file.get(key, {})
            self.file[key] = {names[k]: v for k, v in old.items() if k in names}

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds under "quantization_config"."""
        if self.file:
            return copy.deepcopy(self.file)
        out = {k: copy.deepcopy(v) for k, v in self.options.items() if v is not None}
        out["quant_method"] = "sfq"
        return out

    def get_loading_attributes(self) -> dict[str, Any]:
        """What an argument of `from_pretrained` may say about an artifact."""
        return {"exact": self.exact}
