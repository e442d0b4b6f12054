"""What tests/python/test_package_keras.py runs, in one process for each backend, because Keras
takes its backend at import: python keras_checks.py FOLDER [CHECK...] prints a JSON object, check ->
"" or traceback. The folder carries files from the first backend to the second."""

import json
import pathlib
import sys
import time
import traceback

import keras
import numpy as np
from keras import layers, ops

import sfq
import sfq.keras as sk
from sfq.keras import _layers, _pack, _tree, _units

FOLDER = pathlib.Path(sys.argv[1])
TF = keras.backend.backend() == "tensorflow"
CLASSIFIER = FOLDER / "classifier.keras"
FIGURES = FOLDER / "figures.json"
LENGTH, WORDS = 16, 400


def numpy(x):
    return np.asarray(ops.convert_to_numpy(x))


def relative(got, wanted):
    got, wanted = numpy(got).astype(float), numpy(wanted).astype(float)
    return float(np.linalg.norm(got - wanted) / max(np.linalg.norm(wanted), 1e-30))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def raises(kind, words, function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except kind as error:
        assert isinstance(error, sfq.Error) and words in str(error), (words, str(error))
        return error
    raise AssertionError(f"{function.__name__} did not raise {kind.__name__} ({words})")


# ---- models --------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("checks")
class Block(layers.Layer):
    """A transformer block as Keras' guides write it: sub-layers in attributes, no build."""

    def __init__(self, dim=32, heads=4, inner=64, **kwargs):
        super().__init__(**kwargs)
        self.sizes = {"dim": dim, "heads": heads, "inner": inner}
        self.supports_masking = True
        self.attention = layers.MultiHeadAttention(heads, dim // heads)
        self.inner = keras.Sequential([layers.Dense(inner, activation="gelu"),
                                       layers.Dropout(0.1), layers.Dense(dim)])
        self.norms = [layers.LayerNormalization(), layers.LayerNormalization()]

    def call(self, x):
        x = self.norms[0](x + self.attention(x, x))
        return self.norms[1](x + self.inner(x))

    def get_config(self):
        return {**super().get_config(), **self.sizes}


@keras.saving.register_keras_serializable("checks")
class Gated(layers.Layer):
    """Attention and a gated block written with EinsumDense and functions, sub-layers in a dict."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.parts = {name: layers.EinsumDense("btd,dhk->bthk", (None, 4, 8), bias_axes="hk",
                                               name=name) for name in ("q", "k", "v")}
        self.out = layers.EinsumDense("bthk,hkd->btd", (None, 32), bias_axes="d", name="o")
        self.gate = layers.Dense(64, name="gate")
        self.up = layers.Dense(64, use_bias=False, name="up")
        self.down = layers.Dense(32, name="down")

    def call(self, x):
        q, k, v = (self.parts[name](x) for name in ("q", "k", "v"))
        scores = ops.softmax(ops.einsum("bthk,bshk->bhts", q, k) / 8 ** 0.5)
        x = x + self.out(ops.einsum("bhts,bshk->bthk", scores, v))
        return x + self.down(ops.silu(self.gate(x)) * self.up(x))


@keras.saving.register_keras_serializable("checks")
class Whole(layers.Layer):
    """What must not be cut: widths that code relies on, residuals, softmax and weights between."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.names = ("q", "k", "v", "o", "a1", "b1", "a2", "b2", "a3", "b3", "a4", "b4")
        for name in self.names:
            width = 32 if name[0] in "qkvob" or name == "a4" else 64
            setattr(self, name, layers.Dense(width, name=name, activation="softmax"
                                             if name == "a2" else None))
        self.between = layers.PReLU(name="between")

    def call(self, x):
        b, t = ops.shape(x)[0], x.shape[1]
        q, k, v = (ops.reshape(getattr(self, n)(x), (b, t, 4, 8)) for n in "qkv")
        scores = ops.softmax(ops.einsum("bthk,bshk->bhts", q, k))
        x = x + self.o(ops.reshape(ops.einsum("bhts,bshk->bthk", scores, v), (b, t, 32)))
        x = x + self.b1(self.between(self.a1(x)))     # a weight for each unit between
        x = x + self.b2(self.a2(x))                   # softmax over the units
        inner = self.a3(x)
        x = x + self.b3(inner) + ops.sum(inner, -1, keepdims=True)  # read twice
        return self.b4(ops.relu(self.a4(x)) + x)      # units that are the residual's, too


@keras.saving.register_keras_serializable("checks")
class Classifier(keras.Model):
    """A subclassed model."""

    def __init__(self, blocks=1, **kwargs):
        super().__init__(**kwargs)
        self.table = layers.Embedding(WORDS, 32)
        self.blocks = [Block() for _ in range(blocks)]
        self.head = layers.Dense(2)

    def call(self, x):
        x = self.table(x)
        for block in self.blocks:
            x = block(x)
        return self.head(ops.mean(x, axis=1))

    def get_config(self):
        return {**super().get_config(), "blocks": len(self.blocks)}


def around(*blocks):
    """Blocks behind an embedding, with a head."""
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(WORDS, 32, mask_zero=True, name="words")(inputs)
    for block in blocks:
        x = block(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling1D()(x)))


def stock(activation="relu"):
    """A block of Keras' own layers only."""
    def block(x):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(
            4, 8, dropout=0.1, name="attention")(x, x))
        y = layers.Activation(activation)(layers.Dense(64, name="up")(x))
        return layers.LayerNormalization()(x + layers.Dense(32, name="down")(
            layers.Dropout(0.1)(y)))
    return block


def text(n, seed=0):
    """Synthetic reviews: words 2..19 are good, 20..37 are bad, and 1 turns the whole round."""
    rng = np.random.default_rng(seed)
    x = rng.integers(38, WORDS, (n, LENGTH))
    x = np.where(rng.random(x.shape) < 0.25, rng.integers(2, 38, x.shape), x)
    x[rng.random(n) < 0.3, 0] = 1
    x[np.arange(LENGTH) >= rng.integers(LENGTH // 2, LENGTH + 1, (n, 1))] = 0
    good = np.where(x < 20, 1, -1) * ((x >= 2) & (x < 38))
    total = good.sum(1) * np.where(x[:, 0] == 1, -1, 1)
    return x[total != 0].astype("int32"), (total[total != 0] > 0).astype("int32")


def ids(n=48, seed=3):
    return text(2 * n, seed)[0][:n]


def found(model):
    """Names of the consumers whose units were recognised, and what was left."""
    plan = sk._compress._Plan(model, 8, 8, (), ())
    prober = _units.Prober(lambda: model(ids(3), training=False), plan.linear, plan.others)
    groups = prober.groups()
    return {g.name.split("/")[-1]: g for g in groups}, prober.left


# ---- layers --------------------------------------------------------------------------------------


def check_layers_decode():
    for bits in range(2, 9):
        for k, n in ((1, 1), (64, 16), (65, 17), (333, 9), (1500, 40)):
            w, bias = normal(k, n, seed=bits), normal(n)
            packed = _pack.pack(w, bits, table=False)
            layer = sk.SfqDense(n, k, "relu", bits=bits, scale_dtype=str(packed.scales.dtype))
            layer.build()
            layer.fill(packed, bias)
            assert np.array_equal(numpy(layer.dequantize()), packed.values), (bits, k, n)
            assert relative(packed.values, w) < 0.75 * 2.0 ** (2 - bits) + (k == 1)
            x = normal(2, 3, k, seed=5)
            wanted = np.maximum(x @ packed.values + bias, 0)
            assert np.abs(numpy(layer(x)) - wanted).max() < 1e-3
            table = _pack.pack(w, bits, table=True)
            layer = sk.SfqEmbedding(k, n, mask_zero=True, bits=bits,
                                    scale_dtype=str(table.scales.dtype))
            layer.build()
            layer.fill(table)
            at = np.random.default_rng(1).integers(0, k, (2, 5))
            assert np.array_equal(numpy(layer(at)), table.values[at]), (bits, k, n)
            assert np.array_equal(numpy(layer.compute_mask(at)), at != 0)


def check_codes_are_the_librarys():
    """What a layer multiplies with is what `sfq_linear_unpack` says of the library's own codes."""
    for table in (False, True):
        values = _pack.pack(normal(400, 70), 5, table=table).values
        assert np.array_equal(values, _pack.pack(normal(400, 70), 5, table=table).values)
        again = _pack.pack(values, 8, table=table)
        assert relative(again.values, values) < 0.01


def check_einsum_equations():
    for equation, shape, out, bias in (
            ("abc,cd->abd", (2, 3, 40), (None, 24), "d"),
            ("abc,cde->abde", (2, 3, 40), (None, 4, 6), "de"),
            ("abde,dec->abc", (2, 3, 4, 10), (None, 24), "c"),
            ("...x,xy->...y", (2, 3, 40), (24,), "y"),
            ("ab,cb->ac", (2, 40), (24,), None),
            ("abc,dce->adbe", (2, 3, 40), (4, 3, 6), "e")):
        plain = layers.EinsumDense(equation, out, bias_axes=bias, activation="tanh",
                                   bias_initializer="glorot_uniform")
        x = normal(*shape)
        plain(x)
        kernel = numpy(plain.kernel)
        packed = _pack.pack(_units.matrix_of(plain, kernel), 8, table=False)
        small = sk.SfqEinsumDense(equation, kernel.shape,
                                  None if bias is None else plain.bias.shape, "tanh",
                                  scale_dtype=str(packed.scales.dtype))
        small.build()
        small.fill(packed, None if bias is None else numpy(plain.bias))
        plain.kernel.assign(_units.kernel_from(plain, packed.values, kernel.shape))
        assert relative(small.kernel, plain.kernel) == 0, equation
        assert relative(small(x), plain(x)) < 1e-5, equation
        again = sk.SfqEinsumDense.from_config(small.get_config())
        assert again.kernel_shape == small.kernel_shape and again.equation == equation
    raises(ValueError, "not one matrix", sk.SfqEinsumDense, "abc,abd->acd", (2, 3, 4))


def check_masks_and_attention():
    """Padding changes nothing behind an embedding with a mask, as with Keras' own layers."""
    model = around(stock())
    x = ids(8)
    done = sk.compress(model, prune=0, bits=8, progress=False)
    small = done.model
    attention = small.get_layer("attention")
    assert isinstance(attention, sk.SfqMultiHeadAttention) and attention.num_heads == 4
    for old, new in ((model.get_layer("attention")._query_dense, attention._query_dense),
                     (model.get_layer("attention")._output_dense, attention._output_dense)):
        old.kernel.assign(new.kernel)
    for name in ("_key_dense", "_value_dense"):
        getattr(model.get_layer("attention"), name).kernel.assign(getattr(attention, name).kernel)
    for name in ("up", "down", "head"):
        model.get_layer(name).kernel.assign(small.get_layer(name).kernel)
    model.get_layer("words").embeddings.assign(small.get_layer("words").embeddings)
    assert relative(small(x), model(x)) < 1e-5
    y, causal = normal(2, 5, 32), {"use_causal_mask": True}
    assert relative(attention(y, y, **causal), model.get_layer("attention")(y, y, **causal)) < 1e-5


def check_half_precision():
    packed = _pack.pack(normal(40, 24), 4, table=False)
    layer = sk.SfqDense(24, 40, bits=4, dtype="mixed_bfloat16")
    layer.build()
    layer.fill(packed, np.zeros(24))
    y = layer(normal(3, 40))
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert relative(ops.cast(y, "float32"), normal(3, 40) @ packed.values) < 0.02


# ---- units ---------------------------------------------------------------------------------------


def check_units_recognised():
    groups, _ = found(around(stock("gelu")))
    assert set(groups) == {"attention_output", "down"}
    assert groups["attention_output"].kind == "heads" and groups["attention_output"].count == 4
    assert groups["attention_output"].cost == 4 * 32 * 8 + 3 * 8
    assert groups["down"].cost == 2 * 32 + 1 and groups["down"].count == 64
    groups, _ = found(around(Block(), Block()))
    assert sum(g.kind == "heads" for g in groups.values()) >= 1
    groups, left = found(around(Gated()))
    assert set(groups) == {"o", "down"} and not left, (groups, left)
    assert [len(groups[name].producers) for name in ("o", "down")] == [3, 2]


def check_units_left_whole():
    groups, left = found(around(Whole()))
    assert set(groups) <= {"head"}, groups  # which reads what b4 makes, and may
    assert set(left) == {"whole/o"} and "does not run on fewer" in left["whole/o"], left


def check_grouped_queries():
    """Heads that share keys and values stay, in a layer that takes two inputs; its matrices are
    packed."""
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(WORDS, 32)(inputs)
    y = layers.GroupQueryAttention(8, 4, 2, name="grouped")(x, value=x, use_causal_mask=True)
    model = keras.Model(inputs, layers.Dense(2)(y))
    groups, left = found(model)
    assert "heads are not those" in left["grouped/attention_output"], (groups, left)
    assert "attention_output" not in groups
    done = sk.compress(model, bits=8, progress=False)
    assert isinstance(done.model.get_layer("grouped"), sk.SfqBlock) and len(done.layers) == 6
    assert relative(done.model(ids(8)), model(ids(8))) < 0.03


def check_dead_units_go_without_a_trace():
    """Units that nothing reads are those that go, and the answers stay what they were."""
    for model, names in ((around(stock()), ("attention", "up", "down")), (around(Gated()), None)):
        if names:
            attention, up, down = (model.get_layer(name) for name in names)
            out = attention._output_dense
        else:
            block = next(layer for layer in model.layers if isinstance(layer, Gated))
            out, down = block.out, block.down
        for layer, keep in ((out, [0, 2]), (down, range(0, 64, 2))):
            kernel = np.zeros_like(numpy(layer.kernel))
            kernel[list(keep)] = numpy(layer.kernel)[list(keep)]
            layer.kernel.assign(kernel)
        done = sk.compress(model, ids(), prune=0.49, steps=0, progress=False)
        assert [(p.before, p.after) for p in done.pruned] == [(4, 2), (64, 32)], done.pruned
        whole = sk.compress(model, ids(), prune=0, steps=0, progress=False)
        assert relative(done.model(ids(8)), model(ids(8))) < 0.03
        assert relative(whole.model(ids(8)), model(ids(8))) < 0.03
        sizes = [sum(r.bytes for r in d.layers if r.name not in ("words", "head"))
                 for d in (done, whole)]
        assert sizes[0] < 0.6 * sizes[1], sizes


# ---- compress ------------------------------------------------------------------------------------


def check_classifier():
    """The whole way, on a text classifier that the TensorFlow run trains."""
    x, y = text(12000)
    test, labels = text(4000, seed=1)
    if TF:
        keras.utils.set_random_seed(1)
        model = around(Block(dim=32, heads=4, inner=128, name="block"))
        model.compile(keras.optimizers.Adam(3e-3),
                      keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(x, y, epochs=3, batch_size=128, verbose=0)
        model.save(CLASSIFIER)
    else:
        model = keras.saving.load_model(CLASSIFIER)
    before = [numpy(v) for v in model.weights]
    stages = []
    done = sk.compress(model, x[:384], prune=0.5, embedding_bits=4, steps=60, seed=3,
                       progress=lambda news: stages.append(news.stage))
    assert all(np.array_equal(a, numpy(b)) for a, b in zip(before, model.weights))
    assert list(dict.fromkeys(stages)) == ["calibrate", "distill", "fuse", "tune"]
    assert [p.kind for p in done.pruned] == ["heads", "neurons"]
    whole, left = (sum(n * cost for n, cost in zip(counts, (4 * 32 * 8 + 24, 65))) for counts in (
        [p.before for p in done.pruned], [p.after for p in done.pruned]))
    assert left <= whole / 2, done.pruned
    losses = done.losses
    assert losses["refitted"] <= losses["pruned"] and losses["tuned"] <= losses["packed"], losses
    assert losses["distilled"] <= losses["tables"] and losses["refitted"] < losses["pruned"]
    was, now = (float((m.predict(test, verbose=0).argmax(-1) == labels).mean())
                for m in (model, done.model))
    assert was > 0.9, was
    assert done.reduction >= 0.6 and was - now <= 0.005, (done.reduction, was, now)
    figures = {"before": was, "after": now, "reduction": done.reduction, "losses": losses}
    FIGURES.with_suffix(f".{keras.backend.backend()}.json").write_text(json.dumps(figures))
    check_saved(done, model, test[:64])


def check_saved(done, model, x):
    path = FOLDER / f"small.{keras.backend.backend()}.keras"
    done.model.save(path)
    again = keras.saving.load_model(path)
    answers = numpy(done.model(x))
    assert np.array_equal(numpy(again(x)), answers)
    assert [v.dtype for v in again.weights] == [v.dtype for v in done.model.weights]
    if TF:
        done.model.export(str(FOLDER / "saved"), verbose=False)
        np.savez(FOLDER / "saved.npz", x=x, y=answers)
    else:  # the same file on another backend
        other = keras.saving.load_model(FOLDER / "small.tensorflow.keras")
        data = np.load(FOLDER / "saved.npz")
        assert np.abs(numpy(other(data["x"])) - data["y"]).max() < 1e-4


def check_subclassed_model():
    model = Classifier()
    x = ids(64)
    model(x)
    done = sk.compress(model, x, prune=0.4, bits=6, embedding_bits=4, steps=4, progress=False)
    assert len(done.pruned) == 2 and done.reduction > 0.6, done
    assert isinstance(done.model.layers[-1].layer, Classifier)
    path = FOLDER / f"subclassed.{keras.backend.backend()}.keras"
    done.model.save(path)
    again = keras.saving.load_model(path)
    assert np.array_equal(numpy(again(x)), numpy(done.model(x)))
    assert np.array_equal(numpy(model(x[:2])), numpy(model(x[:2])))


def check_tied_language_model():
    """One table for words and logits, in a subclass that adds nothing, as KerasHub has it."""
    if not hasattr(layers, "ReversibleEmbedding"):
        return

    class Table(layers.ReversibleEmbedding):
        pass

    table = Table(WORDS, 32, mask_zero=True, name="table", logit_soft_cap=5.0)
    inputs = keras.Input((LENGTH,), dtype="int32")
    model = keras.Model(inputs, table(Block(name="block")(table(inputs)), reverse=True))
    x = ids(40)
    done = sk.compress(model, x, prune=0.3, embedding_bits=4, steps=2, loss="logits",
                       progress=False)
    assert done.left == {} and done.reduction > 0.6, done
    small = done.model.get_layer("table")
    table.embeddings.assign(small.embeddings)
    assert relative(small(x), table(x)) == 0
    y = normal(2, 3, 32)
    assert relative(small(y, reverse=True), table(y, reverse=True)) < 1e-5
    path = FOLDER / f"tied.{keras.backend.backend()}.keras"
    done.model.save(path)
    assert np.array_equal(numpy(keras.saving.load_model(path)(x)), numpy(done.model(x)))


def check_same_seed_same_bytes():
    model, x = around(stock()), ids(64)
    one, two, other = (sk.compress(model, x, prune=0.3, bits=5, steps=3, seed=seed,
                                   progress=False).model for seed in (1, 1, 2))
    values = [[numpy(v) for v in m.weights] for m in (one, two, other)]
    assert all(np.array_equal(a, b) for a, b in zip(values[0], values[1]))
    assert any(a.shape != b.shape or not np.array_equal(a, b)
               for a, b in zip(values[0], values[2]))


def check_nothing_asked_nothing_changed():
    """Nothing pruned, nothing trained: the weights of the model, decoded."""
    model = around(Block(name="block"))
    x = ids(32)
    done = sk.compress(model, x, bits=8, embedding_bits=16, steps=0, progress=False)
    assert relative(done.model(x), model(x)) < 0.03
    assert all(p.before == p.after for p in done.pruned)
    plain = numpy(model.get_layer("words").embeddings)
    assert np.array_equal(numpy(done.model.get_layer("words").embeddings), plain)
    assert done.left["words"] == "kept on request"
    head = done.model.get_layer("head")
    wanted = _pack.pack(numpy(model.get_layer("head").kernel), 8, table=False)
    assert np.array_equal(numpy(head.kernel), wanted.values)


def check_rules_and_reports():
    inputs = keras.Input((20, 16))
    x = layers.Conv1D(32, 3, name="convolution")(inputs)
    x = layers.Dense(64, activation="relu", name="first")(x)
    x = layers.Dense(64, name="second")(x)
    model = keras.Model(inputs, layers.Dense(2, name="last", activation="softmax")(x))
    done = sk.compress(model, bits=4, bits_for={"second": 6}, keep="last", progress=False)
    assert {r.name: r.bits for r in done.layers} == {"first": 4, "second": 6}
    assert "Conv1D" in done.left["convolution"] and done.left["last"] == "kept on request"
    assert done.bytes == sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize
                             for v in done.model.weights)
    assert done.original_bytes == 2 * model.count_params()
    data = normal(40, 20, 16)
    done = sk.compress(model, data, prune=0.4, keep="first", steps=0, progress=False)
    assert "first" in done.left["second"] and "second" not in {p.name for p in done.pruned}
    single = keras.Sequential([keras.Input((16,)), layers.Dense(64)])
    done = sk.compress(single, normal(20, 16), steps=3, progress=False)
    assert done.pruned == [] and done.losses["tuned"] <= done.losses["packed"]
    raises(sfq.InfeasibleError, "no heads or neurons", sk.compress, single, normal(20, 16),
           prune=0.2)
    for loss in ("mse", lambda a, b: ops.mean(ops.abs(a - b), axis=-1)):
        done = sk.compress(model, [(data, None)], prune=0.4, steps=2, loss=loss, progress=False)
        assert done.losses["refitted"] <= done.losses["pruned"]


def check_data():
    """Every spelling of the same examples is the same data."""
    a, b = normal(12, 3), normal(12, 2)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return a[4 * i:4 * i + 4], b[4 * i:4 * i + 4]

    read = sk._data.Data.read
    for one in (a, (a, b), [(a[:5], b[:5]), (a[5:], b[5:])], iter([a[:6], a[6:]]), Batches(),
                ops.convert_to_tensor(a)):
        data = read(one)
        assert data.count == 12 and np.array_equal(data.inputs, a), type(one)
    for two in ([a, b], ([a, b], None), iter([[a[:5], b[:5]], [a[5:], b[5:]]])):
        assert all(np.array_equal(x, y) for x, y in zip(read(two).inputs, (a, b)))
    for named in ({"a": a, "b": b}, [{"a": a[:3], "b": b[:3]}, {"a": a[3:], "b": b[3:]}]):
        assert np.array_equal(read(named).inputs["b"], b)
    tune, held = read(a).split(0)
    assert len(held) == 2 and sorted([*tune, *held]) == list(range(12))
    raises(ValueError, "do not fit together", read, iter([a, {"a": a}]))
    raises(ValueError, "holds no batches", read, 3)


def check_errors():
    model, x = around(stock()), ids(32)
    before = [numpy(v) for v in model.weights]
    unbuilt = keras.Sequential([layers.Dense(8)], name="unbuilt")
    raises(ValueError, "'unbuilt' is not built", sk.compress, unbuilt)
    raises(ValueError, "expected a keras.Model", sk.compress, layers.Dense(3))
    raises(ValueError, "prune needs data", sk.compress, model, prune=0.3)
    raises(ValueError, "steps needs data", sk.compress, model, steps=3)
    raises(ValueError, "bits is 9", sk.compress, model, bits=9)
    raises(ValueError, "bits is 'x'", sk.compress, model, bits="x")
    raises(ValueError, "no regular expression", sk.compress, model, keep="(")
    raises(ValueError, "prune is 1", sk.compress, model, x, prune=1)
    raises(ValueError, "loss is 'kl'", sk.compress, model, x, loss="kl")
    raises(ValueError, "there are no examples", sk.compress, model, [])
    raises(ValueError, "9 examples are too few", sk.compress, model, x[:9])
    raises(ValueError, "the same number", sk.compress, model, [x, x[:5]])
    raises(ValueError, "is text", sk.compress, model, "text")
    raises(ValueError, "not finite", sk.compress, model, np.full((20, 3), np.nan))
    raises(sfq.InfeasibleError, "", sk.compress, model, x, prune=0.99)
    plain = keras.Sequential([keras.Input((8, 4)), layers.Conv1D(3, 3)])
    raises(sfq.UnsupportedError, "no Dense, EinsumDense or Embedding", sk.compress, plain)
    raises(ValueError, "is empty", sk.SfqDense, 0, 4)
    raises(ValueError, "bits is 1", sk.SfqDense, 4, 4, bits=1)
    raises(ValueError, "not 'int8'", sk.SfqDense, 4, 4, scale_dtype="int8")

    class Stop(Exception):
        pass

    def stop(news):
        if news.stage == "distill":
            raise Stop()
    try:
        sk.compress(model, x, prune=0.4, steps=2, progress=stop)
        raise AssertionError("the callback's exception was lost")
    except Stop:
        pass
    assert all(np.array_equal(a, numpy(b)) for a, b in zip(before, model.weights))
    assert all("call" not in vars(layer) for _, layer in _tree.walk(model))
    bad = before[0].copy()
    bad[3, 3] = np.inf
    model.weights[0].assign(bad)
    error = raises(ArithmeticError, "words", sk.compress, model)
    assert error.tensor == "words"


def check_quantized_by_keras_is_left():
    model = keras.Sequential([keras.Input((32,)), layers.Dense(64, name="a"),
                              layers.Dense(64, name="b")])
    model.layers[0].enable_lora(2)
    done = sk.compress(model, progress=False)
    assert "LoRA" in done.left["a"] and [r.name for r in done.layers] == ["b"]


def main():
    results, seconds = {}, {}
    for name, check in list(globals().items()):
        if (name.startswith("check_") and name != "check_saved"
                and (not sys.argv[2:] or name[6:] in sys.argv[2:])):
            start = time.perf_counter()
            try:
                check()
                results[name[6:]] = ""
            except Exception:
                results[name[6:]] = traceback.format_exc()
            seconds[name[6:]] = round(time.perf_counter() - start, 1)
    print(json.dumps({"results": results, "seconds": seconds}))


if __name__ == "__main__":
    main()
