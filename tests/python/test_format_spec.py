"""A second reader of the artifact, written from docs/FORMAT.md ("Packed weights") and from nothing
else, against the engine's own decoder: every float32 weight must be the same, bit by bit."""

import json
import struct
import subprocess

import numpy as np
import pytest

# ---- the reader: from docs/FORMAT.md alone -------------------------------------------------------

DTYPES = {"U8": np.uint8, "F16": np.float16, "F32": np.float32}


def read_tensors(path):
    raw = path.read_bytes()
    (n,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + n])
    header.pop("__metadata__", None)
    for name, t in header.items():
        begin, end = t["data_offsets"]
        data = np.frombuffer(raw[8 + n + begin : 8 + n + end], DTYPES[t["dtype"]])
        yield name, data.reshape(t["shape"])


def unpack_rows(s, b):
    """s [..., stored rows of a group, 64] -> the group's rows [..., rows, 64]"""
    r = [s[..., i, :].astype(int) for i in range(s.shape[-2])]
    if b == 8:
        rows = r
    elif b == 7:
        rows = [x & 127 for x in r] + [sum((x >> 7) << i for i, x in enumerate(r))]
    elif b == 6:
        rows = [x & 63 for x in r] + [sum((x >> 6) << (2 * i) for i, x in enumerate(r))]
    elif b == 5:
        t = [x >> 5 for x in r]
        rows = [x & 31 for x in r] + [t[0] + 8 * (t[3] & 3), t[1] + 8 * (t[4] & 3)]
        rows.append(t[2] + 8 * (t[3] >> 2) + 16 * (t[4] >> 2))
    elif b == 3:
        t = [x >> 6 for x in r]
        rows = [x & 7 for x in r] + [x >> 3 & 7 for x in r]
        rows += [t[0] + 4 * (t[2] & 1), t[1] + 4 * (t[2] >> 1)]
    else:  # 4 and 2: fields of b bits, each of them all stored rows
        rows = [x >> shift & (2**b - 1) for shift in range(0, 8, b) for x in r]
    return np.stack(rows, -2)


GROUP = {8: 16, 7: 7, 6: 3, 5: 5, 4: 8, 3: 3, 2: 4}  # stored rows of one group


def decode(codes, scales, entry):
    (n, k), b = entry["shape"], entry["bits"]
    panels, blocks = -(-n // 16), -(-k // 64)
    stored = codes.reshape(panels, blocks, -1, GROUP[b], 64)
    rows = unpack_rows(stored, b).reshape(panels, blocks, 16, 16, 4)  # [K/4][output][input]
    q = rows.transpose(0, 3, 1, 2, 4).reshape(16 * panels, 64 * blocks)[:n, :k] - 2 ** (b - 1)
    out, inp = np.arange(n)[:, None], np.arange(k)[None]
    s = scales[out // 16, inp // entry["segment_k"], out % 16 // entry["share"]]
    return s.astype(np.float32) * q.astype(np.float32)


# ---- the test ------------------------------------------------------------------------------------

HIDDEN, FFN, VOCAB = 96, 2500, 50  # share 4; 3 segments, the last one short; padding in N and K


def write_model(path, tiny):
    rng = np.random.default_rng(5)
    scale = 1e-6 if tiny else 0.05  # tiny weights need F32 scales
    tensors = {"model.embed_tokens.weight": rng.normal(size=(VOCAB, HIDDEN)) * scale}
    tensors["model.norm.weight"] = np.ones(HIDDEN)
    for name in ("input_layernorm", "post_attention_layernorm"):
        tensors[f"model.layers.0.{name}.weight"] = np.ones(HIDDEN)
    shapes = {"q": (96, 96), "k": (48, 96), "v": (48, 96), "o": (96, 96)}
    for name, shape in shapes.items():
        tensors[f"model.layers.0.self_attn.{name}_proj.weight"] = rng.normal(size=shape) * scale
    for name, shape in {"gate": (FFN, 96), "up": (FFN, 96), "down": (96, FFN)}.items():
        tensors[f"model.layers.0.mlp.{name}_proj.weight"] = rng.normal(size=shape) * scale
    tensors["model.layers.0.self_attn.v_proj.weight"][3:7] = 0  # one cluster of zeros
    path.mkdir()
    header, data = {}, b""
    for name, t in tensors.items():
        t = t.astype(np.float32)
        offsets = [len(data), len(data) + t.nbytes]
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": offsets}
        data += t.tobytes()
    text = json.dumps(header).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    }
    (path / "config.json").write_text(json.dumps(config))
    return tensors


@pytest.fixture(scope="module")
def tools(build):
    sfq, dequant = build / "bin" / "sfq", build / "bin" / "sfq-test-dequant"
    if not (sfq.exists() and dequant.exists()):
        pytest.skip("sfq and sfq-test-dequant are not built")
    return sfq, dequant


@pytest.mark.parametrize("tiny", [False, True], ids=["f16-scales", "f32-scales"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_second_reader(tools, tmp_path, bits, tiny):
    sfq, dequant = tools
    original = write_model(tmp_path / "in", tiny)
    command = [sfq, "compress", tmp_path / "in", "-o", tmp_path / "out", "--prune", "0"]
    command += ["--steps", "0", "--bits", str(bits), "--embedding-bits", str(bits)]
    subprocess.run(command, check=True, capture_output=True)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    tensors = dict(read_tensors(tmp_path / "out" / "model.safetensors"))
    assert len(config["tensors"]) == 8
    seen, decoded = set(), {}
    for name, entry in config["tensors"].items():
        ours = decode(tensors[f"{name}.codes"], tensors[f"{name}.scales"], entry)
        assert tensors[f"{name}.scales"].dtype == (np.float32 if tiny else np.float16)
        run = subprocess.run([dequant, tmp_path / "out", name], check=True, capture_output=True)
        engine = np.frombuffer(run.stdout, np.float32).reshape(entry["shape"])
        assert ours.tobytes() == engine.tobytes(), name
        decoded[name] = ours
        seen.add((entry["segments"], entry["share"]))
    assert seen == {(1, 4), (3, 1)}
    assert_close(original, decoded, bits)


def assert_close(original, decoded, bits):
    """Neurons may come in another order than the original's, one order for gate, up and down."""
    mlp = "model.layers.0.mlp."
    gate, ours = original[f"{mlp}gate_proj.weight"], decoded[f"{mlp}gate_proj"]
    order = (gate @ ours.T).argmax(0)  # the original's row that each of ours is most like
    assert sorted(order) == list(range(FFN))
    limit = {8: 1e-4, 7: 4e-4, 6: 1.6e-3, 5: 6e-3, 4: 2e-2, 3: 6e-2, 2: 2e-1}[bits]
    for name, ours in decoded.items():
        w = original[f"{name}.weight"]
        if name.startswith(mlp):
            w = w[:, order] if name.endswith("down_proj") else w[order]
        assert ((w - ours) ** 2).sum() / (w**2).sum() < limit, name
