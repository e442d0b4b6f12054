"""PyTorch: layers whose weights are packed codes, computed by the C kernels on the CPU, and modules
with fewer heads and neurons.

    import torch
    import sfq.torch

    layer = sfq.torch.Linear.from_float(torch.nn.Linear(1024, 4096), bits=4)
    y = layer(torch.randn(8, 1024))
    model = sfq.torch.compress(model, [batch], bits=4).module      # all linear layers of a module
    model = sfq.torch.compress(model, batches, prune=0.3).module   # and its blocks pruned

The kernel is the operator `sfq::linear`, in C from PyTorch's dispatcher on: it works under
`torch.compile(fullgraph=True)` and `torch.export`, and gives gradients of its input (and of a
bias), not of the codes. Codes and scales are buffers with the names and layouts of an artifact:
NAME.codes, NAME.scales, NAME.bias.
"""

from ._attention import MultiheadAttention
from ._layers import Embedding, Linear
from ._modules import Compressed, LayerReport, compress
from ._ops import set_num_threads
from ._prune import BlockReport

__all__ = ["BlockReport", "Compressed", "Embedding", "LayerReport", "Linear", "MultiheadAttention",
           "compress", "set_num_threads"]
