#!/usr/bin/env python3
"""A model of a given shape under Transformers: generation with torch's own types and with packed
layers, in turns, processor time of one thread. Random weights; layers can be fewer than the
shape's.

usage: torch_generate.py [LAYERS] [TOKENS] [ROUNDS]
"""

import sys
import time

import torch
import transformers

import sfq.torch

LLAMA_1B = dict(hidden_size=2048, intermediate_size=8192, num_attention_heads=32,
                num_key_value_heads=8, head_dim=64, vocab_size=32000, max_position_embeddings=2048)


def build(layers):
    config = transformers.LlamaConfig(num_hidden_layers=layers, bos_token_id=0, eos_token_id=1,
                                      tie_word_embeddings=True, **LLAMA_1B)
    torch.manual_seed(0)
    float32 = transformers.LlamaForCausalLM(config).eval()
    models = {"float32": float32}
    bfloat16 = transformers.LlamaForCausalLM(config).eval()
    bfloat16.load_state_dict(float32.state_dict())
    models["bfloat16"] = bfloat16.to(torch.bfloat16)
    for bits in (8, 4):
        done = sfq.torch.compress(float32, bits=bits, embedding_bits=bits, progress=False)
        models[f"{bits} bits"] = done.module
        print(f"{bits} bits: {done.bytes / 1e6:.0f} MB of {done.original_bytes / 1e6:.0f} MB")
    return models


def spent(model, prompt, count):
    begin = time.process_time()
    model.generate(prompt, max_new_tokens=count, min_new_tokens=count, do_sample=False)
    return time.process_time() - begin


def main():
    layers, tokens, rounds = (int(sys.argv[i]) if len(sys.argv) > i else v
                              for i, v in ((1, 2), (2, 16), (3, 3)))
    torch.set_num_threads(1)
    sfq.torch.set_num_threads(1)
    models = build(layers)
    prompt = torch.arange(1, 33)[None]
    best = dict.fromkeys(models, float("inf"))
    for _ in range(rounds):
        for name, model in models.items():
            first = spent(model, prompt, 1)
            best[name] = min(best[name], (spent(model, prompt, tokens) - first) / (tokens - 1))
    for name, seconds in best.items():
        print(f"{name:9s} {1e3 * seconds:8.2f} ms a token, {best['bfloat16'] / seconds:.2f}x "
              "of bfloat16")


if __name__ == "__main__":
    main()
