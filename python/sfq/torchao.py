"""torchao: packed layers through `quantize_`.

    from torchao.quantization import quantize_
    from sfq.torchao import SfqWeightConfig

    quantize_(model, SfqWeightConfig(bits=4))     # every nn.Linear becomes a sfq.torch.Linear
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from torchao.core.config import AOBaseConfig
from torchao.quantization.transform_module import register_quantize_module_handler

from .torch import Linear

__all__ = ["SfqWeightConfig"]


@dataclass
class SfqWeightConfig(AOBaseConfig):
    """What `quantize_` turns linear layers into; the arguments of `sfq.torch.Linear`."""

    bits: int = 8
    activation_bits: int = 12


def _transform(module: nn.Module, config: SfqWeightConfig) -> nn.Module:
    if not isinstance(module, nn.Linear):
        return module
    return Linear.from_float(module, bits=config.bits, activation_bits=config.activation_bits)


_register: Any = register_quantize_module_handler(SfqWeightConfig)
_register(_transform)
