#!/usr/bin/env python3
"""What a packed Keras layer costs in time: a Dense layer and the same one packed, in a graph of the
backend, interleaved, best of the rounds, wall clock. docs/KERAS.md has the table.

    KERAS_BACKEND=tensorflow OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 python bench/keras_layer.py
"""

import sys
import time

import keras
import numpy as np
from keras import layers

import sfq.keras

SHAPES = ((1, 256, 1024), (1, 1024, 4096), (64, 256, 1024), (512, 256, 1024), (512, 1024, 1024))


def calls(model, x):
    """A function that runs the model once."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        graph = tensorflow.function(lambda x: model(x, training=False), autograph=False)
        x = tensorflow.constant(x)
        return lambda: graph(x).numpy()
    import torch

    x = torch.from_numpy(x)

    def call():
        with torch.no_grad():
            return model(x, training=False)
    return call


def main(rounds=25):
    print("| rows, inputs, outputs | Dense, us | 8 bits | 6 bits | 4 bits |")
    print("|---|---|---|---|---|")
    for rows, inputs, outputs in SHAPES:
        keras.utils.set_random_seed(0)
        dense = keras.Sequential([keras.Input((inputs,)), layers.Dense(outputs)])
        models = [dense, *(sfq.keras.compress(dense, bits=bits, progress=False).model
                           for bits in (8, 6, 4))]
        x = np.random.default_rng(0).standard_normal((rows, inputs)).astype("float32")
        run = [calls(model, x) for model in models]
        best = [float("inf")] * len(run)
        for _ in range(rounds):
            for i, call in enumerate(run):
                start = time.perf_counter()
                call()
                best[i] = min(best[i], time.perf_counter() - start)
        print(f"| {rows}, {inputs}, {outputs} | {best[0] * 1e6:.0f} | " + " | ".join(
            f"{other / best[0]:.1f}x" for other in best[1:]) + " |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
