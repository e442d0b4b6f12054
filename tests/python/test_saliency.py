"""Saliencies against PyTorch: Fisher scores of every KV group and neuron with the labels that the
library draws, Taylor, magnitude and reconstruction error, and what the loss sees of tokens."""

import json
import math
import subprocess

import numpy as np
import pytest
import torch
import transformers

import oracle

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
STREAM = 0x73636F7265000000
LENGTHS = [7, 1, 19, 12, 30]
SEED, ROUND = 5, 2
NEURONS = 160


def mix(z):
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return z ^ z >> 31


def draw(counter, stream=STREAM + ROUND):
    key = mix((SEED + GOLDEN) & MASK)
    key = mix(((key ^ stream) + GOLDEN) & MASK)
    return mix(key ^ ((counter + 1) * GOLDEN & MASK))


def uniform(counter):
    return (draw(counter) >> 11) * 2.0**-53


def normal(counter):
    a = draw(counter)
    b = mix((a + GOLDEN) & MASK)
    return math.sqrt(-2 * math.log(((a >> 11) + 1) * 2.0**-53)) * math.cos(
        2 * math.pi * (b >> 11) * 2.0**-53
    )


def families():
    small = dict(vocab_size=96, hidden_size=64, num_hidden_layers=3, max_position_embeddings=64)
    heads = dict(num_attention_heads=4, intermediate_size=NEURONS)
    bert = dict(small, **heads, type_vocab_size=2)
    yield "llama", transformers.LlamaForCausalLM, transformers.LlamaConfig(
        **small, **heads, num_key_value_heads=2, attn_implementation="eager"
    )
    yield "gpt2", transformers.GPT2LMHeadModel, transformers.GPT2Config(
        vocab_size=96, n_embd=64, n_layer=3, n_head=4, n_positions=64, n_inner=NEURONS,
        attn_implementation="eager",
    )
    yield "bert-2", transformers.BertForSequenceClassification, transformers.BertConfig(
        **bert, num_labels=2
    )
    yield "bert-5", transformers.BertForSequenceClassification, transformers.BertConfig(
        **bert, num_labels=5
    )
    yield "bert-value", transformers.BertForSequenceClassification, transformers.BertConfig(
        **bert, num_labels=1
    )
    yield "bert-values", transformers.BertForSequenceClassification, transformers.BertConfig(
        **bert, num_labels=3, problem_type="regression"
    )
    yield "bert-mean", transformers.BertModel, transformers.BertConfig(**bert)


FAMILIES = {name: (kind, config) for name, kind, config in families()}


def layer_parts(model):
    """Per layer: what the masked activations enter, heads and KV heads."""
    c = model.config
    if c.model_type == "llama":
        for layer in model.model.layers:
            yield layer.self_attn.o_proj, layer.mlp.down_proj
    elif c.model_type == "gpt2":
        for layer in model.transformer.h:
            yield layer.attn.c_proj, layer.mlp.c_proj
    else:
        base = model.bert if hasattr(model, "bert") else model
        for layer in base.encoder.layer:
            yield layer.attention.output.dense, layer.output.dense


def weight_of(module):
    """[N, K]"""
    w = module.weight
    return w.T if isinstance(module, transformers.pytorch_utils.Conv1D) else w


def kv_heads(config):
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


def seed_loss(model, out, sequence, token):
    """The scalar whose gradient is that of the loss at the drawn labels."""
    if model.config.model_type in ("llama", "gpt2"):
        logits = out.logits[0]
        p = torch.softmax(logits.detach().double(), -1).cumsum(-1)
        labels = [int((row <= uniform(token + i)).sum()) for i, row in enumerate(p)]
        return torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="sum")
    if not hasattr(model, "classifier"):
        mean = out.last_hidden_state[0].mean(0)
        c = mean.shape[0]
        return (mean * torch.tensor([normal(sequence * c + i) for i in range(c)])).sum()
    z = out.logits[0]
    n = z.shape[0]
    if model.config.problem_type == "regression" or n == 1:
        if n == 1:
            return z[0]
        return (z * torch.tensor([normal(sequence * n + i) for i in range(n)])).sum()
    p = torch.softmax(z.detach(), -1)
    if n == 2:
        return (p[0] * p[1]).sqrt() * (z[0] - z[1])
    label = int((p.double().cumsum(-1) <= uniform(sequence)).sum())
    return torch.nn.functional.cross_entropy(z[None], torch.tensor([label]))


class Oracle:
    """Activations and gradients at the inputs and outputs of the projections, per sequence."""

    def __init__(self, model, sequences):
        self.model, self.parts = model, list(layer_parts(model))
        self.act, self.d_act, self.d_out = [], [], []
        for p in model.parameters():
            p.requires_grad_(True)
        token = 0
        for i, ids in enumerate(sequences):
            self.run(ids, i, token)
            token += len(ids)

    def run(self, ids, sequence, token):
        seen = {}
        hooks = []
        for key, module in enumerate(m for pair in self.parts for m in pair):
            def before(_, args, key=key):
                args[0].retain_grad()
                seen[key, 0] = args[0]

            def after(_, args, out, key=key):
                out.retain_grad()
                seen[key, 1] = out

            hooks += [module.register_forward_pre_hook(before),
                      module.register_forward_hook(after)]
        self.model.zero_grad()
        out = self.model(torch.tensor([ids]))
        seed_loss(self.model, out, sequence, token).backward()
        for h in hooks:
            h.remove()
        keys = range(2 * len(self.parts))
        self.act.append([seen[k, 0].detach()[0].double() for k in keys])
        self.d_act.append([seen[k, 0].grad[0].double() for k in keys])
        self.d_out.append([seen[k, 1].grad[0].double() for k in keys])

    def fisher(self, part, units):
        sums = torch.zeros(units, dtype=torch.double)
        for a, d in zip(self.act, self.d_act):
            g = (a[part] * d[part]).sum(0).reshape(units, -1).sum(1)
            sums += g * g / 2
        return sums.numpy()

    def energy(self, part):
        return torch.cat([d[part].pow(2).sum(-1) for d in self.d_out]).numpy()

    def error(self, part, units):
        """kappa / 2 * tr(W_u^T [(H^-1)_uu]^-1 W_u), H damped by 1 % of its mean diagonal"""
        w = weight_of(self.parts[part // 2][part % 2]).detach().double()
        a = torch.cat([x[part] for x in self.act])
        energy = torch.tensor(self.energy(part))
        kappa = energy.mean()
        h = (a * (energy / kappa)[:, None]).T @ a / len(a)
        h += 1e-2 * h.diagonal().mean() * torch.eye(len(h), dtype=torch.double)
        inverse = torch.linalg.inv(h)
        out = []
        for u in torch.arange(w.shape[1]).reshape(units, -1):
            wu = w[:, u]
            out.append(torch.trace(wu @ torch.linalg.inv(inverse[u][:, u]) @ wu.T) * kappa / 2)
        return torch.stack(out).numpy()

    def magnitude(self, part, units):
        w = weight_of(self.parts[part // 2][part % 2]).detach().double()
        return w.pow(2).sum(0).reshape(units, -1).sum(1).numpy()


def taylor(model, sequences, layer):
    """|w * dL/dw| over all sequences as one batch, for groups and neurons of a Llama layer."""
    model.zero_grad()
    token = 0
    for i, ids in enumerate(sequences):
        seed_loss(model, model(torch.tensor([ids])), i, token).backward()
        token += len(ids)
    a, f = model.model.layers[layer].self_attn, model.model.layers[layer].mlp
    groups = kv_heads(model.config)

    def rows(m, units):
        return (m.weight * m.weight.grad).detach().double().abs().sum(1).reshape(units, -1).sum(1)

    def columns(m, units):
        return (m.weight * m.weight.grad).detach().double().abs().sum(0).reshape(units, -1).sum(1)

    n = f.up_proj.weight.shape[0]
    group = sum(rows(m, groups) for m in (a.q_proj, a.k_proj, a.v_proj)) + columns(a.o_proj, groups)
    neuron = rows(f.gate_proj, n) + rows(f.up_proj, n) + columns(f.down_proj, n)
    return group.numpy(), neuron.numpy()


def run_score(tool, directory, ids, work, kind, threads=2):
    done = subprocess.run(
        [tool, directory, ids, work / "out", kind, str(SEED), str(ROUND), str(threads)],
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr
    info = json.loads(done.stdout)
    return info, {n: np.fromfile(work / f"out.{n}", dtype=np.float32)
                  for n in ("groups", "neurons", "attn", "ffn")}


@pytest.fixture(scope="module")
def tool(build):
    path = build / "bin" / "sfq-test-score"
    if not path.exists():
        pytest.skip(f"{path} is not built")
    return path


@pytest.fixture(scope="module", params=FAMILIES)
def case(request, tmp_path_factory):
    kind, config = FAMILIES[request.param]
    directory = tmp_path_factory.mktemp(request.param)
    model = oracle.randomize(kind(config), 3).eval()
    model.save_pretrained(directory)
    sequences = oracle.prompts(96, LENGTHS, 4)
    ids = directory / "ids.txt"
    ids.write_text("\n".join(" ".join(map(str, s)) for s in sequences) + "\n")
    return request.param, oracle.load(directory), directory, sequences, ids


def assert_close(got, want, what, margin=1e-4):
    """Within 1e-3, and in the same order where neighbours are a margin apart."""
    d = np.abs(got - want).max() / np.abs(want).max()
    assert d < 1e-3, f"{what}: {d:.2e}"
    order = np.argsort(want, kind="stable")
    clear = np.diff(want[order]) > margin * np.abs(want).max()
    assert (np.diff(got[order])[clear] > 0).all(), f"{what}: another order"


def test_fisher_and_token_weights(tool, case, tmp_path):
    name, model, directory, sequences, ids = case
    want = Oracle(model, sequences)
    info, got = run_score(tool, directory, ids, tmp_path, "fisher")
    layers, groups = info["layers"], kv_heads(model.config)
    for i in range(layers):
        assert_close(got["groups"].reshape(layers, -1)[i], want.fisher(2 * i, groups),
                     f"{name}, groups of layer {i}")
        assert_close(got["neurons"].reshape(layers, -1)[i], want.fisher(2 * i + 1, NEURONS),
                     f"{name}, neurons of layer {i}")
        for part, key in enumerate(("attn", "ffn")):
            energy = want.energy(2 * i + part)
            assert_close(got[key].reshape(layers, -1)[i], energy / energy.mean(),
                         f"{name}, tokens of layer {i}'s {key}")


def test_same_bits_at_any_thread_count(tool, case, tmp_path):
    _, _, directory, _, ids = case
    runs = []
    for threads in (1, 2, 3):
        work = tmp_path / str(threads)
        work.mkdir()
        runs.append([run_score(tool, directory, ids, work, kind, threads)[1]
                     for kind in ("fisher", "taylor", "error")])
    for other in runs[1:]:
        for a, b in zip(runs[0], other):
            assert all(a[n].tobytes() == b[n].tobytes() for n in a)


def test_error_and_magnitude(tool, case, tmp_path):
    name, model, directory, sequences, ids = case
    want = Oracle(model, sequences)
    groups = kv_heads(model.config)
    for kind in ("error", "magnitude"):
        info, got = run_score(tool, directory, ids, tmp_path, kind)
        layers = info["layers"]
        for i in range(layers):
            for part, key, units in ((0, "groups", groups), (1, "neurons", NEURONS)):
                assert_close(got[key].reshape(layers, -1)[i],
                             getattr(want, kind)(2 * i + part, units),
                             f"{name}, {kind}, {key} of layer {i}", margin=1e-3)


def test_taylor(tool, case, tmp_path):
    name, model, directory, sequences, ids = case
    if name != "llama":
        pytest.skip("the oracle of this one knows Llama's names only")
    _, got = run_score(tool, directory, ids, tmp_path, "taylor")
    for i in range(3):
        group, neuron = taylor(model, sequences, i)
        assert_close(got["groups"].reshape(3, -1)[i], group, f"groups of layer {i}")
        assert_close(got["neurons"].reshape(3, -1)[i], neuron, f"neurons of layer {i}")
