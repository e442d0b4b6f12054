"""A whole program with Keras: trains a small sentiment classifier on SST-2, compresses it, and
compares sizes and answers; the result is saved, opened again, and exported.

    KERAS_BACKEND=tensorflow python examples/keras_text.py ../shared/data/glue/SST-2 out
"""

import os
import re
import sys

import keras
import numpy as np
from keras import layers, ops

import sfq.keras

WORDS, LENGTH, WIDTH = 8000, 32, 64


@keras.saving.register_keras_serializable("example")
class TransformerBlock(layers.Layer):
    """As in Keras' own guide."""

    def __init__(self, width, heads, inner, **kwargs):
        super().__init__(**kwargs)
        self.sizes = {"width": width, "heads": heads, "inner": inner}
        self.supports_masking = True
        self.attention = layers.MultiHeadAttention(heads, width // heads, dropout=0.1)
        self.inner = keras.Sequential([layers.Dense(inner, activation="gelu"),
                                       layers.Dense(width), layers.Dropout(0.1)])
        self.first, self.second = layers.LayerNormalization(), layers.LayerNormalization()

    def call(self, x):
        x = self.first(x + self.attention(x, x))
        return self.second(x + self.inner(x))

    def get_config(self):
        return {**super().get_config(), **self.sizes}


@keras.saving.register_keras_serializable("example")
class Tokens(layers.Layer):
    """Words and positions."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words = layers.Embedding(WORDS, WIDTH, mask_zero=True)
        self.positions = layers.Embedding(LENGTH, WIDTH)

    def call(self, ids):
        return self.words(ids) + self.positions(ops.arange(ids.shape[-1]))

    def compute_mask(self, ids, mask=None):
        return self.words.compute_mask(ids)


def classifier():
    ids = keras.Input((LENGTH,), dtype="int32")
    x = layers.Dropout(0.3)(Tokens()(ids))
    for _ in range(2):
        x = TransformerBlock(WIDTH, 4, 4 * WIDTH)(x)
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling1D()(x))
    return keras.Model(ids, layers.Dense(2)(x))


def read(path, vocabulary=None):
    """Ids [n, LENGTH] (0: padding, 1: unknown) and labels of a table of SST-2."""
    with open(path, encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    texts = [re.findall(r"[\w']+|[^\w\s]", text) for text, _ in rows]
    if vocabulary is None:
        words, counts = np.unique([word for text in texts for word in text], return_counts=True)
        order = np.lexsort((words, -counts))[:WORDS - 2]
        vocabulary = {word: i + 2 for i, word in enumerate(words[order])}
    ids = np.zeros((len(rows), LENGTH), np.int32)
    for row, text in zip(ids, texts):
        some = [vocabulary.get(word, 1) for word in text[:LENGTH]]
        row[:len(some)] = some
    return ids, np.array([int(label) for _, label in rows]), vocabulary


def main(folder, out):
    keras.utils.set_random_seed(0)
    x, y, vocabulary = read(os.path.join(folder, "train.tsv"))
    dev, labels, _ = read(os.path.join(folder, "dev.tsv"), vocabulary)
    model = classifier()
    model.compile(keras.optimizers.Adam(5e-4),
                  keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=128, epochs=2, verbose=0)

    some = np.random.default_rng(0).permutation(len(x))[:512]
    done = sfq.keras.compress(model, x[some], prune=0.4, bits=8, embedding_bits=4,
                              progress=False)
    for block in done.pruned:
        print(f"{block.name}: {block.before} {block.kind} -> {block.after}")
    print("held-out KL:", ", ".join(f"{k} {v:.4f}" for k, v in done.losses.items()))
    print(f"{done.original_bytes / 1e6:.2f} MB in 16 bits -> {done.bytes / 1e6:.2f} MB, "
          f"{done.reduction:.1%} smaller")

    os.makedirs(out, exist_ok=True)
    done.model.save(os.path.join(out, "small.keras"))
    again = keras.saving.load_model(os.path.join(out, "small.keras"))
    before, small, loaded = (m.predict(dev, verbose=0) for m in (model, done.model, again))
    for name, m, answers in (("before", model, before), ("compressed", done.model, small)):
        held = sum(ops.convert_to_numpy(v).nbytes for v in m.weights)
        print(f"{name}: accuracy {(answers.argmax(-1) == labels).mean():.4f}, "
              f"{held / 1e6:.2f} MB of weights in memory")
    print(f"same answer: {(before.argmax(-1) == small.argmax(-1)).mean():.1%}; "
          f"saved and loaded: largest difference {np.abs(loaded - small).max()}")
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        done.model.export(os.path.join(out, "saved_model"), verbose=False)
        graph = tensorflow.saved_model.load(os.path.join(out, "saved_model"))
        print("SavedModel: largest difference "
              f"{np.abs(graph.serve(dev).numpy() - small).max():.1e}")


if __name__ == "__main__":
    main(*sys.argv[1:])
