"""Parity with Transformers: hidden states after every layer, logits, labels, embeddings."""

import json
import subprocess

import numpy as np
import pytest
import torch
import transformers as tf

from oracle import assert_parity, distance, expected, load, prompts, randomize, run_tool

LENGTHS = (1, 2, 7, 33, 70)


def llama(**kw):
    base = dict(
        vocab_size=97, hidden_size=64, intermediate_size=128, num_hidden_layers=3,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=128,
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, pad_token_id=None,
    )
    base.update(kw)
    return base


def rope(kind, **kw):
    return {"rope_type": kind, "rope_theta": 10000.0, **kw}


LLAMA3 = rope("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
YARN = rope("yarn", factor=4.0, original_max_position_embeddings=32)
NO_SLIDE = dict(use_sliding_window=False)
SLIDE = dict(use_sliding_window=True, sliding_window=11, max_window_layers=1)

CASES = {
    # name: (config class, model class, config, dtype)
    "llama-gqa": (tf.LlamaConfig, tf.LlamaForCausalLM, llama(), torch.float32),
    "llama-mqa-odd": (tf.LlamaConfig, tf.LlamaForCausalLM, llama(
        hidden_size=48, intermediate_size=100, num_attention_heads=3, num_key_value_heads=1,
        vocab_size=101), torch.float32),
    "llama-mha-bias-tied-f16": (tf.LlamaConfig, tf.LlamaForCausalLM, llama(
        num_key_value_heads=8, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
        intermediate_size=172), torch.float16),
    "llama-headdim-bf16": (tf.LlamaConfig, tf.LlamaForCausalLM, llama(
        hidden_size=40, head_dim=24, num_attention_heads=4, num_key_value_heads=2), torch.bfloat16),
    "llama-rope-linear": (tf.LlamaConfig, tf.LlamaForCausalLM, llama(
        rope_parameters=rope("linear", factor=2.5)), torch.float32),
    "llama-rope-llama3": (tf.LlamaConfig, tf.LlamaForCausalLM, llama(
        rope_parameters=LLAMA3, head_dim=32), torch.float32),
    "llama-rope-yarn": (tf.LlamaConfig, tf.LlamaForCausalLM, llama(
        rope_parameters=YARN, head_dim=32), torch.float32),
    "llama-rope-yarn-mscale": (tf.LlamaConfig, tf.LlamaForCausalLM, llama(
        rope_parameters={**YARN, "mscale": 0.7, "mscale_all_dim": 1.1, "beta_fast": 16,
                         "truncate": False}, head_dim=32), torch.float32),
    "llama-rope-yarn-factor": (tf.LlamaConfig, tf.LlamaForCausalLM, llama(
        rope_parameters={**YARN, "attention_factor": 1.2}, head_dim=16), torch.float32),
    "mistral-window": (tf.MistralConfig, tf.MistralForCausalLM, llama(sliding_window=9),
                       torch.float32),
    "mistral-full": (tf.MistralConfig, tf.MistralForCausalLM, llama(sliding_window=None),
                     torch.bfloat16),
    "smollm3-nope": (tf.SmolLM3Config, tf.SmolLM3ForCausalLM, llama(
        num_hidden_layers=4, no_rope_layers=[1, 0, 1, 0], tie_word_embeddings=True),
        torch.float32),
    "smollm3-default-nope-window": (tf.SmolLM3Config, tf.SmolLM3ForCausalLM, llama(
        num_hidden_layers=5, use_sliding_window=True, sliding_window=8), torch.float32),
    "qwen2": (tf.Qwen2Config, tf.Qwen2ForCausalLM, llama(**NO_SLIDE), torch.float32),
    "qwen2-window-tied": (tf.Qwen2Config, tf.Qwen2ForCausalLM, llama(
        tie_word_embeddings=True, **SLIDE), torch.float16),
    "qwen2-layer-types": (tf.Qwen2Config, tf.Qwen2ForCausalLM, llama(
        use_sliding_window=True, sliding_window=5,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"]), torch.float32),
    "qwen3": (tf.Qwen3Config, tf.Qwen3ForCausalLM, llama(head_dim=24), torch.float32),
    "qwen3-window-bias": (tf.Qwen3Config, tf.Qwen3ForCausalLM, llama(
        head_dim=16, attention_bias=True, tie_word_embeddings=True, **SLIDE), torch.bfloat16),
    "gpt2": (tf.GPT2Config, tf.GPT2LMHeadModel, dict(
        vocab_size=99, n_embd=48, n_layer=3, n_head=4, n_positions=80), torch.float32),
    "gpt2-untied-inner": (tf.GPT2Config, tf.GPT2LMHeadModel, dict(
        vocab_size=99, n_embd=36, n_layer=2, n_head=3, n_positions=80, n_inner=100,
        tie_word_embeddings=False, activation_function="relu", scale_attn_weights=False),
        torch.float16),
    "bert-classifier": (tf.BertConfig, tf.BertForSequenceClassification, dict(
        vocab_size=99, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=100, max_position_embeddings=80, num_labels=3), torch.float32),
    "bert-regression-f16": (tf.BertConfig, tf.BertForSequenceClassification, dict(
        vocab_size=99, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=96, max_position_embeddings=80, num_labels=1, hidden_act="gelu_new"),
        torch.float16),
    "bert-embedder": (tf.BertConfig, tf.BertModel, dict(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=80), torch.float32),
    "distilbert-classifier": (tf.DistilBertConfig, tf.DistilBertForSequenceClassification, dict(
        vocab_size=99, dim=48, n_layers=3, n_heads=4, hidden_dim=100, max_position_embeddings=80,
        num_labels=4), torch.float32),
    "distilbert-embedder": (tf.DistilBertConfig, tf.DistilBertModel, dict(
        vocab_size=99, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=80,
        activation="relu"), torch.bfloat16),
}
CAUSAL = [n for n, c in CASES.items() if "CausalLM" in c[1].__name__ or "LMHead" in c[1].__name__]


def write(name, directory, **save):
    config_class, model_class, kw, dtype = CASES[name]
    model = randomize(model_class(config_class(**kw)), seed=sum(map(ord, name)))
    model.to(dtype).save_pretrained(directory, **save)
    return model.config.vocab_size


def token_types(sequences):
    return [[int(j > len(s) // 2) for j in range(len(s))] for s in sequences]


@pytest.fixture(scope="module", params=sorted(CASES))
def case(request, tmp_path_factory):
    """A checkpoint of each case with what the oracle computes on it; written once."""
    directory = tmp_path_factory.mktemp(request.param)
    vocab = write(request.param, directory)
    sequences = prompts(vocab, LENGTHS, seed=5)
    types = token_types(sequences) if request.param.startswith("bert") else None
    return request.param, directory, sequences, types, expected(load(directory), sequences, types)


def test_family(case, forward_tool, tmp_path):
    _, directory, sequences, types, want = case
    assert_parity(run_tool(forward_tool, directory, sequences, tmp_path, types=types), want)


def test_family_reference_kernels(case, forward_tool, tmp_path):
    _, directory, sequences, types, want = case
    run = run_tool(forward_tool, directory, sequences, tmp_path, "--isa", "ref", types=types)
    assert run.info["isa"] == "ref"
    assert_parity(run, want)


def test_family_cached_prefill(case, forward_tool, tmp_path):
    name, directory, sequences, _, want = case
    if name not in CAUSAL:
        pytest.skip("an encoder has no cache")
    run = run_tool(forward_tool, directory, sequences, tmp_path, "--chunk", "7", "--threads", "2")
    assert_parity(run, want)


def test_sharded_save_is_the_same_model(forward_tool, tmp_path):
    write("llama-gqa", tmp_path / "one")
    write("llama-gqa", tmp_path / "many", max_shard_size="60KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    sequences = prompts(97, (5, 20), seed=1)
    runs = [run_tool(forward_tool, tmp_path / d, sequences, tmp_path) for d in ("one", "many")]
    assert runs[0].raw == runs[1].raw


def test_positions_far_out(forward_tool, tmp_path):
    """RoPE angles of four-digit positions: frequencies must be torch's, or next to them."""
    model = randomize(tf.LlamaForCausalLM(tf.LlamaConfig(**llama(
        max_position_embeddings=4096, num_hidden_layers=1, hidden_size=32, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=32, rope_parameters=rope("default")))), seed=3)
    model.save_pretrained(tmp_path / "m")
    sequences = prompts(97, (3000,), seed=2)
    assert_parity(run_tool(forward_tool, tmp_path / "m", sequences, tmp_path),
                  expected(load(tmp_path / "m"), sequences))


# ---- ragged models: widths of their own in every layer ----

RAGGED_LLAMA = {"heads": [[0, 1, 2, 3, 6, 7], [], [4, 5], [0, 1, 2, 3, 4, 5, 6, 7]],
                "neurons": [50, 128, 16, 0]}
RAGGED_BERT = {"heads": [[1, 3], [0], [], [0, 1, 2, 3]], "neurons": [48, 0, 100, 20]}


def keep_rows(state, name, rows, bias):
    state[name + ".weight"] = state[name + ".weight"][rows].contiguous()
    if bias:
        state[name + ".bias"] = state[name + ".bias"][rows].contiguous()


def keep_columns(state, name, columns):
    state[name + ".weight"] = state[name + ".weight"][:, columns].contiguous()


def drop_columns_of(oracle, name, columns):
    """The oracle keeps its shape; what was cut contributes nothing."""
    w = oracle.get_parameter(name + ".weight").data
    gone = torch.ones(w.shape[1], dtype=torch.bool)
    gone[columns] = False
    w[:, gone] = 0


def save_ragged(directory, config, state, layers):
    from safetensors.torch import save_file

    directory.mkdir()
    raw = json.loads(config.to_json_string())
    raw["per_layer_config"] = layers
    raw["allow_global_per_layer_attribute_access"] = True
    (directory / "config.json").write_text(json.dumps(raw))
    save_file(state, directory / "model.safetensors", {"format": "pt"})


def dims(heads, d):
    return [h * d + i for h in heads for i in range(d)]


def ragged_llama(directory, bias):
    """Writes the ragged checkpoint, gives the oracle."""
    config = tf.LlamaConfig(**llama(num_hidden_layers=4, attention_bias=bias, mlp_bias=bias))
    config.architectures = ["LlamaForCausalLM"]
    oracle = randomize(tf.LlamaForCausalLM(config), seed=11).eval()
    oracle.set_attn_implementation("eager")
    state = {k: v.clone() for k, v in oracle.state_dict().items()}
    layers, d = {}, 8
    for i, (heads, f) in enumerate(zip(RAGGED_LLAMA["heads"], RAGGED_LLAMA["neurons"])):
        p = f"model.layers.{i}."
        groups = sorted({h // 2 for h in heads})
        neurons = list(range(128 - f, 128))
        for name in ("q_proj", "k_proj", "v_proj"):
            rows = dims(heads if name == "q_proj" else groups, d)
            keep_rows(state, p + "self_attn." + name, rows, bias)
        keep_columns(state, p + "self_attn.o_proj", dims(heads, d))
        drop_columns_of(oracle, p + "self_attn.o_proj", dims(heads, d))
        for name in ("gate_proj", "up_proj"):
            keep_rows(state, p + "mlp." + name, neurons, bias)
        keep_columns(state, p + "mlp.down_proj", neurons)
        drop_columns_of(oracle, p + "mlp.down_proj", neurons)
        layers[str(i)] = {"num_attention_heads": len(heads), "num_key_value_heads": len(groups),
                          "intermediate_size": f}
    save_ragged(directory, config, state, layers)
    return oracle


def ragged_bert(directory):
    config = tf.BertConfig(vocab_size=99, hidden_size=48, num_hidden_layers=4,
                           num_attention_heads=4, intermediate_size=100,
                           max_position_embeddings=80, num_labels=2)
    config.architectures = ["BertForSequenceClassification"]
    oracle = randomize(tf.BertForSequenceClassification(config), seed=12).eval()
    oracle.set_attn_implementation("eager")
    state = {k: v.clone() for k, v in oracle.state_dict().items()}
    layers, d = {}, 12
    for i, (heads, f) in enumerate(zip(RAGGED_BERT["heads"], RAGGED_BERT["neurons"])):
        p = f"bert.encoder.layer.{i}."
        neurons = list(range(100 - f, 100))
        for name in ("query", "key", "value"):
            keep_rows(state, p + "attention.self." + name, dims(heads, d), True)
        keep_columns(state, p + "attention.output.dense", dims(heads, d))
        drop_columns_of(oracle, p + "attention.output.dense", dims(heads, d))
        keep_rows(state, p + "intermediate.dense", neurons, True)
        keep_columns(state, p + "output.dense", neurons)
        drop_columns_of(oracle, p + "output.dense", neurons)
        layers[str(i)] = {"num_attention_heads": len(heads), "num_key_value_heads": len(heads),
                          "intermediate_size": f}
    save_ragged(directory, config, state, layers)
    return oracle


@pytest.mark.parametrize("bias", [False, True])
def test_ragged_llama(forward_tool, tmp_path, bias):
    oracle = ragged_llama(tmp_path / "m", bias)
    sequences = prompts(97, LENGTHS, seed=6)
    want = expected(oracle, sequences)
    for flags in ((), ("--chunk", "7", "--threads", "3")):
        assert_parity(run_tool(forward_tool, tmp_path / "m", sequences, tmp_path, *flags), want)


def test_ragged_bert(forward_tool, tmp_path):
    oracle = ragged_bert(tmp_path / "m")
    sequences = prompts(99, LENGTHS, seed=7)
    types = token_types(sequences)
    want = expected(oracle, sequences, types)
    run = run_tool(forward_tool, tmp_path / "m", sequences, tmp_path, types=types)
    assert_parity(run, want)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_ragged_artifact(build, forward_tool, tmp_path, family):
    """A checkpoint whose layers have widths of their own, and none at all, is packed like any."""
    sfq = build / "bin" / "sfq"
    if not sfq.exists():
        pytest.skip(f"{sfq} is not built")
    directory = tmp_path / "m"
    oracle = ragged_llama(directory, True) if family == "llama" else ragged_bert(directory)
    done = subprocess.run([sfq, "compress", directory, "-o", tmp_path / "packed", "--prune", "0",
                           "--steps", "0", "--activation-bits", "12"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sequences = prompts(97, LENGTHS, seed=6)
    run = run_tool(forward_tool, tmp_path / "packed", sequences, tmp_path)
    for got, (_, want) in zip(run.result, expected(oracle, sequences)):
        assert distance(got, want) < 0.1


# ---- published and trained models ----

@pytest.mark.parametrize("name", ["sst2-tiny", "novels-5m", "stories260K", "minilm-mrpc",
                                  "minilm-stsb"])
def test_trained_model(forward_tool, tmp_path, models, name):
    directory = models(name)
    model = load(directory)
    sequences = prompts(model.config.vocab_size, (3, 40, 128), seed=9)
    types = token_types(sequences) if model.config.model_type == "bert" else None
    run = run_tool(forward_tool, directory, sequences, tmp_path, types=types)
    assert_parity(run, expected(model, sequences, types))


# ---- sentence-transformers' files ----

def test_embedding_is_normalised_where_modules_say_so(forward_tool, tmp_path):
    write("bert-embedder", tmp_path / "m")
    modules = [{"idx": i, "name": str(i), "path": p, "type": "sentence_transformers.models." + t}
               for i, (p, t) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"),
                                           ("2_Normalize", "Normalize")])]
    sequences = prompts(99, (4, 9), seed=4)
    plain = run_tool(forward_tool, tmp_path / "m", sequences, tmp_path)
    (tmp_path / "m" / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "m" / "1_Pooling").mkdir()
    (tmp_path / "m" / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}))
    normed = run_tool(forward_tool, tmp_path / "m", sequences, tmp_path)
    for a, b in zip(plain.result, normed.result):
        assert distance(a / np.linalg.norm(a), b) < 1e-6


# ---- what is refused, by name ----

def edit_config(directory, **changes):
    path = directory / "config.json"
    raw = json.loads(path.read_text())
    raw.update(changes)
    path.write_text(json.dumps(raw))


REFUSED = {
    "architecture": ("llama-gqa", {"architectures": ["LlamaForSequenceClassification"]},
                     "LlamaForSequenceClassification"),
    "activation": ("llama-gqa", {"hidden_act": "xielu"}, "xielu"),
    "rope kind": ("llama-gqa", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}},
                  "longrope"),
    "partial rotary": ("llama-gqa", {"rope_parameters": {
        "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        "partial_rotary_factor"),
    "layer scale": ("gpt2", {"scale_attn_by_inverse_layer_idx": True},
                    "scale_attn_by_inverse_layer_idx"),
    "cross attention": ("gpt2", {"add_cross_attention": True}, "cross"),
    "decoder": ("bert-classifier", {"is_decoder": True}, "is_decoder"),
    "relative positions": ("bert-classifier", {"position_embedding_type": "relative_key"},
                           "position_embedding_type"),
    "multi label": ("bert-classifier", {"problem_type": "multi_label_classification"},
                    "multi_label_classification"),
}


def refusal(tool, directory, work):
    (work / "ids.txt").write_text("1 2 3\n")
    done = subprocess.run([tool, directory, work / "ids.txt", work / "out"], capture_output=True,
                          text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize("feature", sorted(REFUSED))
def test_unsupported_is_named(forward_tool, tmp_path, feature):
    name, changes, word = REFUSED[feature]
    write(name, tmp_path / "m")
    edit_config(tmp_path / "m", **changes)
    code, message = refusal(forward_tool, tmp_path / "m", tmp_path)
    assert code == 5 and "E_UNSUPPORTED" in message and word in message


def rewrite_tensors(directory, change):
    from safetensors.torch import load_file, save_file

    state = load_file(directory / "model.safetensors")
    change(state)
    save_file(state, directory / "model.safetensors", {"format": "pt"})


DAMAGED = {
    "missing": (lambda s: s.pop("model.layers.1.mlp.up_proj.weight"), "model.layers.1.mlp.up_proj"),
    "unknown": (lambda s: s.update({"model.layers.1.extra.weight": torch.ones(2)}), "extra"),
    "shape": (lambda s: s.update({"model.layers.0.self_attn.k_proj.weight": torch.ones(31, 64)}),
              "k_proj"),
    "bias": (lambda s: s.update({"model.layers.0.self_attn.k_proj.bias": torch.ones(32)}),
             "k_proj.bias"),
    "dtype": (lambda s: s.update({"model.norm.weight": torch.ones(64, dtype=torch.int64)}),
              "model.norm"),
    "no head": (lambda s: s.pop("lm_head.weight"), "lm_head"),
}


@pytest.mark.parametrize("damage", sorted(DAMAGED))
def test_damaged_checkpoint_is_named(forward_tool, tmp_path, damage):
    change, word = DAMAGED[damage]
    write("llama-gqa", tmp_path / "m")
    rewrite_tensors(tmp_path / "m", change)
    code, message = refusal(forward_tool, tmp_path / "m", tmp_path)
    assert code == 2 and "E_FORMAT" in message and word in message


def test_nan_in_a_norm_is_named(forward_tool, tmp_path):
    write("llama-gqa", tmp_path / "m")
    rewrite_tensors(tmp_path / "m",
                    lambda s: s["model.layers.2.input_layernorm.weight"].__setitem__(5, np.nan))
    code, message = refusal(forward_tool, tmp_path / "m", tmp_path)
    assert code == 2 and "E_NUMERIC" in message and "layers.2.input_layernorm" in message


def test_names_of_other_writers(forward_tool, tmp_path):
    """No prefix, gamma/beta for norms, stored buffers and heads that are not run."""
    sequences = prompts(97, (5, 12), seed=8)
    write("bert-classifier", tmp_path / "bert")
    plain = run_tool(forward_tool, tmp_path / "bert", sequences, tmp_path)

    def old_names(state):
        for name in list(state):
            new = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            new = new.replace("LayerNorm.bias", "LayerNorm.beta")
            state[new] = state.pop(name)
        state["bert.embeddings.position_ids"] = torch.arange(80)[None]
        state["cls.predictions.bias"] = torch.ones(99)

    rewrite_tensors(tmp_path / "bert", old_names)
    assert run_tool(forward_tool, tmp_path / "bert", sequences, tmp_path).raw == plain.raw

    write("llama-mha-bias-tied-f16", tmp_path / "llama")
    plain = run_tool(forward_tool, tmp_path / "llama", sequences, tmp_path)

    def copied_head(state):
        state["lm_head.weight"] = torch.zeros(97, 64)
        state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    rewrite_tensors(tmp_path / "llama", copied_head)
    assert run_tool(forward_tool, tmp_path / "llama", sequences, tmp_path).raw == plain.raw

    write("gpt2", tmp_path / "gpt2")
    plain = run_tool(forward_tool, tmp_path / "gpt2", sequences, tmp_path)

    def bare_names(state):
        for name in list(state):
            state[name.removeprefix("transformer.")] = state.pop(name)
        state["h.0.attn.bias"] = torch.ones(1, 1, 80, 80)
        state["h.0.attn.masked_bias"] = torch.tensor(-1e4)

    rewrite_tensors(tmp_path / "gpt2", bare_names)
    assert run_tool(forward_tool, tmp_path / "gpt2", sequences, tmp_path).raw == plain.raw
