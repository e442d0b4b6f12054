#!/usr/bin/env python3
"""What sfq.torch.Linear adds to the C kernel that it calls: processor time of one thread, the best
of several rounds, taken in turns. Prints a row for each shape; figures are in docs/PYTHON.md.

usage: torch_linear.py [SECONDS-PER-SHAPE]
"""

import sys
import time

import torch

import sfq.torch
from sfq._linear import Weight, workers

SHAPES = ((1, 1024, 1024), (1, 4096, 4096), (1, 4096, 11008), (32, 1024, 1024), (512, 1024, 1024),
          (256, 4096, 4096))


def clock(call, count):
    begin = time.thread_time_ns()
    for _ in range(count):
        call()
    return (time.thread_time_ns() - begin) / count


def measure(rows, k, n, bits, seconds):
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(n, k, generator=generator)
    layer = sfq.torch.Linear.from_weight(w, torch.zeros(n), bits=bits)
    x, y = torch.randn(rows, k, generator=generator), torch.empty(rows, n)
    scales = layer.scales.float()
    weight = Weight(n, k, bits, layer.activation_bits, layer.codes.data_ptr(), scales.data_ptr(),
                    layer.bias.data_ptr())

    def kernel():
        workers.apply(weight, x.data_ptr(), rows, y.data_ptr())

    def module():
        layer(x)

    with torch.inference_mode():
        clock(module, 3)  # the first call of an operator sets up what later ones find
        once = max(1, clock(kernel, 3))
        count = max(1, int(2e7 / once))
        best = [float("inf"), float("inf")]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for i, call in enumerate((kernel, module)):
                best[i] = min(best[i], clock(call, count))
    print(f"{rows:5d} x {k:5d} -> {n:5d}  {bits} bits  kernel {best[0] / 1e3:9.1f} us  "
          f"module {best[1] / 1e3:9.1f} us  {best[1] / best[0]:.3f}")


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    torch.set_num_threads(1)
    sfq.torch.set_num_threads(1)
    for rows, k, n in SHAPES:
        for bits in (8, 4):
            measure(rows, k, n, bits, seconds)


if __name__ == "__main__":
    main()
