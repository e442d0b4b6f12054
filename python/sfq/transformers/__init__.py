"""Hugging Face Transformers with packed weights: artifacts load, checkpoints compress on load.

    import transformers
    import sfq.transformers        # registers what follows; importing it is all there is to do

    # an artifact of `sfq compress`, as any other model
    model = transformers.AutoModelForCausalLM.from_pretrained("small", dtype="float32")

    # any checkpoint of a family that sfq knows, compressed while it loads
    model = transformers.AutoModelForCausalLM.from_pretrained(
        "models/novels-5m", quantization_config=sfq.transformers.SfqConfig(bits=6))
    chat = transformers.pipeline("text-generation", "models/novels-5m",
                                 model_kwargs={"sfq_compress": {"bits": 6}})

Compression is libsfq's (`sfq.compress`), matrices multiply in its kernels on the CPU
(`sfq.torch.Linear`); attention, norms and generation are Transformers' own. `save_pretrained`
writes an artifact again, bit by bit.

The import registers `SfqConfig` and its quantizer under "sfq", and lets `from_pretrained` take
`sfq_compress=True` (or a dict of `SfqConfig`'s arguments). Without the import Transformers does not
know the method: it warns and leaves the packed weights out.
"""

from __future__ import annotations

from ._config import SfqConfig
from ._layers import Embedding, Linear, TiedLinear
from ._quantizer import SfqQuantizer
from ._register import register

__all__ = ["Embedding", "Linear", "SfqConfig", "SfqQuantizer", "TiedLinear", "register"]

register()
