"""Keras 3: models made smaller, and layers whose weights are packed.

    import keras
    import sfq.keras

    done = sfq.keras.compress(model, x[:512], prune=0.4, embedding_bits=4)
    print(f"{done.reduction:.1%} smaller than in 16 bits")
    done.model.save("small.keras")                # opens with keras.saving.load_model again
    done.model.export("saved_model")              # runs without this package (TensorFlow)

Pruning, fusing and recalibration work as in `sfq.compress`: what units go, what the weights behind
them become and every code is decided by libsfq. The result is a Keras model of `SfqDense`,
`SfqEinsumDense`, `SfqEmbedding` and `SfqMultiHeadAttention` layers; it computes with Keras' own
operations on decoded weights. It is smaller on disk and in memory; it is not faster.

A file with such layers opens where `sfq.keras` has been imported.
"""

from __future__ import annotations


def _check() -> None:
    """ImportError that says what to install. The backend is imported by Keras itself."""
    install = ("sfq.keras needs Keras 3.8 or newer and its backend: pip install 'sfq[keras]' and "
               "tensorflow-cpu (or tensorflow), or torch with KERAS_BACKEND=torch")
    try:
        import keras
    except ImportError as error:  # Keras, or the backend that it is set to
        raise ImportError(f"{install} ({error})", name=error.name) from error
    version = tuple(int(part) for part in keras.__version__.split(".")[:2])
    if version < (3, 8):
        raise ImportError(f"{install} (this is Keras {keras.__version__})", name="keras")


_check()

from ._compress import Compressed, LayerReport, PrunedUnits, compress  # noqa: E402
from ._layers import (SfqDense, SfqEinsumDense, SfqEmbedding,  # noqa: E402
                      SfqMultiHeadAttention, SfqReversibleEmbedding)
from ._tree import SfqBlock  # noqa: E402

__all__ = ["Compressed", "LayerReport", "PrunedUnits", "SfqBlock", "SfqDense", "SfqEinsumDense",
           "SfqEmbedding", "SfqMultiHeadAttention", "SfqReversibleEmbedding", "compress"]
