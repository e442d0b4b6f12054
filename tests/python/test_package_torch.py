"""`sfq.torch`: the packed layer as a citizen of PyTorch, and the same numbers as everywhere else."""

import copy
import io
import os

import numpy as np
import pytest
import torch

from package import sfq

import sfq.torch as sfq_torch
from sfq.torch import Embedding, Linear

SHAPES = ((1, 1), (64, 16), (65, 17), (333, 96), (1500, 40))


def float_layer(k, n, bias=True, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Linear(k, n, bias)


def inputs(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(got, wanted):
    return float((got - wanted).detach().norm() / wanted.detach().norm())


# ---- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("k, n", SHAPES)
def test_product_of_decoded_weights(k, n, bits):
    layer = Linear.from_float(float_layer(k, n), bits=bits, activation_bits=14)
    x = inputs(5, k)
    wanted = torch.nn.functional.linear(x, layer.dequantize(), layer.bias)
    assert relative(layer(x), wanted) < 1e-3


def test_error_falls_with_bits():
    linear = float_layer(512, 64)
    errors = [relative(Linear.from_float(linear, bits=b).dequantize(), linear.weight)
              for b in range(2, 9)]
    assert all(a > 1.7 * b for a, b in zip(errors, errors[1:])) and errors[-1] < 0.01


def test_energy_weighs_errors():
    linear = float_layer(512, 64)
    energy = torch.full((512,), 0.01)
    energy[::16] = 100

    def cost(layer):
        return float(((layer.dequantize() - linear.weight.detach()) ** 2 * energy).sum())
    assert cost(Linear.from_float(linear, bits=3, energy=energy)) < cost(
        Linear.from_float(linear, bits=3))


def test_same_as_the_artifact(models, tmp_path):
    """A layer filled from an artifact's tensors decodes to what `sfq export` writes, and a layer
    packed here has the artifact's own bytes."""
    from safetensors.torch import load_file

    out = tmp_path / "o"
    sfq.compress(models("sst2-tiny"), out, prune=0, steps=0, bits=6)
    sfq.export(out, tmp_path / "plain")
    packed, plain = load_file(out / "model.safetensors"), load_file(
        tmp_path / "plain" / "model.safetensors")
    dense = load_file(models("sst2-tiny") / "model.safetensors")
    name = next(n[:-6] for n in packed if n.endswith("attention.self.query.codes"))
    n, k = plain[name + ".weight"].shape
    layer = Linear(k, n, bits=6)
    layer.load_state_dict({part: packed[f"{name}.{part}"] for part in ("codes", "scales", "bias")})
    stored = plain[name + ".weight"].float()
    assert relative(layer.dequantize(), stored) < 1e-3  # the export is in 16 bits
    again = Linear.from_weight(dense[name + ".weight"], bits=6)
    assert torch.equal(again.codes, layer.codes) and torch.equal(again.scales, layer.scales)


def test_rows_and_threads_change_nothing():
    layer = Linear.from_float(float_layer(700, 48), bits=5)
    x = inputs(70, 700)
    try:
        sfq_torch.set_num_threads(1)
        one = layer(x)
        sfq_torch.set_num_threads(3)
        assert torch.equal(layer(x), one)
    finally:
        sfq_torch.set_num_threads(0)
    assert torch.equal(torch.cat([layer(row) for row in x.split(7)]), one)
    assert torch.equal(layer(x[3]), one[3])
    assert torch.equal(layer(x.reshape(2, 35, 700)), one.reshape(2, 35, 48))
    assert layer(x[:0]).shape == (0, 48)


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16, torch.float64))
def test_input_types(dtype):
    layer = Linear.from_float(float_layer(64, 32))
    x = inputs(3, 64).to(dtype)
    y = layer(x)
    assert y.dtype == dtype and torch.equal(y, layer(x.float()).to(dtype))
    assert torch.equal(layer(x.T.contiguous().T), y)


# ---- a module like others ------------------------------------------------------------------------


def test_casts_leave_the_weights():
    layer = Linear.from_float(float_layer(64, 32))
    x = inputs(3, 64)
    wanted = layer(x)
    model = torch.nn.Sequential(copy.deepcopy(layer)).to(torch.bfloat16)
    assert model[0].scales.dtype == torch.float16 and torch.equal(model(x), wanted)
    assert torch.nn.Sequential(copy.deepcopy(layer)).to("meta")[0].codes.device.type == "meta"


def test_save_and_load(tmp_path):
    layer = Linear.from_float(float_layer(300, 20), bits=4)
    wide = Linear.from_weight(inputs(20, 300) * 1e6, bits=4)
    assert layer.scales.dtype == torch.float16 and wide.scales.dtype == torch.float32
    for made in (layer, wide):
        file = io.BytesIO()
        torch.save(made.state_dict(), file)
        file.seek(0)
        other = Linear(300, 20, bias=made.bias is not None, bits=4)
        other.load_state_dict(torch.load(file))
        x = inputs(2, 300)
        assert torch.equal(other(x), made(x))
    with pytest.raises(RuntimeError, match="size mismatch"):
        Linear(300, 20, bits=5).load_state_dict(layer.state_dict())


def test_opcheck():
    layer = Linear.from_float(float_layer(96, 40), bits=4)
    sizes = (40, 96, 4, 12)
    for bias in (layer.bias, torch.empty(0), layer.bias.clone().requires_grad_()):
        for x in (inputs(3, 96), inputs(2, 3, 96).requires_grad_()):
            torch.library.opcheck(torch.ops.sfq.linear.default,
                                  (x, layer.codes, layer.scales, bias, *sizes))
    torch.library.opcheck(torch.ops.sfq.unpack.default, (layer.codes, layer.scales, 40, 96, 4))


def test_gradient():
    layer = Linear.from_float(float_layer(96, 40), bits=4)
    layer.bias.requires_grad_()
    x = inputs(5, 96).requires_grad_()
    (layer(x) ** 2).sum().backward()
    with torch.no_grad():
        up = 2 * layer(x)
    assert relative(x.grad, up @ layer.dequantize()) < 1e-6
    assert relative(layer.bias.grad, up.sum(0)) < 1e-6


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up = Linear.from_float(float_layer(48, 96, seed=2), bits=8)
        self.down = Linear.from_float(float_layer(96, 48, seed=3), bits=4)

    def forward(self, x):
        return x + self.down(torch.nn.functional.gelu(self.up(x)))


def test_compile():
    block = Block()
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (1, 4, 9):
        x = inputs(rows, 48).requires_grad_()
        twin = x.detach().clone().requires_grad_()
        assert torch.equal(compiled(x), block(twin))
        compiled(x).sum().backward()
        block(twin).sum().backward()
        assert torch.allclose(x.grad, twin.grad, rtol=1e-5, atol=1e-6)


def test_export():
    block = Block().eval()
    rows = torch.export.Dim("rows", min=2, max=64)
    program = torch.export.export(block, (inputs(4, 48),), dynamic_shapes=({0: rows},))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "sfq.linear.default" in names
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    again = torch.export.load(file).module()
    x = inputs(7, 48)
    assert torch.equal(again(x), block(x))


def test_forked_child_has_threads_of_its_own():
    layer = Linear.from_float(float_layer(256, 256))
    x = inputs(64, 256)
    wanted = layer(x)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(layer(x), wanted) else 1)
    assert os.waitpid(child, 0)[1] == 0


# ---- tables and modules --------------------------------------------------------------------------


def test_embedding():
    table = torch.nn.Embedding(50, 130)
    packed = Embedding.from_float(table, bits=6)
    ids = torch.tensor([[49, 0, 17], [17, 3, 3]])
    rows = packed(ids)
    assert torch.equal(rows, packed.dequantize()[ids]) and torch.equal(packed(ids.int()), rows)
    assert relative(rows, table(ids)) < 0.04 and packed(ids[:0]).shape == (0, 3, 130)
    assert packed.to(torch.bfloat16)(ids).dtype == torch.bfloat16
    assert packed.scales.dtype == torch.float16
    for bad in (50, -1):
        with pytest.raises(sfq.DataError, match=f"row {bad} "):
            packed(torch.tensor([bad]))
    with pytest.raises(sfq.ArgumentError, match="float32"):
        packed(torch.zeros(2))
    torch.library.opcheck(torch.ops.sfq.embedding.default,
                          (ids, packed.codes, packed.scales, 50, 130, 6))


class Reader(torch.nn.Module):
    """A tied language model with an attention module of torch's own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.table = torch.nn.Embedding(97, 64)
        self.attention = torch.nn.MultiheadAttention(64, 4, batch_first=True)
        self.up, self.down = torch.nn.Linear(64, 256), torch.nn.Linear(256, 64)
        self.head = torch.nn.Linear(64, 97, bias=False)
        self.head.weight = self.table.weight
        self.again = self.up

    def forward(self, ids, scale=1.0):
        x = self.table(ids)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(x + scale * self.down(torch.relu(self.up(x))))


def test_compress():
    model = Reader().eval()
    ids = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        wanted = model(ids)
        done = sfq_torch.compress(model, [ids, (ids,), dict(ids=ids, scale=0.5)], bits=8,
                                  embedding_bits=8)
        small = done.module
        assert relative(small(ids), wanted) < 0.02
        assert torch.equal(model(ids), wanted)
    attention = {f"attention.{name}_proj" for name in ("q", "k", "v", "out")}
    assert {r.name for r in done.layers} == {"table", "up", "down", "head"} | attention
    assert small.up is small.again and small.head.codes is small.table.codes
    assert isinstance(small.attention.out_proj, Linear) and not done.whole and not done.blocks
    assert all(0 < r.error < 0.01 and r.bytes < 0.6 * r.original_bytes for r in done.layers)
    assert done.original_bytes == sum(p.numel() for p in model.parameters()) * 4
    assert 0.6 < done.reduction < 0.75 and done.bytes < done.original_bytes
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    file.seek(0)
    other = sfq_torch.compress(Reader(), embedding_bits=8).module.eval()
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(ids), small(ids))


def test_compress_rules():
    model = Reader()
    done = sfq_torch.compress(model, bits=4, bits_for=[("up|down", 6), ("up", 16)],
                              keep=["head", "attention"], inplace=True)
    assert [(r.name, r.bits) for r in done.layers] == [("down", 6)] and done.module is model
    assert isinstance(model.down, Linear) and model.training and model.down.training
    assert type(model.up) is torch.nn.Linear and type(model.table) is torch.nn.Embedding
    whole = sfq_torch.compress(torch.nn.Linear(64, 8)).module
    assert isinstance(whole, Linear)
    assert sfq_torch.compress(torch.nn.ReLU()).layers == []


def test_compress_weighs_by_data():
    """Where the inputs of a layer differ in size, data make its output better."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(512, 64))
    x = inputs(400, 512) * torch.logspace(-2, 1, 512)
    wanted = model(x)
    plain = relative(sfq_torch.compress(model, bits=3).module(x), wanted)
    weighed = relative(sfq_torch.compress(model, [x], bits=3).module(x), wanted)
    assert weighed < plain


def test_compress_progress_and_interrupt():
    seen = []
    sfq_torch.compress(Reader(), progress=seen.append)
    assert seen[-1].done == seen[-1].total > 0 and len(seen) == 7

    def stop(news):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sfq_torch.compress(Reader(), progress=stop)


def test_transformer_of_torch():
    """Torch's own encoder layer looks at its linear layers' weights."""
    torch.manual_seed(1)
    layer = torch.nn.TransformerEncoderLayer(64, 4, 128, batch_first=True).eval()
    x = inputs(2, 9, 64)
    with torch.no_grad():
        small = sfq_torch.compress(layer, [x]).module
        assert relative(small(x), layer(x)) < 0.02


def tiny_model(family):
    import transformers

    torch.manual_seed(4)
    common = dict(vocab_size=96, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    if family == "gpt2":
        config = transformers.GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=64, **common)
    else:
        config = getattr(transformers, family + "Config")(
            hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, head_dim=16, **common)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("attention", ("eager", "sdpa"))
@pytest.mark.parametrize("family", ("Llama", "Qwen2", "Qwen3", "gpt2"))
def test_transformers_models(family, attention):
    """Packed layers in stock models: logits, generation with both caches, saved weights."""
    model = tiny_model(family)
    model.set_attn_implementation(attention)
    ids = torch.arange(40).reshape(2, 20) * 7 % 96
    with torch.no_grad():
        small = sfq_torch.compress(model, [dict(input_ids=ids)], bits=8, embedding_bits=8).module
        assert relative(small(ids).logits, model(ids).logits) < 0.03
        kinds = {type(m).__name__ for m in small.modules()}
        assert {"Linear", "Embedding"} <= kinds and "Conv1D" not in kinds
        assert not [m for m in small.modules() if type(m) in (torch.nn.Linear, torch.nn.Embedding)]
        greedy = dict(max_new_tokens=8, do_sample=False)
        one = small.generate(ids[:1], **greedy)
        assert torch.equal(small.generate(ids, **greedy)[:1], one) and one.shape[1] > 20
        assert torch.equal(small.generate(ids[:1], cache_implementation="static", **greedy), one)


def test_torchao():
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    from sfq.torchao import SfqWeightConfig

    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(96, 40), torch.nn.ReLU(), torch.nn.Linear(40, 8))
    wanted = Linear.from_float(model[0], bits=5, activation_bits=9)
    quantization.quantize_(model, SfqWeightConfig(bits=5, activation_bits=9))
    assert isinstance(model[0], Linear) and isinstance(model[2], Linear)
    x = inputs(3, 96)
    assert torch.equal(model[0](x), wanted(x))


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("part, call", (
    ("2..8", lambda: Linear(4, 4, bits=9)),
    ("empty", lambda: Linear(0, 4)),
    ("activation_bits", lambda: Linear(4, 4, activation_bits=7)),
    ("float16", lambda: Linear(4, 4, scale_dtype=torch.bfloat16)),
    ("int32", lambda: Linear.from_weight(torch.zeros(3, 4, dtype=torch.int32))),
    ("energy", lambda: Linear.from_weight(torch.zeros(3, 4), energy=torch.zeros(3))),
    ("codes are", lambda: torch.ops.sfq.unpack(torch.zeros(1, 1, 8, dtype=torch.uint8),
                                               torch.zeros(1, 1, 1), 8, 64, 8)),
    ("256", lambda: sfq_torch.set_num_threads(257)),
))
def test_refused(part, call):
    with pytest.raises(sfq.ArgumentError, match=part):
        call()


@pytest.mark.parametrize("part, arguments", (
    (r"last size is 63; expected floats \(\.\.\., 64\)", dict(x=torch.zeros(3, 63))),
    ("no float type", dict(x=torch.zeros(3, 64, dtype=torch.int64))),
    (r"expected floats \(\.\.\., 64\)", dict(x=torch.zeros(()))),
    (r"uint8 \(1, 1, 1024\)", dict(codes=torch.zeros(1, 2, 1024, dtype=torch.uint8))),
    ("codes do not fit", dict(codes=torch.zeros(1, 1, 1024, dtype=torch.int8))),
    ("scales do not fit", dict(scales=torch.zeros(1, 1, 16))),
    ("bias does not fit", dict(bias=torch.zeros(7))),
    ("9 bits", dict(bits=9)),
    ("8..14", dict(activation_bits=15)),
))
def test_operator_refuses(part, arguments):
    """Whatever is handed to the operator itself: an exception, and the next call works."""
    good = dict(x=torch.zeros(3, 64), codes=torch.zeros(1, 1, 1024, dtype=torch.uint8),
                scales=torch.zeros(1, 1, 2), bias=torch.zeros(8), outputs=8, inputs=64, bits=8,
                activation_bits=12)
    for _ in range(3):
        with pytest.raises(RuntimeError, match=part):
            torch.ops.sfq.linear(**{**good, **arguments})
    assert torch.ops.sfq.linear(**good).shape == (3, 8)


def test_operator_takes_views():
    """Codes off the 64-byte grid, strided inputs and biases."""
    layer = Linear.from_float(float_layer(64, 32))
    x = inputs(3, 64)
    codes = torch.zeros(layer.codes.numel() + 1, dtype=torch.uint8)[1:].reshape(layer.codes.shape)
    codes.copy_(layer.codes)
    assert codes.data_ptr() % 64 != 0
    bias = torch.stack([layer.bias, layer.bias], 1)[:, 1]
    strided = x.T.contiguous().T
    got = torch.ops.sfq.linear(strided, codes, layer.scales.double(), bias, 32, 64, 8, 12)
    assert torch.equal(got, layer(x))


def test_operator_keeps_nothing():
    layer = Linear.from_float(float_layer(512, 512))
    x = inputs(64, 512).bfloat16()

    def resident():
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def calls(count):
        with torch.no_grad():
            for _ in range(count):
                layer(x)
                with pytest.raises(RuntimeError):
                    torch.ops.sfq.linear(x, layer.codes, layer.scales, x[0, :3], 512, 512, 8, 12)

    calls(30)
    before = resident()
    calls(300)
    assert resident() - before < 4 << 20


def test_not_finite():
    weight = torch.zeros(20, 30)
    weight[3, 4] = float("nan")
    with pytest.raises(sfq.NumericError, match="20 x 30"):
        Linear.from_weight(weight)
    assert np.isfinite(Linear.from_weight(torch.zeros(20, 30)).dequantize().numpy()).all()
