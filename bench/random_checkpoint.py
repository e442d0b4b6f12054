#!/usr/bin/env python3
"""Write a Llama-architecture checkpoint of random F16 weights, for timing only.

    bench/random_checkpoint.py OUT_DIR [--hidden 768 --layers 12 --ffn 2048 --heads 12 --kv-heads 4
                                        --vocab 32000 --seed 0]

The defaults give about 100 million parameters. There is no tokenizer: `sfq bench` needs none.
"""

import argparse
import json
import pathlib
import struct

import numpy as np


def tensors(a):
    """Names and shapes in file order."""
    d = a.hidden // a.heads
    yield "model.embed_tokens.weight", (a.vocab, a.hidden)
    for i in range(a.layers):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (a.hidden,)
        yield p + "mlp.down_proj.weight", (a.hidden, a.ffn)
        yield p + "mlp.gate_proj.weight", (a.ffn, a.hidden)
        yield p + "mlp.up_proj.weight", (a.ffn, a.hidden)
        yield p + "post_attention_layernorm.weight", (a.hidden,)
        yield p + "self_attn.k_proj.weight", (a.kv_heads * d, a.hidden)
        yield p + "self_attn.o_proj.weight", (a.hidden, a.hidden)
        yield p + "self_attn.q_proj.weight", (a.hidden, a.hidden)
        yield p + "self_attn.v_proj.weight", (a.kv_heads * d, a.hidden)
    yield "model.norm.weight", (a.hidden,)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("out", type=pathlib.Path)
    for name, default in (("hidden", 768), ("layers", 12), ("ffn", 2048), ("heads", 12),
                          ("kv-heads", 4), ("vocab", 32000), ("seed", 0)):
        p.add_argument(f"--{name}", type=int, default=default)
    a = p.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": a.hidden,
        "intermediate_size": a.ffn, "num_hidden_layers": a.layers,
        "num_attention_heads": a.heads, "num_key_value_heads": a.kv_heads,
        "vocab_size": a.vocab, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": True,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float16",
    }
    (a.out / "config.json").write_text(json.dumps(config, indent=1) + "\n")

    header, at, count = {"__metadata__": {"format": "pt"}}, 0, 0
    shapes = list(tensors(a))
    for name, shape in shapes:
        n = int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + 2 * n]}
        at += 2 * n
        count += n
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 64)
    rng = np.random.default_rng(a.seed)
    with open(a.out / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes:
            if len(shape) == 1:
                values = np.ones(shape, np.float16)
            else:
                values = (rng.standard_normal(shape, np.float32) * 0.02).astype(np.float16)
            f.write(values.tobytes())
    print(f"{a.out}: {count} parameters, {8 + len(text) + at} bytes")


if __name__ == "__main__":
    main()
