"""`sfq.torch.compress` with prune: blocks are found in modules of every kind and cut without harm,
what goes is what costs least, and what cannot be cut is left whole and named."""

import copy
import io

import pytest
import torch
from torch import nn

from package import sfq

import sfq.torch as sfq_torch
from sfq.torch import Linear, MultiheadAttention
from sfq.torch._blocks import find
from sfq.torch._prune import prove

FLOATS = {"": 16}  # nothing is packed


def inputs(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(got, wanted):
    return float((got - wanted).detach().norm() / wanted.detach().norm())


def encoder_layer(width=64, heads=4, ffn=256, **options):
    torch.manual_seed(1)
    return nn.TransformerEncoderLayer(width, heads, ffn, batch_first=True, **options).eval()


def cut(module, data, share, **options):
    """Pruned only."""
    return sfq_torch.compress(module, data, prune=share, bits_for=FLOATS, **options)


# ---- torch's attention ---------------------------------------------------------------------------


def masks(kind, batch, heads, length, keys):
    if kind == "padding":
        padding = torch.zeros(batch, keys, dtype=torch.bool)
        padding[1, keys - 2:] = True
        return dict(key_padding_mask=padding)
    if kind == "both":
        return dict(key_padding_mask=inputs(batch, keys),
                    attn_mask=torch.ones(length, keys, dtype=torch.bool).triu(3))
    if kind == "heads":
        return dict(attn_mask=inputs(batch * heads, length, keys))
    return {}


@pytest.mark.parametrize("kind", ("none", "padding", "both", "heads"))
@pytest.mark.parametrize("first", (True, False))
@pytest.mark.parametrize("weights", (None, True, False))
def test_attention_is_torchs(kind, first, weights):
    """Called as torch's own, with the same result; packed, within the rounding of 8 bits."""
    torch.manual_seed(2)
    attention = nn.MultiheadAttention(32, 4, batch_first=first, bias=kind != "none").eval()
    batch, length, keys = 3, 5, 7
    q, k, v = inputs(batch, length, 32), inputs(batch, keys, 32, seed=2), inputs(batch, keys, 32)
    if not first:
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    options = dict(need_weights=weights is not None, average_attn_weights=bool(weights),
                   **masks(kind, batch, 4, length, keys))
    with torch.no_grad():
        wanted, wanted_weights = attention(q, k, v, **options)
        ours = MultiheadAttention(attention).eval()
        got, got_weights = ours(q, k, v, **options)
        assert relative(got, wanted) < 1e-5
        assert (got_weights is None) == (wanted_weights is None)
        if weights is not None:
            assert got_weights.shape == wanted_weights.shape
            assert relative(got_weights, wanted_weights) < 1e-5
        packed = sfq_torch.compress(attention, [(q, k, v)], bits=8).module
        assert isinstance(packed.q_proj, Linear)
        assert relative(packed(q, k, v, **options)[0], wanted) < 0.02


def test_attention_without_batch_and_causal():
    attention = nn.MultiheadAttention(32, 4, batch_first=False).eval()
    ours, x = MultiheadAttention(attention), inputs(6, 32)
    hidden = nn.Transformer.generate_square_subsequent_mask(6)
    wanted = attention(x, x, x, attn_mask=hidden, is_causal=True)
    padding = torch.tensor([False] * 4 + [True] * 2)
    for got in (ours(x, x, x, attn_mask=hidden, is_causal=True), ours(x, x, x, is_causal=True)):
        assert relative(got[0], wanted[0]) < 1e-5 and relative(got[1], wanted[1]) < 1e-5
    assert relative(ours(x, x, x, key_padding_mask=padding)[0],
                    attention(x, x, x, key_padding_mask=padding)[0]) < 1e-5
    with pytest.raises(sfq.ArgumentError, match="int64"):
        ours(x, x, x, attn_mask=torch.zeros(6, 6, dtype=torch.int64))


def test_mask_by_head_after_pruning():
    """A mask for each of the heads that there were is that of the heads left."""
    attention = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    x, mask = inputs(2, 5, 32), inputs(8, 5, 5)
    small = cut(attention, [(x, x, x)], 0.5, rounds=1).module
    assert small.num_heads == 2 and len(small.heads) == 2 and small.original_heads == 4
    alone = copy.deepcopy(small)
    alone.original_heads, alone.heads = 2, (0, 1)
    rows = mask.view(2, 4, 5, 5)[:, list(small.heads)].reshape(4, 5, 5)
    assert torch.equal(small(x, x, x, attn_mask=mask)[0], alone(x, x, x, attn_mask=rows)[0])


@pytest.mark.parametrize("options, part", ((dict(kdim=8), "kdim"),
                                           (dict(add_bias_kv=True), "add_bias_kv"),
                                           (dict(add_zero_attn=True), "add_zero_attn")))
def test_attention_that_stays(options, part):
    attention = nn.MultiheadAttention(32, 4, **options)
    done = sfq_torch.compress(nn.ModuleDict(dict(a=attention)))
    assert part in done.whole["a"] and type(done.module["a"]) is nn.MultiheadAttention
    with pytest.raises(sfq.ArgumentError, match=part):
        MultiheadAttention(attention)
    kept = sfq_torch.compress(nn.ModuleDict(dict(a=nn.MultiheadAttention(32, 4))), keep="^a$")
    assert kept.whole == {"a": "keep names it"} and kept.layers == []


def test_mlp_beside_an_attention_that_stays():
    """The layer's fast path would call neither its MLP nor what watches it."""
    layer, x = encoder_layer(), inputs(16, 9, 64)
    done = cut(layer, [x], 0.4, keep="self_attn")
    assert [(b.kind, b.kept) for b in done.blocks] == [("mlp", 128)]
    assert type(done.module.self_attn) is nn.MultiheadAttention
    unfitted = copy.deepcopy(done.module)
    rows = [int((layer.linear1.weight == w).all(1).nonzero()) for w in done.module.linear1.weight]
    unfitted.linear2.weight = nn.Parameter(layer.linear2.weight[:, rows])
    assert relative(done.module(x), layer(x)) < 0.95 * relative(unfitted(x), layer(x))


def test_encoder_goes_its_own_way():
    """Torch's fast path reads weights directly: packed and pruned layers are computed instead."""
    encoder = nn.TransformerEncoder(encoder_layer(), 2).eval()
    x, padding = inputs(4, 9, 64), torch.zeros(4, 9, dtype=torch.bool)
    padding[0, 6:] = True
    batch = dict(src=x, src_key_padding_mask=padding)
    for share in (0, 0.3):
        small = sfq_torch.compress(encoder, [batch], prune=share).module.eval()
        with_gradients = small(**batch)
        with torch.no_grad():
            assert torch.equal(small(**batch), with_gradients)
            assert relative(small(**batch)[~padding], encoder(**batch)[~padding]) < (
                0.02 if share == 0 else 0.3)


# ---- what goes -----------------------------------------------------------------------------------


def test_all_units_kept():
    """Cutting nothing changes no bit, and a cut that is undone neither."""
    layer = sfq_torch.compress(encoder_layer(), bits_for=FLOATS).module
    x = inputs(3, 7, 64)
    wanted, before = layer(x), copy.deepcopy(layer.state_dict())
    blocks = find(layer, [], {})
    assert {(b.kind, b.units) for b in blocks} == {("attention", 4), ("mlp", 256)}
    for block in blocks:
        block.cut(torch.ones(block.units, dtype=torch.bool))
    assert torch.equal(layer(x), wanted)
    assert prove(layer, x, blocks, {}) == blocks
    after = layer.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert layer.self_attn.num_heads == 4 and layer.linear2.in_features == 256


def test_what_nothing_reads_goes():
    """A head and neurons behind zeros, and nothing else: the same output."""
    layer, x = encoder_layer(ffn=96), inputs(16, 12, 64)
    with torch.no_grad():
        layer.self_attn.out_proj.weight[:, 16:32] = 0
        layer.linear2.weight[:, 10:26] = 0
    done = cut(layer, [x], 0.2, rounds=1)
    assert done.module.self_attn.heads == (0, 2, 3)
    assert torch.equal(done.module.linear1.weight[:12], layer.linear1.weight[
        [*range(10), 26, 27]]) and done.module.linear1.out_features == 80
    assert relative(done.module(x), layer(x)) < 1e-5


def test_what_is_there_twice_is_taken_over():
    """Neurons that give what another gives, with less weight: refitted, the output is the same."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 8)), inputs(500, 16)
    with torch.no_grad():
        model[0].weight[32:] = model[0].weight[:32]
        model[0].bias[32:] = model[0].bias[:32]
        model[2].weight[:, :32] = inputs(8, 32).sign()
        model[2].weight[:, 32:] = 0.1 * inputs(8, 32, seed=4)
    done = cut(model, [x], 0.5, rounds=1)
    assert torch.equal(done.module[0].weight, model[0].weight[:32])
    unfitted = nn.functional.linear(torch.relu(done.module[0](x)), model[2].weight[:, :32],
                                    model[2].bias)
    assert relative(done.module(x), model(x)) < 0.3 * relative(unfitted, model(x))


@pytest.mark.parametrize("share", (0.1, 0.35, 0.6))
def test_share(share):
    model = nn.Sequential(encoder_layer(), encoder_layer(ffn=512))
    done = cut(model, [inputs(8, 10, 64)], share)
    total = sum(b.parameters for b in done.blocks)
    assert share <= done.pruned < share + 2 * 64 * 64 / total
    assert done.pruned == sum(b.removed for b in done.blocks) / total
    before = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    after = sum(p.numel() for p in done.module.parameters() if p.dim() == 2)
    assert before - after == sum(b.removed for b in done.blocks)
    assert all(b.kept % 64 == 0 if b.kind == "mlp" else b.kept >= 1 for b in done.blocks)
    assert done.original_bytes - done.bytes >= 4 * (before - after)


def test_refitting_helps(monkeypatch):
    layer, x = encoder_layer(), inputs(64, 10, 64) @ inputs(64, 64, seed=3)
    unseen = inputs(16, 10, 64, seed=9) @ inputs(64, 64, seed=3)
    wanted = layer(unseen)
    refitted = relative(cut(layer, [x], 0.5).module(unseen), wanted)
    monkeypatch.setattr(sfq._prune, "refit", lambda gram, w, keep, ridge, constants=0:
                        w[:, keep].copy())
    assert refitted < 0.7 * relative(cut(layer, [x], 0.5).module(unseen), wanted)


def test_same_again():
    layer, x = encoder_layer(), inputs(8, 10, 64)
    one, two = (sfq_torch.compress(layer, [x], prune=0.3, bits=4).module.state_dict()
                for _ in range(2))
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    assert layer.linear1.out_features == 256 and layer.self_attn.num_heads == 4


def test_loss_decides():
    """Neurons that the loss does not see go first."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 8))
    with torch.no_grad():
        model[2].weight[:4, :32] = 0
        model[2].weight[4:, 32:] = 0
    x = inputs(100, 16)
    for half, seen in ((slice(0, 4), slice(32, 64)), (slice(4, 8), slice(0, 32))):
        done = cut(model, [x], 0.5, loss=lambda y, batch: y[:, half].square().sum())
        assert torch.equal(done.module[0].weight, model[0].weight[seen])
        assert relative(done.module(x)[:, half], model(x)[:, half]) < 1e-5


def test_padding_does_not_count():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = encoder_layer()

        def forward(self, x, attention_mask):
            return self.layer(x, src_key_padding_mask=attention_mask == 0)

    x, mask = inputs(8, 12, 64), torch.ones(8, 12, dtype=torch.int64)
    mask[:, 8:] = 0
    other = torch.where(mask[..., None] == 0, 100 * inputs(8, 12, 64, seed=5), x)
    one, two = (cut(Reader(), [dict(x=a, attention_mask=mask)], 0.3) for a in (x, other))
    assert one.blocks == two.blocks
    for a, b in zip(one.module.parameters(), two.module.parameters()):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


# ---- modules of others ---------------------------------------------------------------------------


class Gated(nn.Module):
    def __init__(self, width=32, ffn=96):
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(width, ffn, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(ffn, width, bias=False)

    def forward(self, x):
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


def test_gated():
    torch.manual_seed(0)
    model, x = Gated(), inputs(8, 20, 32)
    with torch.no_grad():
        model.gate_proj.weight[::3] = 0
    done = cut(model, [x], 0.33)
    assert [(b.kind, b.units, b.kept) for b in done.blocks] == [("mlp", 96, 64)]
    assert relative(done.module(x), model(x)) < 1e-5


def tiny(family):
    import transformers

    torch.manual_seed(4)
    sizes = dict(hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4)
    special = dict(vocab_size=96, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    config = {
        "llama": lambda: transformers.LlamaConfig(**sizes, num_key_value_heads=2, **special),
        "gpt2": lambda: transformers.GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=64,
                                                **special),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**sizes, **special),
        "bert": lambda: transformers.BertConfig(**sizes, **special)}[family]()
    kind = (transformers.AutoModelForSequenceClassification if family == "bert" else
            transformers.AutoModelForCausalLM)
    return kind.from_config(config).eval()


@pytest.mark.parametrize("family", ("llama", "gpt2", "gpt_neox", "bert"))
def test_transformers_models(family):
    """Separate and fused queries, grouped ones by whole groups, projections in another module."""
    model, ids = tiny(family), torch.arange(160).reshape(8, 20) * 7 % 96
    batch = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
    done = sfq_torch.compress(model, [batch], prune=0.7, bits=8)
    assert len(done.blocks) == 4 and 0.7 <= done.pruned < 0.8
    assert any(b.kept < b.units for b in done.blocks if b.kind == "attention")
    assert set(done.whole) <= {"lm_head", "embed_out", "bert.pooler.dense", "classifier"}
    with torch.no_grad():
        got, wanted = done.module(**batch).logits, model(**batch).logits
        assert relative(got, wanted) < 0.6
        if family == "llama":
            attention = done.module.model.layers[0].self_attn
            assert attention.q_proj.out_features == 2 * attention.k_proj.out_features
        if family in ("llama", "gpt2"):
            assert done.module.generate(ids[:1], max_new_tokens=4, do_sample=False).shape[1] > 20


class Stubborn(nn.Module):
    """Attention whose code knows its width, and an MLP with a norm between its layers."""

    def __init__(self):
        super().__init__()
        self.num_heads = 4
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))
        self.fc1, self.norm, self.fc2 = nn.Linear(32, 64), nn.LayerNorm(64), nn.Linear(64, 32)

    def forward(self, x):
        q, k, v = (f(x).view(*x.shape[:2], self.num_heads, 8).transpose(1, 2)
                   for f in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.o(y.transpose(1, 2).reshape(x.shape))
        return x + self.fc2(self.norm(self.fc1(x)))


class Turning(nn.Module):
    """An MLP whose neurons are not alone: each reads its neighbour."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)).roll(1, -1))


def test_what_cannot_be_cut_is_named():
    torch.manual_seed(0)
    model, x = nn.Sequential(Stubborn(), Gated(), Turning()), inputs(4, 6, 32)
    done = sfq_torch.compress(model, [x], prune=0.3)
    assert [b.name for b in done.blocks] == ["1"] and done.pruned >= 0.3
    assert "attention: its code does not follow narrower" in done.whole["0"]
    assert "mlp: its code does not follow narrower" in done.whole["0"]
    assert "mlp: without some of its units it computes something else" == done.whole["2"]
    assert isinstance(done.module[0].fc1, Linear) and done.module[0].fc1.out_features == 64
    for alone in (Stubborn(), Turning(), nn.Linear(32, 32), nn.ReLU()):
        with pytest.raises(sfq.UnsupportedError, match="nothing in the module can be pruned"):
            sfq_torch.compress(alone, [x], prune=0.1)


def test_shared_layers_stay():
    torch.manual_seed(0)
    model = nn.Sequential(Gated(), Gated(), Gated())
    model[1].up_proj = model[0].up_proj
    model[2].down_proj.weight = nn.Parameter(inputs(32, 96) / 9)
    done = cut(model, [inputs(4, 6, 32)], 0.3)
    assert [b.name for b in done.blocks] == ["2"]
    assert "more than one place" in done.whole["0"] and "more than one" in done.whole["1"]


def test_keep_protects_a_block():
    model = nn.Sequential(Gated(), Gated())
    done = cut(model, [inputs(4, 6, 32)], 0.3, keep=r"^0\.up")
    assert [(b.name, b.kept) for b in done.blocks if b.kept < b.units] == [("1", 32)]
    with pytest.raises(sfq.InfeasibleError, match="let"):
        cut(model, [inputs(4, 6, 32)], 0.6, keep=r"^0\.up")


# ---- a module like others ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pruned():
    x = inputs(8, 10, 64)
    return sfq_torch.compress(encoder_layer(), [x], prune=0.3, bits=6).module.eval(), x


def test_save_and_load(pruned):
    layer, x = pruned
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = sfq_torch.compress(encoder_layer(), [x], prune=0.3, bits=6, seed=0).module.eval()
    for buffer in other.buffers():
        buffer.zero_()
    assert not torch.equal(other(x), layer(x))
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(x), layer(x))
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), layer(x))


def test_compile_and_export(pruned):
    layer, x = pruned
    attention = layer.self_attn
    with torch.no_grad():
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        assert relative(compiled(x), layer(x)) < 1e-6
        program = torch.export.export(attention, (x, x, x))
        assert relative(program.module()(x, x, x)[0], attention(x, x, x)[0]) < 1e-6


def test_gradients_or_not(pruned):
    """Without gradients the operator is called past the dispatcher's step for them: same bits."""
    layer, x = pruned
    wanted = layer(x)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert torch.equal(layer(x), wanted) and not layer(x).requires_grad
    twin = x.clone().requires_grad_()
    layer(twin).sum().backward()
    assert float(twin.grad.abs().sum()) > 0


@pytest.mark.parametrize("part, options", (
    ("prune is 1", dict(prune=1)), ("prune is -0.1", dict(prune=-0.1)),
    ("prune is nan", dict(prune=float("nan"))), ("rounds is 0", dict(prune=0.1, rounds=0)),
    ("needs data", dict(prune=0.1, data=None)), ("needs data", dict(prune=0.1, data=[])),
    ("the loss does not depend", dict(prune=0.1, loss=lambda y, batch: torch.zeros(())))))
def test_refused(part, options):
    with pytest.raises(sfq.ArgumentError, match=part):
        sfq_torch.compress(encoder_layer(), **{"data": [inputs(2, 3, 64)], **options})


def test_not_finite():
    layer = encoder_layer()
    with torch.no_grad():
        layer.linear1.weight[3, 4] = float("nan")
    with pytest.raises(sfq.NumericError):
        sfq_torch.compress(layer, [inputs(2, 3, 64)], prune=0.1)


def test_progress_and_interrupt():
    seen = []
    sfq_torch.compress(encoder_layer(), [inputs(2, 3, 64)] * 2, prune=0.3, progress=seen.append)
    assert [s.stage for s in seen[:1] + seen[-1:]] == ["prune", "fuse"]
    assert seen[-1].done == seen[-1].total and {s.stage_count for s in seen} == {2}

    def stop(news):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sfq_torch.compress(encoder_layer(), [inputs(2, 3, 64)], prune=0.3, progress=stop)
