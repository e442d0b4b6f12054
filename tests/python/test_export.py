"""`sfq export --format dense`: stock Transformers loads the result, whatever the widths were, and
computes what the engine computes on the artifact."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

import test_parity
from oracle import assert_parity, distance, expected, load, prompts, randomize, run_tool
from test_format_spec import decode, read_tensors

FAMILIES = ["llama-gqa", "llama-mha-bias-tied-f16", "llama-headdim-bf16", "mistral-full", "qwen2",
            "qwen3", "gpt2", "gpt2-untied-inner", "bert-classifier", "bert-embedder",
            "distilbert-classifier"]
LENGTHS = (1, 2, 9, 33)
# Where the matrices of a layer are: query, key and value (rows), output (columns), the FFN's rows
# and its columns.
NAMES = {
    "gpt2": ("transformer.h.{}.", ("attn.c_attn",), "attn.c_proj", ("mlp.c_fc",), "mlp.c_proj"),
    "bert": ("bert.encoder.layer.{}.",
             ("attention.self.query", "attention.self.key", "attention.self.value"),
             "attention.output.dense", ("intermediate.dense",), "output.dense"),
    "distilbert": ("distilbert.transformer.layer.{}.",
                   ("attention.q_lin", "attention.k_lin", "attention.v_lin"), "attention.out_lin",
                   ("ffn.lin1",), "ffn.lin2"),
    None: ("model.layers.{}.", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
           "self_attn.o_proj", ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),
}


@pytest.fixture(scope="module")
def sfq(build):
    path = build / "bin" / "sfq"
    if not path.exists():
        pytest.skip("sfq is not built")

    def call(*words, status=0):
        done = subprocess.run([path, *map(str, words)], capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done

    return call


def export(sfq, source, target, *more):
    return json.loads(sfq("export", source, "-o", target, "--json", *more).stdout)


def made(name, directory):
    """The checkpoint of a parity case, and sequences for it."""
    vocab = test_parity.write(name, directory)
    sequences = prompts(vocab, LENGTHS, seed=11)
    return sequences, test_parity.token_types(sequences) if name.startswith("bert") else None


# ---- uneven widths -------------------------------------------------------------------------------


def widths(config):
    """Heads, KV heads, head dim, FFN width and their keys of a stock config."""
    get = config.get
    hidden = get("hidden_size") or get("n_embd") or get("dim")
    heads = get("num_attention_heads") or get("n_head") or get("n_heads")
    ffn = next(k for k in ("intermediate_size", "n_inner", "hidden_dim") if k in config)
    kv = get("num_key_value_heads") or heads
    return heads, kv, get("head_dim") or hidden // heads, get(ffn) or 4 * hidden


def kept(layer, kv, ffn):
    """Units that a layer keeps: layer 1 loses its attention, layer 2 its FFN (where there is one)."""
    groups = [] if layer == 1 else [g for g in range(kv) if g % 4 != (layer + 1) % 4]
    neurons = [] if layer == 2 else [n for n in range(ffn) if (5 * n + layer) % 7 < 4]
    return groups, neurons


def spread(units, span):
    return [u * span + i for u in units for i in range(span)]


def qkv_rows(parts, groups, heads, kv, d):
    """Rows of q, k and v (or of the one matrix that holds them) that the groups own."""
    q = spread(groups, heads // kv * d)
    k = spread(groups, d)
    if len(parts) == 1:
        return [q + [heads * d + i for i in k] + [(heads + kv) * d + i for i in k]]
    return [q, k, k]


def cut(source, target):
    """A dense artifact with uneven widths, as a pruned student is written, with every kind of
    dropped sublayer; and the same model with the columns zeroed instead."""
    config = json.loads((source / "config.json").read_text())
    tensors = safetensors.torch.load_file(source / "model.safetensors")
    tensors = {k: v.half().to(v.dtype) for k, v in tensors.items()}  # nothing is lost in F16
    masked = {k: v.clone() for k, v in tensors.items()}
    heads, kv, d, ffn = widths(config)
    family = config["model_type"]
    prefix, qkv, out, rows, down = NAMES.get(family, NAMES[None])
    if config["architectures"][0].endswith("BertModel"):
        prefix = prefix.split(".", 1)[1]
    turned, pre_norm = family == "gpt2", family not in ("bert", "distilbert")
    norms = {"gpt2": ("ln_1", "ln_2")}.get(family, ("input_layernorm", "post_attention_layernorm"))
    layers, parameters = [], sum(v.numel() for v in tensors.values())

    def take(name, index, dim):
        """Keeps some rows (dim 0) or columns (dim 1); a matrix of nothing goes."""
        weight, bias = name + ".weight", name + ".bias"
        tensors[weight] = tensors[weight].index_select(1 - dim if turned else dim,
                                                       torch.tensor(index, dtype=torch.long))
        if dim == 0 and bias in tensors:
            tensors[bias] = tensors[bias][index]
        for key in (weight, bias) if dim == 0 else (weight,):
            if key in tensors and tensors[key].numel() == 0:
                del tensors[key]

    def mask(name, index):
        weight = masked[name + ".weight"] if turned else masked[name + ".weight"].T
        gone = sorted(set(range(weight.shape[0])) - set(index))
        weight[gone] = 0

    count = config.get("num_hidden_layers") or config.get("n_layer") or config.get("n_layers")
    for layer in range(count):
        at = prefix.format(layer)
        groups, neurons = kept(layer, kv, ffn)
        columns = spread(groups, heads // kv * d)
        for name, index in zip(qkv, qkv_rows(qkv, groups, heads, kv, d)):
            take(at + name, index, 0)
        take(at + out, columns, 1)
        mask(at + out, columns)
        for name in rows:
            take(at + name, neurons, 0)
        take(at + down, neurons, 1)
        mask(at + down, neurons)
        gone = [norms[0]] * (not groups) + [norms[1]] * (not neurons)
        for norm in gone if pre_norm else []:
            tensors.pop(at + norm + ".weight")
            tensors.pop(at + norm + ".bias", None)
        if not groups:
            for norm in ("self_attn.q_norm", "self_attn.k_norm"):
                tensors.pop(at + norm + ".weight", None)
        layers.append({"heads": len(groups) * heads // kv, "kv_heads": len(groups),
                       "ffn": len(neurons)})
    shutil.copytree(source, target)
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()},
                                target / "model.safetensors", metadata={"format": "pt"})
    config["quantization_config"] = {"quant_method": "sfq", "version": 1, "layers": layers,
                                     "original_parameters": parameters, "tensors": {}}
    (target / "config.json").write_text(json.dumps(config))
    oracle = target.parent / (target.name + "-masked")
    shutil.copytree(source, oracle)
    safetensors.torch.save_file(masked, oracle / "model.safetensors", metadata={"format": "pt"})
    return oracle, layers


@pytest.mark.parametrize("name", FAMILIES)
def test_uneven_widths(sfq, forward_tool, tmp_path, name):
    sequences, types = made(name, tmp_path / "in")
    oracle, layers = cut(tmp_path / "in", tmp_path / "cut")
    done = export(sfq, tmp_path / "cut", tmp_path / "out")
    assert done["padded"] is True and done["format"] == "dense"
    assert done["ffn"] == max(layer["ffn"] for layer in layers)
    assert done["heads"] >= max(layer["heads"] for layer in layers)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config and "per_layer_config" not in config
    assert widths(config)[:2] == (done["heads"], done["kv_heads"])
    model, loading = load_all(tmp_path / "out")
    assert not any(loading.values()), loading
    got = expected(model, sequences, types)
    engine = run_tool(forward_tool, tmp_path / "cut", sequences, tmp_path, types=types)
    for i, (_, want) in enumerate(expected(load(oracle), sequences, types)):
        assert distance(got[i][1], want) < 1e-4
        assert distance(engine.result[i], want) < 1e-4
    # the engine opens what it wrote, and inspects the artifact that it came from
    assert_parity(run_tool(forward_tool, tmp_path / "out", sequences, tmp_path, types=types), got)
    seen = json.loads(sfq("inspect", tmp_path / "cut", "--json").stdout)
    assert [{k: v for k, v in layer.items() if k != "bits"} for layer in seen["layers"]] == layers
    assert seen["compressed"] and seen["original_parameters"] > seen["parameters"]
    again = json.loads(sfq("inspect", tmp_path / "out", "--json").stdout)
    assert again["parameters"] == done["parameters"] and again["bytes"] == done["bytes"]


def load_all(directory):
    from oracle import auto_class

    model, loading = auto_class(directory).from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    loading["missing_keys"] = {  # an embedder's pooler is not part of what sfq runs
        key for key in loading["missing_keys"] if not key.startswith("pooler.")}
    return model.eval(), loading


# ---- packed artifacts ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_packed(sfq, forward_tool, tmp_path, name):
    """Every weight is the decoded one, rounded to F16; the engine agrees with Transformers."""
    sequences, types = made(name, tmp_path / "in")
    sfq("compress", tmp_path / "in", "-o", tmp_path / "small", "--prune", 0, "--steps", 0,
        "--activation-bits", 12)
    done = export(sfq, tmp_path / "small", tmp_path / "out")
    assert done["padded"] is False
    check_decoded(tmp_path / "small", tmp_path / "out")
    assert done["bytes"] == (tmp_path / "out" / "model.safetensors").stat().st_size
    model, loading = load_all(tmp_path / "out")
    assert not any(loading.values()), loading
    got = expected(model, sequences, types)
    assert_parity(run_tool(forward_tool, tmp_path / "out", sequences, tmp_path, types=types), got)
    # the artifact rounds activations to 12 bits, which random weights amplify
    engine = run_tool(forward_tool, tmp_path / "small", sequences, tmp_path, types=types)
    for i, (_, result) in enumerate(got):
        assert distance(engine.result[i], result) < 2e-2


def check_decoded(artifact, plain):
    config = json.loads((artifact / "config.json").read_text())
    packed = dict(read_tensors(artifact / "model.safetensors"))
    out = dict(read_tensors(plain / "model.safetensors"))
    turned = config["model_type"] == "gpt2"
    for name, entry in config["quantization_config"]["tensors"].items():
        w = decode(packed.pop(name + ".codes"), packed.pop(name + ".scales"), entry)
        block = ".attn." in name or ".mlp." in name
        packed[name + ".weight"] = w.T if turned and block else w
    assert set(packed) == set(out)
    for name, w in packed.items():
        assert out[name].dtype == np.float16
        assert np.array_equal(out[name], w.astype(np.float16)), name


def test_real_model(sfq, models, tmp_path):
    """Greedy text of the exported model in Transformers is the text of the artifact in sfq."""
    sfq("compress", models("novels-5m"), "-o", tmp_path / "small", "--prune", 0, "--steps", 0)
    export(sfq, tmp_path / "small", tmp_path / "out")
    import transformers

    prompt = "It was a dark and"
    mine = json.loads(sfq("run", tmp_path / "small", "-p", prompt, "-n", 12, "--json").stdout)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    out = load(tmp_path / "out").generate(ids, max_new_tokens=12, do_sample=False)
    text = tokenizer.decode(out[0, ids.shape[1]:])
    assert mine["text"] in (text, prompt + text)


# ---- dtypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name,dtype", [("qwen2", "F32"), ("mistral-full", "BF16")])
def test_overflow(sfq, tmp_path, name, dtype):
    """A matrix that F16 cannot hold keeps the source's dtype; the others stay F16."""
    made(name, tmp_path / "in")
    path = tmp_path / "in" / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = 1e6
    tensors["model.layers.0.mlp.down_proj.weight"] *= 1e-7
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    export(sfq, tmp_path / "in", tmp_path / "out")
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "pt") as out:
        found = {k: out.get_slice(k).get_dtype() for k in out.keys()}
        for key in ("model.layers.1.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"):
            assert found.pop(key) == dtype
            assert torch.allclose(out.get_tensor(key).float(), tensors[key].float(), rtol=1e-6)
        assert set(found.values()) == {"F16"}


def test_wide_model_is_not_loaded_as_half(sfq, tmp_path):
    made("llama-mha-bias-tied-f16", tmp_path / "in")
    path = tmp_path / "in" / "model.safetensors"
    tensors = {k: v.float() for k, v in safetensors.torch.load_file(path).items()}
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = 1e6
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    export(sfq, tmp_path / "in", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == "float32"


# ---- errors --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(sfq, root, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "small"
    sfq("compress", root / "models" / "sst2-tiny", "-o", out, "--prune", 0, "--steps", 0)
    return out


def refused(sfq, status, *words):
    done = sfq("export", *words, "--json", status=status)
    error = json.loads(done.stdout)["error"]
    assert error["message"] in done.stderr
    return error


def test_errors(sfq, small, tmp_path):
    out = tmp_path / "out"
    assert "not write it" in refused(sfq, 2, small, "-o", out, "--format", "gguf")["message"]
    assert "dense" in refused(sfq, 2, small, "-o", out, "--format", "onnx")["message"]
    assert "-o DIR" in refused(sfq, 2, small)["message"]
    assert "itself" in refused(sfq, 2, small, "-o", small, "--force")["message"]
    assert "holds the model" in refused(sfq, 2, small, "-o", small.parent, "--force")["message"]
    assert refused(sfq, 2, tmp_path / "none", "-o", out)["code"] == "E_NOT_FOUND"
    out.mkdir()
    (out / "keep").write_text("mine")
    assert refused(sfq, 2, small, "-o", out)["code"] == "E_EXISTS"
    assert refused(sfq, 2, small, "-o", out, "--force")["code"] == "E_EXISTS"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (out / "keep").read_text() == "mine"


def test_force_replaces_an_export(sfq, small, tmp_path):
    first = export(sfq, small, tmp_path / "out")
    (tmp_path / "out" / "model.safetensors").write_bytes(b"old")
    assert export(sfq, small, tmp_path / "out", "--force") == first
    assert (tmp_path / "out" / "model.safetensors").stat().st_size == first["bytes"]
    assert not (tmp_path / "out" / "sfq_report.json").exists()


def test_damage_is_found(sfq, small, tmp_path):
    bad = tmp_path / "bad"
    shutil.copytree(small, bad)
    data = bytearray((bad / "model.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (bad / "model.safetensors").write_bytes(data)
    assert refused(sfq, 2, bad, "-o", tmp_path / "out")["code"] == "E_CHECKSUM"
    assert not (tmp_path / "out").exists()


def test_bias_without_a_place(sfq, tmp_path):
    """An artifact may hold a bias that the stock model of its family does not have."""
    made("qwen2", tmp_path / "in")
    cut(tmp_path / "in", tmp_path / "cut")
    path = tmp_path / "cut" / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["model.layers.0.mlp.down_proj.bias"] = torch.ones(64)
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    error = refused(sfq, 5, tmp_path / "cut", "-o", tmp_path / "out")
    assert "model.layers.0.mlp.down_proj.bias" in error["message"]


def test_threads_do_not_matter(sfq, small, tmp_path):
    for n in (1, 3):
        export(sfq, small, tmp_path / str(n), "--threads", n)
    files = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("1", "3")]
    assert files[0] == files[1]
