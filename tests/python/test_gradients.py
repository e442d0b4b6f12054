"""Gradients against Transformers' autograd (float32, eager): of all weights, and of masks on heads
and neurons per sequence, whose squares are the saliency (Fisher) scores of pruning."""

import json
import subprocess

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from oracle import load, prompts
from test_parity import (CASES, LENGTHS, RAGGED_BERT, RAGGED_LLAMA, dims, ragged_bert,
                         ragged_llama, token_types, write)

TOLERANCE = 1e-4  # the contract says 1e-3
# A key's bias adds the same to every score of a query (without RoPE), so its gradient is zero and
# both programs give rounding noise; what is below this share of the whole gradient is noise.
NOISE = 1e-6


@pytest.fixture(scope="session")
def gradient_tool(build):
    path = build / "bin" / "sfq-test-gradient"
    if not path.exists():
        pytest.skip(f"{path} is not built")
    return path


class Gradients:
    """loss, weights {name: array}, heads [S, all heads], neurons [S, all neurons], and the names
    of the matrices that read them {layer: name}."""

    def __init__(self, tool, directory, sequences, work, *flags, types=None):
        lines = [" ".join(map(str, s)) for s in sequences]
        if types is not None:
            lines = [f"{a} | {' '.join(map(str, t))}" for a, t in zip(lines, types)]
        (work / "ids.txt").write_text("\n".join(lines) + "\n")
        done = subprocess.run([tool, directory, work / "ids.txt", work / "out", *map(str, flags)],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        info = json.loads(done.stdout)
        self.loss, self.head_dim = info["loss"], info["head_dim"]
        self.attention = {layer: name for layer, name in info["attention"]}
        self.ffn = {layer: name for layer, name in info["ffn"]}
        flat = np.fromfile(work / "out.weights", np.float32)
        self.weights, at = {}, 0
        for t in info["tensors"]:
            w = flat[at:at + int(np.prod(t["shape"]))].reshape(t["shape"])
            at += w.size
            self.weights[t["name"]] = w.T if t["transposed"] else w
        assert at == flat.size
        self.heads = np.fromfile(work / "out.heads", np.float32)
        self.heads = self.heads.reshape(len(sequences), info["heads"])
        self.neurons = np.fromfile(work / "out.neurons", np.float32)
        self.neurons = self.neurons.reshape(len(sequences), info["neurons"])
        self.raw = b"".join((work / f"out.{n}").read_bytes()
                            for n in ("weights", "heads", "neurons"))


def oracle_loss(model, sequences, types, s):
    """What sequence s adds to the tool's loss."""
    inputs = {"input_ids": torch.tensor([sequences[s]])}
    if types is not None:
        inputs["token_type_ids"] = torch.tensor([types[s]])
    out = model(**inputs)
    name = type(model).__name__
    if "CausalLM" in name or "LMHead" in name:
        count = sum(len(q) - 1 for q in sequences)
        return torch.nn.functional.cross_entropy(
            out.logits[0, :-1], inputs["input_ids"][0, 1:], reduction="sum") / count
    if "Classification" not in name:
        c = model.config.hidden_size
        i = torch.arange(s * c, (s + 1) * c)
        return (((37 * i % 101).float() - 50) / 50 * out.last_hidden_state[0].mean(0)).sum()
    n = model.config.num_labels
    if n == 1:
        return (out.logits[0, 0] - (3 * s % 5) / 4) ** 2 / len(sequences)
    return torch.nn.functional.cross_entropy(out.logits[0], torch.tensor(s % n)) / len(sequences)


class Oracle:
    def __init__(self, model, sequences, types, attention, ffn, head_dim):
        self.loss, heads, neurons, seen = 0.0, [], [], {}
        model.zero_grad()
        for m in model.modules():  # torch leaves a padding token's row out, which is no gradient
            if isinstance(m, torch.nn.Embedding):
                m.padding_idx = None

        def keep(key):
            def hook(_, args):
                args[0].retain_grad()
                seen[key] = args[0]
            return hook

        hooks = [model.get_submodule(name).register_forward_pre_hook(keep((kind, layer)))
                 for kind, names in (("a", attention), ("f", ffn))
                 for layer, name in names.items()]
        for s in range(len(sequences)):
            loss = oracle_loss(model, sequences, types, s)
            loss.backward()
            self.loss += loss.item()
            mask = {k: (x.detach() * x.grad)[0].sum(0).numpy() if x.grad is not None
                    else np.zeros(x.shape[-1], np.float32) for k, x in seen.items()}
            heads.append([mask["a", layer].reshape(-1, head_dim).sum(1) for layer in attention])
            neurons.append([mask["f", layer] for layer in ffn])
        for h in hooks:
            h.remove()
        self.weights = {n: p.grad.numpy() for n, p in model.named_parameters()
                        if p.grad is not None}
        self.heads, self.neurons = heads, neurons  # [S][layers][H or F]


def assert_near(got, want, scale, what):
    assert got.shape == want.shape, what
    d = np.linalg.norm((got - want).astype(np.float64))
    size = np.linalg.norm(want.astype(np.float64))
    assert d <= TOLERANCE * size + NOISE * scale, f"{what}: {d / max(size, 1e-30):.2e}"


def assert_masks(got, want, what):
    """Every sequence alone, and the order of the scores."""
    scale = np.linalg.norm(want)
    for s in range(len(want)):
        assert_near(got[s], want[s], scale, f"{what}, sequence {s}")
    score = (want.astype(np.float64) ** 2).sum(0)
    rank = spearmanr((got.astype(np.float64) ** 2).sum(0), score).statistic
    assert rank >= 0.99999, f"{what}: rank correlation {rank}"


def whole(layers):
    return np.stack([np.concatenate(s) for s in layers])


def check(tool, directory, model, sequences, types, work, *flags):
    got = Gradients(tool, directory, sequences, work, *flags, types=types)
    want = Oracle(model, sequences, types, got.attention, got.ffn, got.head_dim)
    assert got.loss == pytest.approx(want.loss, rel=1e-4)
    assert set(got.weights) == set(want.weights)
    scale = np.sqrt(sum(np.linalg.norm(w.astype(np.float64)) ** 2 for w in want.weights.values()))
    for name, w in want.weights.items():
        assert_near(got.weights[name], w, scale, name)
    assert_masks(got.heads, whole(want.heads), "heads")
    assert_masks(got.neurons, whole(want.neurons), "neurons")
    return got


@pytest.fixture(scope="module", params=sorted(CASES))
def case(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    sequences = prompts(write(request.param, directory), LENGTHS, seed=8)
    types = token_types(sequences) if request.param.startswith("bert") else None
    return directory, load(directory), sequences, types


def test_family(case, gradient_tool, tmp_path):
    directory, model, sequences, types = case
    one = check(gradient_tool, directory, model, sequences, types, tmp_path)
    three = Gradients(gradient_tool, directory, sequences, tmp_path, "--threads", "3", types=types)
    assert one.raw == three.raw


def test_normalised_embedding(gradient_tool, tmp_path):
    """sentence-transformers' Normalize module behind the mean."""
    write("bert-embedder", tmp_path / "m")
    (tmp_path / "m" / "1_Pooling").mkdir()
    (tmp_path / "m" / "1_Pooling" / "config.json").write_text(json.dumps(
        {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}))
    (tmp_path / "m" / "modules.json").write_text(json.dumps(
        [{"idx": i, "name": str(i), "path": p, "type": "sentence_transformers.models." + t}
         for i, (p, t) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"),
                                     ("2_Normalize", "Normalize")])]))
    sequences = prompts(99, LENGTHS, seed=8)
    got = Gradients(gradient_tool, tmp_path / "m", sequences, tmp_path)
    model = load(tmp_path / "m")
    total = 0
    for s, ids in enumerate(sequences):
        mean = model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0)
        i = torch.arange(s * 32, (s + 1) * 32)
        weight = ((37 * i % 101).float() - 50) / 50
        total = total + (weight * torch.nn.functional.normalize(mean, dim=0)).sum()
    total.backward()
    want = {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}
    assert got.loss == pytest.approx(total.item(), rel=1e-4)
    assert set(got.weights) == set(want)
    scale = np.sqrt(sum(np.linalg.norm(w) ** 2 for w in want.values()))
    for name, w in want.items():
        assert_near(got.weights[name], w, scale, name)


def test_long_sequence(gradient_tool, tmp_path):
    """Many blocks of query rows, a window that starts inside them."""
    for name in ("mistral-window", "gpt2"):
        directory = tmp_path / name
        vocab = write(name, directory)
        sequences = prompts(vocab, (80,) if name == "gpt2" else (3, 400), seed=4)
        check(gradient_tool, directory, load(directory), sequences, None, tmp_path)


# ---- ragged models: the oracle keeps its shape, what was cut contributes nothing ----

def ragged_part(name, w, i, kept, neurons, d, group):
    """The part of the oracle's gradient that the ragged model has."""
    heads = dims(kept, d)
    groups = dims(sorted({h // group for h in kept}), d)
    rows = {"q_proj": heads, "k_proj": groups, "v_proj": groups, "query": heads, "key": heads,
            "value": heads, "gate_proj": neurons, "up_proj": neurons, "intermediate": neurons}
    columns = {"o_proj": heads, "down_proj": neurons, "attention.output.dense": heads,
               f"layer.{i}.output.dense": neurons}
    for part, keep in rows.items():
        if f".{part}." in name:
            return w[keep]
    for part, keep in columns.items():
        if name.endswith(part + ".weight"):
            return w[:, keep]
    return w


def check_ragged(tool, directory, oracle, sequences, types, widths, ffn, group, work):
    got = Gradients(tool, directory, sequences, work, types=types)
    attention, ffn_names = ({i: name.replace(f".{layer}.", f".{i}.") for i in range(4)}
                            for layer, name in (min(got.attention.items()), min(got.ffn.items())))
    want = Oracle(oracle, sequences, types, attention, ffn_names, got.head_dim)
    assert got.loss == pytest.approx(want.loss, rel=1e-4)
    scale = np.sqrt(sum(np.linalg.norm(w) ** 2 for w in want.weights.values()))
    dropped = {n for n in want.weights if n not in got.weights}
    assert all(any(f".{i}." in n for i in range(4)) for n in dropped)
    for name, w in got.weights.items():
        layer = next((i for i in range(4) if f".{i}." in name), None)
        part = want.weights[name]
        if layer is not None:
            f = widths["neurons"][layer]
            part = ragged_part(name, part, layer, widths["heads"][layer],
                               list(range(ffn - f, ffn)), got.head_dim, group)
        assert_near(w, part, scale, name)
    heads = [np.concatenate([s[i][widths["heads"][i]] for i in range(4)]) for s in want.heads]
    neurons = [np.concatenate([s[i][ffn - widths["neurons"][i]:] for i in range(4)])
               for s in want.neurons]
    assert_masks(got.heads, np.stack(heads), "heads")
    assert_masks(got.neurons, np.stack(neurons), "neurons")


@pytest.mark.parametrize("bias", [False, True])
def test_ragged_llama(gradient_tool, tmp_path, bias):
    oracle = ragged_llama(tmp_path / "m", bias)
    check_ragged(gradient_tool, tmp_path / "m", oracle, prompts(97, LENGTHS, seed=6), None,
                 RAGGED_LLAMA, 128, 2, tmp_path)


def test_ragged_bert(gradient_tool, tmp_path):
    oracle = ragged_bert(tmp_path / "m")
    sequences = prompts(99, LENGTHS, seed=7)
    check_ragged(gradient_tool, tmp_path / "m", oracle, sequences, token_types(sequences),
                 RAGGED_BERT, 100, 1, tmp_path)


# ---- trained models ----

@pytest.mark.parametrize("name", ["sst2-tiny", "novels-5m", "stories260K", "minilm-mrpc",
                                  "minilm-stsb"])
def test_trained_model(gradient_tool, tmp_path, models, name):
    directory = models(name)
    model = load(directory)
    sequences = prompts(model.config.vocab_size, (3, 40, 100), seed=9)
    types = token_types(sequences) if model.config.model_type == "bert" else None
    check(gradient_tool, directory, model, sequences, types, tmp_path)
