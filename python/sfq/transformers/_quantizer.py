"""The quantizer that Transformers calls while it loads a model: `_process_model_before_...` gets
the model without weights and the names of its files, `..._after_...` the model with them."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from typing import Any, Optional, Union

import torch
from torch import nn
from transformers.quantizers.base import HfQuantizer

from .. import errors
from .._calls import compress
from .._native import lib, text
from ..results import Compression
from ._config import SfqConfig
from ._layers import Embedding, Linear, TiedLinear
from ._skeleton import build

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def _on_cpu(device_map: Any) -> bool:
    places = device_map.values() if isinstance(device_map, dict) else [device_map]
    return all(str(place).partition(":")[0] in ("cpu", "auto", "None") for place in places)


class SfqQuantizer(HfQuantizer):
    """Loads artifacts, and compresses what is none: libsfq writes the artifact of the checkpoint,
    and that is loaded in its place.

    Attributes:
        compression: what `sfq.compress` measured; None for a model that was an artifact already.
    """

    requires_calibration = False
    quantization_config: SfqConfig

    def __init__(self, quantization_config: SfqConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self.compression: Optional[Compression] = None
        self._work: Optional[tempfile.TemporaryDirectory[str]] = None

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        device_map = kwargs.get("device_map")
        if not _on_cpu(device_map):
            raise errors.UnsupportedError(f"device_map is {device_map!r}: packed matrices multiply "
                                          "on the CPU only", "E_UNSUPPORTED")

    def update_device_map(self, device_map: Any) -> Any:
        return None if device_map is None else {"": "cpu"}

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False

    @property
    def is_compileable(self) -> bool:
        return True

    def get_state_dict_and_metadata(self, model: Any) -> tuple[None, dict[str, str]]:
        return None, {"sfq_version": text(lib.sfq_version())}

    # ---- loading ----

    def _compress(self, model: Any, files: list[str]) -> None:
        """Turns the checkpoint into an artifact; from here on all is as if that had been given."""
        config = self.quantization_config
        if config.output is None:
            self._work = tempfile.TemporaryDirectory(prefix="sfq-")
            output = os.path.join(self._work.name, "artifact")
        else:
            output = config.output
        self.compression = compress(os.path.dirname(files[0]), output, progress=config.progress,
                                    **config.options)
        with open(os.path.join(output, CONFIG), encoding="utf-8") as file:
            written = json.load(file)
        config.take(written["quantization_config"], os.path.join(output, CONFIG))
        if "per_layer_config" in written:
            model.config.allow_global_per_layer_attribute_access = True
            model.config.per_layer_config = written["per_layer_config"]
        files[:] = [os.path.join(output, WEIGHTS)]
        self.pre_quantized = True

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        files = kwargs.get("checkpoint_files")
        if not isinstance(files, list) or not files or not files[0].endswith(".safetensors"):
            raise errors.UnsupportedError(
                f"{model.config.name_or_path}: sfq loads checkpoints of safetensors files, this is "
                f"{files[0] if files else 'none'}", "E_UNSUPPORTED")
        try:
            if not self.pre_quantized:
                self._compress(model, files)
            build(model, self.quantization_config, files)
        except BaseException:
            self._clean()
            raise
        return model

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        for name, module in model.named_modules():
            if not isinstance(module, (Linear, Embedding)):
                continue
            for part in (module.codes, module.scales):
                if part.device.type == "meta" or not getattr(part, "_is_hf_initialized", False):
                    raise errors.FormatError(f"{name}: its codes or scales were not loaded",
                                             "E_FORMAT", "", name)
            module.exact = self.quantization_config.exact
        _align(model)
        self._clean()
        return model

    def _clean(self) -> None:
        """Removes the temporary artifact; what is mapped of it stays until it is let go."""
        if self._work is not None:
            self._work.cleanup()
            self._work = None

    # ---- back to floats ----

    def _dequantize(self, model: Any, dtype: Optional[torch.dtype] = None) -> Any:
        """Stock modules with the decoded weights; widths per layer stay."""
        dtype = dtype or torch.float32
        for name, module in list(model.named_modules()):
            if isinstance(module, (Linear, Embedding)):
                _put(model, name, _dense(module, dtype))
        for name, module in list(model.named_modules()):
            if isinstance(module, TiedLinear):
                table = model.get_input_embeddings().weight
                linear = nn.Linear(table.shape[1], table.shape[0], module.bias is not None,
                                   device="meta")
                linear.weight, linear.bias = table, module.bias  # type: ignore[assignment]
                _put(model, name, linear)
        return model.to(dtype)


def _align(model: nn.Module) -> None:
    """Where a tensor lies in its file must not show in the results: torch's own products may round
    by the address of what they read, and a file that Transformers wrote aligns nothing."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % 64 != 0:
            tensor.data = tensor.data.clone()


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module.train(model.training))


def _dense(module: Union[Linear, Embedding], dtype: torch.dtype) -> nn.Module:
    weight = nn.Parameter(module.dequantize().to(dtype))
    if isinstance(module, Embedding):
        table = nn.Embedding(module.num_embeddings, module.embedding_dim, device="meta")
        table.weight = weight
        return table
    linear = nn.Linear(module.in_features, module.out_features, module.bias is not None,
                       device="meta")
    linear.weight = weight
    if module.bias is not None:
        linear.bias = nn.Parameter(module.bias.to(dtype))
    return linear
