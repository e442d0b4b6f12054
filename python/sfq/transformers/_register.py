"""What importing `sfq.transformers` changes in Transformers: entries in its tables of quantizers,
and `sfq_compress` among the arguments of `from_pretrained`."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import Any

import transformers
from transformers.quantizers import auto

from .. import errors
from ._config import SfqConfig
from ._quantizer import SfqQuantizer

METHOD = "sfq"


def _config_of(flag: Any) -> SfqConfig:
    """Of what `sfq_compress` was given."""
    if flag is True:
        return SfqConfig()
    if isinstance(flag, SfqConfig):
        return flag
    if isinstance(flag, Mapping):
        return SfqConfig.of(flag)
    raise errors.ArgumentError(f"sfq_compress is {flag!r}; expected True, False or a dict of "
                               "SfqConfig's arguments", "E_ARGUMENT")


def _take_flag() -> None:
    model: Any = transformers.PreTrainedModel
    plain = model.from_pretrained.__func__
    if getattr(plain, "_sfq", False):
        return

    @functools.wraps(plain)
    def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
        flag = kwargs.pop("sfq_compress", None)
        if flag is not None and flag is not False:
            if kwargs.get("quantization_config") is not None:
                raise errors.ArgumentError("give sfq_compress or quantization_config, not both",
                                           "E_ARGUMENT")
            kwargs["quantization_config"] = _config_of(flag)
        return plain(cls, *args, **kwargs)

    from_pretrained._sfq = True  # type: ignore[attr-defined]
    model.from_pretrained = classmethod(from_pretrained)


def register() -> None:
    """Makes Transformers know "sfq"; a second call changes nothing."""
    if transformers.__version__.partition(".")[0] != "5":
        warnings.warn(f"sfq.transformers is made for transformers 5, this is "
                      f"{transformers.__version__}", stacklevel=2)
    tables: Any = auto
    tables.AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = SfqConfig
    tables.AUTO_QUANTIZER_MAPPING[METHOD] = SfqQuantizer
    known = tables.LOADING_ATTRIBUTES_CONFIG_TYPES  # whose arguments join what a file says: `exact`
    tables.LOADING_ATTRIBUTES_CONFIG_TYPES = (
        *(kind for kind in known if kind.__name__ != SfqConfig.__name__), SfqConfig)
    _take_flag()
