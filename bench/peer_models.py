#!/usr/bin/env python3
"""The shapes that bench/peers.py times, written as the files that each program reads. Random
weights: what is computed has no meaning, what it costs is that of a real model. Runs under the
Python of peers.py's own environment.

    peer_models.py gguf OUT.gguf            llama-1b, F16, tokenizer model "none"
    peer_models.py artifact OUT_DIR         llama-1b, 8 bits, as `sfq compress` lays it out
    peer_models.py encoder SHAPE OUT_DIR    bert-base or minilm: ONNX (F32, int8), OpenVINO int8,
                                            CTranslate2 int8
"""

import json
import pathlib
import shutil
import struct
import sys

import numpy as np

LLAMA = dict(hidden=2048, ffn=8192, layers=16, heads=32, kv=8, dim=64, vocab=32000)
BERT = {"bert-base": dict(hidden=768, ffn=3072, layers=12, heads=12),
        "minilm": dict(hidden=384, ffn=1536, layers=6, heads=12)}
SEED = 0


def bent(rng, count, exponent):
    """F16 numbers of either sign and a magnitude in [2^e, 2^(e+1)), as runtime/random_weights.c."""
    bits = rng.integers(0, 1 << 16, count, np.uint16)
    return ((bits & 0x83FF) | ((exponent + 15) << 10)).astype(np.uint16).view(np.float16)


def weights(rng, *shape):
    return bent(rng, int(np.prod(shape)), -6).reshape(shape)


# ---- llama.cpp ----------------------------------------------------------------------------------

def gguf(out):
    from gguf import GGUFWriter, LlamaFileType
    s, rng = LLAMA, np.random.default_rng(SEED)
    c, f, kv = s["hidden"], s["ffn"], s["kv"] * s["dim"]
    w = GGUFWriter(out, "llama", use_temp_file=False)
    w.add_name("random llama-1b")
    w.add_context_length(8192)
    w.add_embedding_length(c)
    w.add_block_count(s["layers"])
    w.add_feed_forward_length(f)
    w.add_head_count(s["heads"])
    w.add_head_count_kv(s["kv"])
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(10000.0)
    w.add_rope_dimension_count(s["dim"])
    w.add_vocab_size(s["vocab"])
    w.add_file_type(LlamaFileType.MOSTLY_F16)
    w.add_tokenizer_model("none")
    w.add_tensor("token_embd.weight", weights(rng, s["vocab"], c))
    w.add_tensor("output_norm.weight", np.ones(c, np.float32))
    w.add_tensor("output.weight", weights(rng, s["vocab"], c))
    for i in range(s["layers"]):
        p = f"blk.{i}."
        for name, n, k in (("attn_q", c, c), ("attn_k", kv, c), ("attn_v", kv, c),
                           ("attn_output", c, c), ("ffn_gate", f, c), ("ffn_up", f, c),
                           ("ffn_down", c, f)):
            w.add_tensor(p + name + ".weight", weights(rng, n, k))
        w.add_tensor(p + "attn_norm.weight", np.ones(c, np.float32))
        w.add_tensor(p + "ffn_norm.weight", np.ones(c, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


# ---- sfq ----------------------------------------------------------------------------------------

def clusters(n, k):
    """docs/FORMAT.md, "Clusters", for K >= 334."""
    kb = max(1, k // 512)
    segment = 1024 if k >= 2048 else -(-(-(-k // kb)) // 64) * 64
    return dict(shape=[n, k], segments=-(-k // segment), segment_k=segment, share=1)


def llama_matrices():
    """Name, outputs, inputs, and the bits of the inputs as `sfq compress` chooses them at 8 bits."""
    s = LLAMA
    c, f, kv = s["hidden"], s["ffn"], s["kv"] * s["dim"]
    yield "lm_head", s["vocab"], c, 12
    yield "model.embed_tokens", s["vocab"], c, 12
    for i in range(s["layers"]):
        p = f"model.layers.{i}."
        for name, n, k in (("mlp.down_proj", c, f), ("mlp.gate_proj", f, c), ("mlp.up_proj", f, c),
                           ("self_attn.k_proj", kv, c), ("self_attn.o_proj", c, c),
                           ("self_attn.q_proj", c, c), ("self_attn.v_proj", kv, c)):
            yield p + name, n, k, 12 if name == "mlp.down_proj" else 8


def artifact(out, tokenizer):
    """8 bits; the tokenizer is that of a small model (its ids fit), so that `sfq run` can read."""
    s, rng, bits = LLAMA, np.random.default_rng(SEED), 8
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    matrices = sorted(llama_matrices())
    tensors = {name: dict(clusters(n, k), bits=bits, activation_bits=act)
               for name, n, k, act in matrices}
    parts, norms = [], ["model.norm.weight"]
    norms += [f"model.layers.{i}.{n}.weight" for i in range(s["layers"])
              for n in ("input_layernorm", "post_attention_layernorm")]
    for name, n, k, _ in matrices:
        parts.append((name + ".codes", "U8", [-(-n // 16), -(-k // 64), 128 * bits]))
    for name, n, _, _ in matrices:
        parts.append((name + ".scales", "F16", [-(-n // 16), tensors[name]["segments"], 16]))
    parts += [(name, "F16", [s["hidden"]]) for name in sorted(norms)]
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape in parts:
        size = int(np.prod(shape)) * (1 if dtype == "U8" else 2)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    with open(out / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, dtype, shape in parts:
            count = int(np.prod(shape))
            if dtype == "U8":
                file.write(rng.integers(0, 256, count, np.uint8).tobytes())
            elif name.endswith(".scales"):
                file.write(bent(rng, count, -4 - bits).tobytes())
            else:
                file.write(np.ones(count, np.float16).tobytes())
    parameters = sum(n * k for _, n, k, _ in matrices) + len(norms) * s["hidden"]
    layer = {"heads": s["heads"], "kv_heads": s["kv"], "ffn": s["ffn"]}
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": s["hidden"],
        "intermediate_size": s["ffn"], "num_hidden_layers": s["layers"],
        "num_attention_heads": s["heads"], "num_key_value_heads": s["kv"],
        "vocab_size": s["vocab"], "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": 2,
        "quantization_config": {
            "quant_method": "sfq", "version": 1, "original_parameters": parameters,
            "layers": [layer] * s["layers"], "tensors": tensors,
            "shapes": {name: t["shape"] for name, t in tensors.items()}}}
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(pathlib.Path(tokenizer) / name, out / name)


# ---- encoders -----------------------------------------------------------------------------------

def make_bert(shape):
    import torch
    from transformers import BertConfig, BertModel
    s = BERT[shape]
    torch.manual_seed(SEED)
    config = BertConfig(vocab_size=30522, hidden_size=s["hidden"], num_hidden_layers=s["layers"],
                        num_attention_heads=s["heads"], intermediate_size=s["ffn"],
                        max_position_embeddings=512, attn_implementation="eager",
                        position_embedding_type="absolute")  # CTranslate2 asks for it
    return BertModel(config, add_pooling_layer=False).eval()


def export_onnx(model, path):
    import torch

    class Hidden(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = model

        def forward(self, input_ids, attention_mask):
            return self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    ids = torch.ones(2, 16, dtype=torch.long)
    axes = {0: "batch", 1: "length"}
    torch.onnx.export(Hidden(), (ids, ids), str(path), dynamo=False, opset_version=17,
                      input_names=["input_ids", "attention_mask"], output_names=["hidden"],
                      dynamic_axes={"input_ids": axes, "attention_mask": axes, "hidden": axes})


def quantize_onnx(folder, shape):
    """Dynamic int8, of the graph as exported and of the graph with fused attention."""
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model
    s = BERT[shape]
    fused = optimize_model(str(folder / "f32.onnx"), model_type="bert", num_heads=s["heads"],
                           hidden_size=s["hidden"], opt_level=0)
    fused.save_model_to_file(str(folder / "fused.onnx"))
    for graph in ("f32", "fused"):
        for prefix, kind in (("int8", QuantType.QInt8), ("uint8", QuantType.QUInt8)):
            quantize_dynamic(str(folder / f"{graph}.onnx"), str(folder / f"{prefix}-{graph}.onnx"),
                             weight_type=kind,
                             extra_options={"DefaultTensorType": TensorProto.FLOAT})


def quantize_openvino(folder, shape):
    """Weights and activations to int8 (NNCF, calibrated on random ids); weights alone to int8."""
    import nncf
    import openvino as ov
    rng = np.random.default_rng(SEED)
    items = [rng.integers(1, 30522, (1, 64)) for _ in range(16)]
    data = nncf.Dataset(items, lambda ids: {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    core = ov.Core()
    model = core.read_model(str(folder / "f32.onnx"))
    full = nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=16)
    ov.save_model(full, str(folder / "openvino-int8.xml"))
    light = nncf.compress_weights(core.read_model(str(folder / "f32.onnx")),
                                  mode=nncf.CompressWeightsMode.INT8_SYM)
    ov.save_model(light, str(folder / "openvino-weights.xml"))


def convert_ctranslate2(model, folder):
    from ctranslate2.converters import TransformersConverter
    source = folder / "hf"
    model.save_pretrained(source)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"w{i}" for i in range(30522 - len(words))]
    (source / "vocab.txt").write_text("\n".join(words) + "\n")
    (source / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    TransformersConverter(str(source)).convert(str(folder / "ct2"), quantization="int8", force=True)


def encoder(shape, out):
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    model = make_bert(shape)
    export_onnx(model, folder / "f32.onnx")
    quantize_onnx(folder, shape)
    quantize_openvino(folder, shape)
    convert_ctranslate2(model, folder)


if __name__ == "__main__":
    commands = {"gguf": gguf, "artifact": artifact, "encoder": encoder}
    commands[sys.argv[1]](*sys.argv[2:])
