"""A thousand lives of a model: compressed, opened, used, closed. What the process holds does not
grow with them: allocations to the byte nearly (glibc counts them in all its arenas), resident
memory, files, mappings, threads."""

import ctypes
import gc
import os
import pathlib
import tempfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from package import sfq

WARM, CYCLES = 200, 1000
SLACK = 32 << 10  # bytes allocated more, between halves 500 cycles apart: 66 each would pass it


class MallInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
                .split()]


def allocated():
    """Bytes that are allocated and not freed; 0 where the C library does not say."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0
    mallinfo.restype = MallInfo
    info = mallinfo()
    return info.uordblks + info.hblkhd


def held():
    """What this process holds."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    maps = len(pathlib.Path("/proc/self/maps").read_text().splitlines())
    return {"allocated": allocated(), "resident": resident, "maps": maps,
            "files": len(os.listdir("/proc/self/fd")),
            "threads": len(os.listdir("/proc/self/task"))}


@pytest.fixture
def folder(tmp_path):
    """In memory where that is possible: an artifact is written through to the disk each time."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="sfq-") as name:
        yield pathlib.Path(name)


@pytest.fixture
def tiny(folder):
    """A Llama of two layers and 20,000 parameters, without a tokenizer."""
    path = folder / "tiny"
    path.mkdir()
    width, ffn, vocab = 32, 96, 64
    rng = np.random.default_rng(3)
    shapes = {"model.embed_tokens": (vocab, width), "lm_head": (vocab, width), "model.norm": width}
    for i in range(2):
        layer = f"model.layers.{i}."
        shapes.update({layer + f"self_attn.{p}_proj": (width, width) for p in "qkvo"})
        shapes.update({layer + "mlp.gate_proj": (ffn, width), layer + "mlp.up_proj": (ffn, width),
                       layer + "mlp.down_proj": (width, ffn), layer + "input_layernorm": width,
                       layer + "post_attention_layernorm": width})
    save_file({name + ".weight": rng.normal(0, 0.2, shape).astype(np.float32)
               for name, shape in shapes.items()}, path / "model.safetensors")
    (path / "config.json").write_text(
        '{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": %d, '
        '"intermediate_size": %d, "num_hidden_layers": 2, "num_attention_heads": 4, '
        '"num_key_value_heads": 4, "vocab_size": %d, "max_position_embeddings": 64, '
        '"rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": false, '
        '"rope_theta": 10000.0, "bos_token_id": 0, "eos_token_id": 1}' % (width, ffn, vocab))
    return path


def grown(samples):
    """How much more the second half of some samples holds, by the least of each half: what
    resident memory fluctuates by is no leak."""
    half = len(samples) // 2
    least = [{key: min(sample[key] for sample in part) for key in samples[0]}
             for part in (samples[:half], samples[half:])]
    return {key: least[1][key] - least[0][key] for key in least[0]}


def check(growth):
    assert growth["files"] == 0 and growth["threads"] == 0
    assert growth["maps"] <= 4
    assert growth["allocated"] < SLACK
    assert growth["resident"] < 4 << 20


def test_thousand_cycles(tiny, folder):
    out = folder / "out"
    samples = []
    for cycle in range(1, CYCLES + 1):
        sfq.compress(tiny, out, prune=0, steps=0, force=True, threads=1, progress=False)
        with sfq.Model(out, threads=1) as model:
            if cycle % 10 == 0:
                model.logits([3, 5, 7])
        if cycle % 10 == 1:  # ends that are none of the usual
            with pytest.raises(sfq.ArgumentError):
                sfq.compress(tiny, out, bits=9, progress=False)
            with pytest.raises(sfq.NotFoundError):
                sfq.Model(folder / "none")
        if cycle >= WARM and cycle % 100 == 0:
            samples.append(held())
    check(grown(samples))


def test_recovered_cycles(tiny, folder):
    """The whole recipe, whose stages train and write journals, forty times."""
    samples = []
    for cycle in range(1, 41):
        sfq.compress(tiny, folder / "out", prune=0.3, steps=2, rounds=1, calib_tokens=320,
                     calib_length=16, force=True, threads=1, progress=False)
        if cycle >= 10 and cycle % 3 == 1:
            samples.append(held())
    check(grown(samples))
    assert not list(folder.glob("out.*"))
