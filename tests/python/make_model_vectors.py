"""Writes tests/model/vectors: one tiny Llama and one tiny BERT with what Transformers computes on
them (float32, eager attention), so that the C tests need no Python.

    OMP_NUM_THREADS=1 python tests/python/make_model_vectors.py
"""

import pathlib

import numpy as np
import torch
import transformers as tf
from safetensors.numpy import save_file

from oracle import expected, load, prompts, randomize

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "model" / "vectors"
LENGTHS = (9, 1, 40)


def llama():
    return tf.LlamaForCausalLM(tf.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, rope_parameters={
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 16}))


def bert():
    return tf.BertForSequenceClassification(tf.BertConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=48, num_labels=3))


def main():
    for name, make, seed in (("llama", llama, 41), ("bert", bert, 42)):
        directory = FOLDER / name
        randomize(make(), seed).half().save_pretrained(directory)
        (directory / "generation_config.json").unlink(missing_ok=True)
        sequences = prompts(40, LENGTHS, seed)
        types = [[int(i > 3) for i in range(len(s))] for s in sequences] if name == "bert" else None
        want = expected(load(directory), sequences, types)
        results = [r if r.ndim == 2 else r[None] for _, r in want]
        save_file({
            "ids": np.concatenate(sequences).astype(np.int64),
            "types": np.concatenate(types or [[0] * len(s) for s in sequences]).astype(np.int64),
            "lengths": np.array(LENGTHS, dtype=np.int64),
            "hidden": np.concatenate([h for h, _ in want], axis=1),
            "result": np.concatenate(results),
        }, directory / "expected.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
