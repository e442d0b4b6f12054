"""One prompt, one result, bit by bit: alone or in a batch, at any thread count, however the prompt
is cut into calls. Dense models at level amx: calls of up to 8 tokens on a cache have one result and
all others have one; the two differ in the last bits."""

import subprocess

import numpy as np
import pytest
import torch
import transformers as tf

from oracle import distance, prompts, randomize, run_tool

LENGTHS = (1, 3, 64, 65, 100, 17, 128, 2, 40, 63, 90, 7, 33, 12, 150, 66)
WAYS = [("--threads", "2"), ("--threads", "3"), ("--single",), ("--single", "--threads", "3"),
        ("--kv",), ("--chunk", "7"), ("--chunk", "1", "--threads", "2"),
        ("--chunk", "64", "--threads", "3", "--single")]


# As above, and which side of 8 tokens the calls are on: all sequences of a batch count.
MANY_TOKENS = [w for w in WAYS if "--chunk" not in w] + [("--chunk", "64", "--threads", "3")]
FEW_TOKENS = [("--chunk", "7", "--single"), ("--chunk", "1", "--single", "--threads", "2"),
              ("--chunk", "8", "--single", "--threads", "3")]


def write_llama(directory):
    config = tf.LlamaConfig(
        vocab_size=300, hidden_size=192, intermediate_size=400, num_hidden_layers=2,
        num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=256,
        tie_word_embeddings=True, sliding_window=None)
    randomize(tf.LlamaForCausalLM(config), seed=21).half().save_pretrained(directory)


def write_mistral(directory):
    config = tf.MistralConfig(
        vocab_size=300, hidden_size=96, intermediate_size=176, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        sliding_window=70)
    randomize(tf.MistralForCausalLM(config), seed=22).to(torch.bfloat16).save_pretrained(directory)


def write_gpt2(directory):
    config = tf.GPT2Config(vocab_size=300, n_embd=96, n_layer=2, n_head=4, n_positions=256)
    randomize(tf.GPT2LMHeadModel(config), seed=23).save_pretrained(directory)


def write_bert(directory):
    config = tf.BertConfig(vocab_size=300, hidden_size=96, num_hidden_layers=2,
                           num_attention_heads=4, intermediate_size=200,
                           max_position_embeddings=256)
    randomize(tf.BertForSequenceClassification(config), seed=24).half().save_pretrained(directory)


WRITERS = {"llama": write_llama, "mistral": write_mistral, "gpt2": write_gpt2, "bert": write_bert}


def ways_of(name):
    """An encoder has no cache."""
    return [w for w in WAYS if name != "bert" or ("--kv" not in w and "--chunk" not in w)]


def check_ways(tool, directory, work, isa, ways):
    sequences = prompts(300, LENGTHS, seed=31)
    first = run_tool(tool, directory, sequences, work, *isa)
    for way in ways:
        again = run_tool(tool, directory, sequences, work, *isa, *way)
        assert again.raw == first.raw, f"{way} changes the result"


@pytest.fixture(scope="module", params=sorted(WRITERS))
def dense(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    WRITERS[request.param](directory)
    return request.param, directory


@pytest.mark.parametrize("isa", ["avx512vnni", "ref"])
def test_dense(dense, forward_tool, tmp_path, isa):
    name, directory = dense
    check_ways(forward_tool, directory, tmp_path, ("--isa", isa), ways_of(name))


def test_dense_at_amx(dense, forward_tool, tmp_path):
    name, directory = dense
    sequences = prompts(300, LENGTHS, seed=31)
    many = run_tool(forward_tool, directory, sequences, tmp_path)
    if many.info["isa"] != "amx":
        pytest.skip("no AMX here")
    for way in [w for w in MANY_TOKENS if w in ways_of(name) or "64" in w and name != "bert"]:
        again = run_tool(forward_tool, directory, sequences, tmp_path, *way)
        assert again.raw == many.raw, f"{way} changes the result"
    if name == "bert":
        return
    few = [run_tool(forward_tool, directory, sequences, tmp_path, *way) for way in FEW_TOKENS]
    assert few[1].raw == few[0].raw and few[2].raw == few[0].raw
    assert (few[0].raw == many.raw) == (name == "gpt2")  # F32 weights: AVX-512 for any rows
    assert all(distance(a, b) < 1e-5 for a, b in zip(few[0].result, many.result))


@pytest.mark.parametrize("name, bits, near", [
    ("llama", 8, 0.05), ("llama", 5, 0.3), ("mistral", 8, 0.05), ("gpt2", 8, 0.05),
    ("bert", 8, 0.05)])
def test_packed(build, forward_tool, tmp_path, name, bits, near):
    """The artifact keeps the law, and is near the model that it was made from."""
    sfq = build / "bin" / "sfq"
    if not sfq.exists():
        pytest.skip(f"{sfq} is not built")
    WRITERS[name](tmp_path / "dense")
    done = subprocess.run(
        [sfq, "compress", tmp_path / "dense", "-o", tmp_path / "packed", "--prune", "0", "--bits",
         str(bits), "--steps", "0"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sequences = prompts(300, LENGTHS, seed=31)
    dense = run_tool(forward_tool, tmp_path / "dense", sequences, tmp_path)
    packed = run_tool(forward_tool, tmp_path / "packed", sequences, tmp_path)
    a, b = (np.concatenate([r.ravel() for r in run.result]) for run in (packed, dense))
    assert 1e-6 < np.linalg.norm(a - b) / np.linalg.norm(b) < near
    check_ways(forward_tool, tmp_path / "packed", tmp_path, (), ways_of(name))
    if name != "bert":
        check_ways(forward_tool, tmp_path / "packed", tmp_path, ("--kv-bits", "8"), ways_of(name))
