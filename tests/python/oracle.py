"""Transformers in float32 with eager attention, and sfq-test-forward, on the same token ids."""

import json
import subprocess

import numpy as np
import torch
import transformers

torch.set_num_threads(1)
TOLERANCE = 1e-4


def auto_class(directory):
    config = json.loads((directory / "config.json").read_text())
    return getattr(transformers, config["architectures"][0])


def load(directory):
    model = auto_class(directory).from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def expected(model, sequences, types=None):
    """Per sequence: hidden states [layers+1, T, C], and logits [T, V], [labels] or the mean [C]."""
    out = []
    for i, ids in enumerate(sequences):
        kwargs = {"input_ids": torch.tensor([ids]), "output_hidden_states": True}
        if types is not None:
            kwargs["token_type_ids"] = torch.tensor([types[i]])
        if hasattr(model.config, "use_cache"):
            kwargs["use_cache"] = False
        if model.config.model_type in ("bert", "distilbert"):
            kwargs.pop("use_cache", None)
        with torch.no_grad():
            r = model(**kwargs)
        hidden = torch.stack([h[0] for h in r.hidden_states]).numpy()
        result = r.logits[0].numpy() if "logits" in r else hidden[-1].mean(axis=0)
        out.append((hidden, result))
    return out


class Run:
    """What the tool computed; `hidden[i]` and `result[i]` belong to sequence i."""

    def __init__(self, info, hidden, result, sequences):
        ends = np.cumsum([len(s) for s in sequences])
        starts = ends - [len(s) for s in sequences]
        self.info = info
        self.raw = hidden.tobytes() + result.tobytes()
        self.hidden = [hidden[:, a:b] for a, b in zip(starts, ends)]
        if result.shape[0] == ends[-1] and result.shape[0] != len(sequences):
            self.result = [result[a:b] for a, b in zip(starts, ends)]
        else:
            self.result = list(result)


def run_tool(tool, directory, sequences, work, *flags, types=None):
    ids = work / "ids.txt"
    lines = []
    for i, s in enumerate(sequences):
        line = " ".join(map(str, s))
        if types is not None:
            line += " | " + " ".join(map(str, types[i]))
        lines.append(line)
    ids.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [tool, directory, ids, work / "out", *map(str, flags)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    info = json.loads(done.stdout)
    hidden = np.fromfile(work / "out.hidden", dtype=np.float32)
    hidden = hidden.reshape(info["layers"] + 1, info["tokens"], info["hidden"])
    result = np.fromfile(work / "out.result", dtype=np.float32).reshape(info["result"])
    return Run(info, hidden, result, sequences)


def distance(a, b):
    """The worse of the relative Frobenius norm and the relative largest difference."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    frobenius = np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30)
    return max(frobenius, np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))


def assert_parity(run, want):
    for i, (hidden, result) in enumerate(want):
        assert run.hidden[i].shape == hidden.shape
        for layer in range(hidden.shape[0]):
            d = distance(run.hidden[i][layer], hidden[layer])
            assert d < TOLERANCE, f"sequence {i}, hidden state {layer}: {d:.2e}"
        d = distance(run.result[i], result)
        assert d < TOLERANCE, f"sequence {i}, result: {d:.2e}"


def randomize(model, seed):
    """Weights of a size at which every part of the block matters."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=g)
            if p.dim() == 1 and name.endswith("weight"):
                p.copy_(1 + 0.3 * noise)
            elif p.dim() == 1:
                p.copy_(0.3 * noise)
            elif "embed" in name or "wte" in name or "wpe" in name:
                p.copy_(noise)
            else:
                p.copy_(1.3 * noise / p.shape[-1] ** 0.5)
    return model


def prompts(vocab, lengths, seed):
    g = np.random.default_rng(seed)
    return [g.integers(0, vocab, n).tolist() for n in lengths]
