"""Sparse Fusion Quantization: transformers made smaller and faster, with the cost measured.

    import sfq

    done = sfq.compress("models/novels-5m", "small", prune=0.2, embedding_bits=4, text="book.txt")
    print(f"{done.reduction:.1%} smaller, {done.drop:+.2f} % perplexity")

    with sfq.Model("small") as model:
        for piece in model.stream("It was a dark and", max_tokens=70):
            print(piece, end="", flush=True)

This package is a layer over libsfq, which it brings along, and has no logic of its own: what it
computes is what the `sfq` command computes, bit by bit. Arrays are NumPy's. Long calls release the
GIL, show a tqdm bar where stderr is a terminal, and stop on Ctrl-C with nothing half written.
Failures are exceptions of `sfq.errors`, which carry the status, the file and the tensor. The
library's notes and warnings go to the logger "sfq".
"""

from ._calls import compress, environment, evaluate, export, inspect, plan
from ._model import Model, Stream
from ._native import lib as _lib, text as _text
from .errors import (ArgumentError, ChecksumError, DataError, Error, ExistsError, FileError,
                     FormatError, GuardError, InfeasibleError, InterruptedError, LimitError,
                     NoSpaceError, NotFoundError, NumericError, OutOfMemoryError, UnsupportedError)
from .progress import Progress
from .results import (Calibration, Compression, Environment, Evaluation, Export, Generation, Layer,
                      Measure, ModelInfo, Plan, PlanCost, Pruned, Stage)

__version__: str = _text(_lib.sfq_version())
"""The version of libsfq and of this package."""

__all__ = [
    "ArgumentError", "Calibration", "ChecksumError", "Compression", "DataError", "Environment",
    "Error", "Evaluation", "ExistsError", "Export", "FileError", "FormatError", "Generation",
    "GuardError", "InfeasibleError", "InterruptedError", "Layer", "LimitError", "Measure", "Model",
    "ModelInfo", "NoSpaceError", "NotFoundError", "NumericError", "OutOfMemoryError", "Plan",
    "PlanCost", "Progress", "Pruned", "Stage", "Stream", "UnsupportedError", "compress",
    "environment", "evaluate", "export", "inspect", "plan",
]
