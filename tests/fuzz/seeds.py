#!/usr/bin/env python3
"""Writes the committed corpus of the fuzz targets (tests/fuzz/corpus): small valid inputs and
damaged ones, from which libFuzzer goes on. With the path of sfq as argument also the artifacts that
it makes of the tiny dense models. Same bytes each time."""

import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CORPUS = HERE / "corpus"


def safetensors(tensors, metadata=None, pad=0):
    """tensors: name -> (dtype, shape, bytes), in file order."""
    header, at = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode() + b" " * pad
    return struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values())


def halves(rng, *shape):
    count = 1
    for n in shape:
        count *= n
    values = [rng.uniform(-1, 1) for _ in range(count)]
    return ("F16", list(shape), struct.pack(f"<{count}e", *values))


def put(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def seeds_safetensors(rng):
    good = safetensors({"a.weight": halves(rng, 4, 3), "b": ("U8", [5], b"\1\2\3\4\5"),
                        "scalar": ("F32", [], b"\0\0\200?")}, {"format": "pt"}, 7)
    put("safetensors", "valid", good)
    put("safetensors", "empty", safetensors({}))
    put("safetensors", "zero-dim", safetensors({"z": ("F32", [0, 8], b"")}))
    put("safetensors", "truncated", good[:-3])
    put("safetensors", "long-header", struct.pack("<Q", 1 << 60) + good[8:])
    put("safetensors", "overlap", good.replace(b"[24,29]", b"[23,28]"))
    put("safetensors", "huge-shape",
        good.replace(b'"shape":[5]', b'"shape":[9223372036854775807,4]'))
    put("safetensors", "duplicate", good.replace(b'"b":', b'"a.weight":'))
    put("safetensors", "deep", struct.pack("<Q", 400) + b"[" * 400)


LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16,
         "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 8, "max_position_embeddings": 32,
         "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True,
         "bos_token_id": 0, "eos_token_id": 1, "rope_theta": 10000.0}
BERT = {"architectures": ["BertForSequenceClassification"], "model_type": "bert",
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "vocab_size": 8, "type_vocab_size": 2,
        "max_position_embeddings": 16, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
        "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}


def seeds_config(_rng):
    def write(name, base, **changes):
        put("config", name, json.dumps({**base, **changes}, indent=1).encode())

    write("llama", LLAMA)
    write("bert", BERT)
    write("llama3-rope", LLAMA, rope_scaling={
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192})
    write("yarn-v5", LLAMA, rope_parameters={
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
        "original_max_position_embeddings": 16})
    write("qwen2-window", {**LLAMA, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]},
          use_sliding_window=True, sliding_window=8, max_window_layers=0)
    write("smollm3", {**LLAMA, "model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"]},
          no_rope_layers=[0])
    write("gpt2", {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 16,
                   "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 8,
                   "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5})
    write("distilbert", {"model_type": "distilbert", "dim": 16, "hidden_dim": 32, "n_layers": 1,
                         "n_heads": 2, "vocab_size": 8, "max_position_embeddings": 16,
                         "architectures": ["DistilBertForSequenceClassification"],
                         "activation": "gelu"})
    write("absurd", LLAMA, num_hidden_layers=10**12, hidden_size=-1)
    write("ragged", LLAMA, num_hidden_layers=2, allow_global_per_layer_attribute_access=True,
          per_layer_config={"1": {"intermediate_size": 16}})
    write("sfq", LLAMA, quantization_config={
        "quant_method": "sfq", "version": 1, "original_parameters": 1000,
        "layers": [{"heads": 2, "kv_heads": 1, "ffn": 32}],
        "tensors": {"model.layers.0.mlp.up_proj": {"bits": 8, "shape": [32, 16],
                                                   "segments": 1, "share": 16}}})


def seeds_tokenizer(_rng):
    def write(name, text, **parts):
        whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
                 "normalizer": None, "pre_tokenizer": None, "post_processor": None,
                 "decoder": None, **parts}
        put("tokenizer", name, text.encode() + b"\n" + json.dumps(whole).encode())

    special = [{"id": 0, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True}]
    bpe = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
           "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
           "vocab": {"<s>": 0, "a": 1, "b": 2, "ab": 3, "\u0120": 4, "\u0120a": 5},
           "merges": [["a", "b"], ["\u0120", "a"]]}
    write("bpe-bytes", "ab ab a", added_tokens=special, model=bpe,
          pre_tokenizer={"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                         "use_regex": True},
          decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                   "use_regex": True},
          post_processor={"type": "TemplateProcessing",
                          "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                     {"Sequence": {"id": "A", "type_id": 0}}],
                          "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                                   {"Sequence": {"id": "B", "type_id": 1}}],
                          "special_tokens": {"<s>": {"id": "<s>", "ids": [0],
                                                     "tokens": ["<s>"]}}})
    split = {"type": "Split", "pattern": {"Regex": "\\p{L}+| ?[^\\s]+|\\s+(?!\\S)"},
             "behavior": "Isolated", "invert": False}
    write("bpe-split", "ab  a\u00e9b", model=bpe, normalizer={"type": "NFC"},
          pre_tokenizer={"type": "Sequence", "pretokenizers": [
              split, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                      "use_regex": False}]})
    write("wordpiece", "Hello, wor\u00eeld", added_tokens=[],
          normalizer={"type": "BertNormalizer", "clean_text": True,
                      "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
          pre_tokenizer={"type": "BertPreTokenizer"},
          decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
          model={"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                 "max_input_chars_per_word": 100,
                 "vocab": {"[UNK]": 0, "hello": 1, "wor": 2, "##ild": 3, ",": 4}})
    write("unigram", "ab abc",
          pre_tokenizer={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always",
                         "split": True},
          decoder={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always",
                   "split": True},
          model={"type": "Unigram", "unk_id": 0, "byte_fallback": False,
                 "vocab": [["<unk>", 0.0], ["\u2581", -1.0], ["a", -2.0], ["b", -2.5],
                           ["ab", -2.2], ["\u2581ab", -1.5]]})
    write("bpe-fallback", "a\u20acb", decoder={"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
          normalizer={"type": "Sequence", "normalizers": [
              {"type": "Prepend", "prepend": "\u2581"},
              {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
          model={**bpe, "byte_fallback": True, "unk_token": "<s>",
                 "vocab": {"<s>": 0, "<0xE2>": 1, "<0x82>": 2, "<0xAC>": 3, "a": 4, "b": 5,
                           "\u2581": 6}, "merges": []})
    write("unknown-part", "a", normalizer={"type": "Nonsense"}, model=bpe)


def model_llama(rng, width):
    """One layer: two heads, one KV head, an FFN of twice the width, eight words."""
    p = "model.layers.0."
    d, kv, f = width, width // 2, 2 * width
    config = {**LLAMA, "hidden_size": d, "head_dim": kv, "intermediate_size": f}
    shapes = {"model.embed_tokens.weight": (8, d), p + "input_layernorm.weight": (d,),
              p + "self_attn.q_proj.weight": (d, d), p + "self_attn.k_proj.weight": (kv, d),
              p + "self_attn.v_proj.weight": (kv, d), p + "self_attn.o_proj.weight": (d, d),
              p + "post_attention_layernorm.weight": (d,), p + "mlp.gate_proj.weight": (f, d),
              p + "mlp.up_proj.weight": (f, d), p + "mlp.down_proj.weight": (d, f),
              "model.norm.weight": (d,)}
    return config, safetensors({n: halves(rng, *s) for n, s in shapes.items()}, {"format": "pt"})


def pack(config, weights):
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    return struct.pack("<H", len(text)) + text + weights


def seeds_artifact(rng, sfq):
    config, weights = model_llama(rng, 16)
    good = pack(config, weights)
    put("artifact", "llama", good)
    put("artifact", "llama-wide", pack({**config, "intermediate_size": 48}, weights))
    put("artifact", "llama-two-layers", pack({**config, "num_hidden_layers": 2}, weights))
    put("artifact", "llama-cut", good[:-100])
    put("artifact", "llama-nan", good[:-2] + b"\x00\x7e")
    if sfq is None:
        return
    config, weights = model_llama(rng, 64)  # below a width of 64 padding makes packing useless
    for bits in (8, 3):
        with tempfile.TemporaryDirectory() as scratch:
            model, out = pathlib.Path(scratch, "m"), pathlib.Path(scratch, "out")
            model.mkdir()
            (model / "config.json").write_text(json.dumps(config))
            (model / "model.safetensors").write_bytes(weights)
            (model / "tokenizer.json").write_text(TOKENIZER)
            subprocess.run([sfq, "compress", str(model), "-o", str(out), "--prune", "0", "--steps",
                            "0", "--bits", str(bits), "--embedding-bits", str(bits), "-q"],
                           check=True, stdout=subprocess.DEVNULL)
            put("artifact", f"sfq-{bits}-bits", pack((out / "config.json").read_bytes(),
                                                     (out / "model.safetensors").read_bytes()))


TOKENIZER = json.dumps({
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
    "model": {"type": "WordPiece", "unk_token": "u", "continuing_subword_prefix": "##",
              "max_input_chars_per_word": 100, "vocab": {"u": 0, "a": 1, "b": 2, "##b": 3}}})


def main():
    seeds_safetensors(random.Random(1))
    seeds_config(random.Random(2))
    seeds_tokenizer(random.Random(3))
    seeds_artifact(random.Random(4), sys.argv[1] if len(sys.argv) > 1 else None)


if __name__ == "__main__":
    main()
