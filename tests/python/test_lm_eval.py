"""lm-evaluation-harness runs a compressed model by its own `hf` class: the tasks in
examples/lm_eval give what sfq itself computes, near the dense model. Its packages are 419 MB, so
it is not among the requirements: `pip install lm-eval==0.4.13` into the environment of the tests
runs these, too."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed here: pip install lm-eval==0.4.13")
import datasets  # noqa: E402
import lm_eval  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from package import PASSAGE, command, sfq  # noqa: E402
import sfq.transformers  # noqa: E402, F401

TASKS = ["sfq_passage", "sfq_endings"]


@pytest.fixture(scope="module")
def small(models, tmp_path_factory):
    """novels-5m by the command: pruned, 8 bits, embeddings 4."""
    out = tmp_path_factory.mktemp("small") / "novels"
    command("compress", models("novels-5m"), "-o", out, "--prune", 0.2, "--embedding-bits", 4,
            "--text", PASSAGE, "--steps", 2, "--rounds", 1, "--calib-length", 32)
    return out


@pytest.fixture
def run(root, tmp_path, monkeypatch):
    """Results and samples of a directory under the harness."""
    monkeypatch.chdir(root)  # the tasks name the passage from there
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def evaluate(path, **options):
        manager = TaskManager(include_path=str(root / "examples" / "lm_eval"))
        return lm_eval.simple_evaluate(
            model="hf", model_args={"pretrained": str(path), "dtype": "float32", **options},
            tasks=TASKS, task_manager=manager, device="cpu", batch_size=1, log_samples=True,
            bootstrap_iters=0)
    return evaluate


def own_bits(path, texts):
    """Bits per byte and perplexity per word by sfq.Model. As in the harness each text begins with
    two begin-of-text tokens: the prefix, and the tokenizer's own, which is scored. Words are what
    lies between its spaces, be it nothing."""
    nats = 0.0
    with sfq.Model(path) as model:
        for text in texts:
            ids = model.tokenize(text)
            logits = model.logits(np.concatenate((ids[:1], ids[:-1]))).astype(np.float64)
            log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
            nats -= log_p[np.arange(len(ids)), ids].sum()
    return (nats / math.log(2) / sum(len(t.encode()) for t in texts),
            math.exp(nats / sum(len(re.split(r"\s+", t)) for t in texts)))


def own_scores(model, context, endings):
    """ln p of each ending behind the context, by sfq.Model."""
    begin = len(model.tokenize(context))
    scores = []
    for ending in endings:
        ids = model.tokenize(context + " " + ending)
        logits = model.logits(ids).astype(np.float64)
        log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        scores.append(sum(log_p[i - 1, ids[i]] for i in range(begin, len(ids))))
    return scores


def test_tasks(models, run, small):
    """The same perplexity as sfq.Model, every choice's likelihood as sfq.Model has it."""
    dense, ours = run(models("novels-5m")), run(small)
    texts = [sample["doc"]["text"] for sample in ours["samples"]["sfq_passage"]]
    got = ours["results"]["sfq_passage"]
    bits, perplexity = own_bits(small, texts)
    assert got["bits_per_byte,none"] == pytest.approx(bits, rel=2e-3)
    assert got["word_perplexity,none"] == pytest.approx(perplexity, rel=1e-2)
    reference = dense["results"]["sfq_passage"]["bits_per_byte,none"]
    assert reference == pytest.approx(own_bits(models("novels-5m"), texts)[0], rel=1e-4)
    assert got["bits_per_byte,none"] != reference
    assert got["bits_per_byte,none"] == pytest.approx(reference, rel=0.05)
    samples = ours["samples"]["sfq_endings"]
    right = 0
    with sfq.Model(small) as model:
        for sample in samples:
            wanted = own_scores(model, sample["doc"]["context"], sample["doc"]["endings"])
            theirs = [score for score, _ in sample["filtered_resps"]]
            assert np.allclose(theirs, wanted, rtol=5e-3, atol=0.05)
            right += int(np.argmax(wanted)) == sample["doc"]["answer"]
    accuracy = ours["results"]["sfq_endings"]["acc,none"]
    assert abs(accuracy - right / len(samples)) <= 1 / len(samples)
    assert len(samples) >= 12 and right > len(samples) / 4


def test_compress_on_load(models, run):
    """The flag of from_pretrained among the harness's model arguments."""
    dense = run(models("novels-5m"))["results"]["sfq_passage"]["bits_per_byte,none"]
    ours = run(models("novels-5m"), sfq_compress={"bits": 4})["results"]["sfq_passage"]
    assert ours["bits_per_byte,none"] != dense
    assert ours["bits_per_byte,none"] == pytest.approx(dense, rel=0.05)


def test_command(root, run, small, tmp_path):
    """The harness's own command line, told of sfq by `python -m sfq.transformers`."""
    subprocess.run([sys.executable, "-m", "sfq.transformers", "lm_eval", "run", "--model", "hf",
                    "--model_args", f"pretrained={small},dtype=float32", "--device", "cpu",
                    "--batch_size", "1", "--include_path", "examples/lm_eval", "--tasks",
                    ",".join(TASKS), "--output_path", str(tmp_path / "answer.json")],
                   cwd=root, check=True, capture_output=True)
    answer = json.loads(next(tmp_path.glob("answer*.json")).read_text())
    wanted = run(small)["results"]
    for task, key in zip(TASKS, ("bits_per_byte,none", "acc,none")):
        assert answer["results"][task][key] == wanted[task][key]
