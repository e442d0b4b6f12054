"""Every family and head through the whole recipe: cut, refitted, distilled, written, fused, tuned.
The held-out loss says whether the parts fit together: fusing at 8 bits leaves the pruned model what
it was, which a wrong order of heads, a matrix that was cut on the wrong side, or a file that is
read back in another layout does not."""

import json
import random
import shutil
import subprocess

import pytest

import test_parity
from oracle import randomize
from test_recipe import Run, sentence

LANGUAGE = ["llama-gqa", "llama-mha-bias-tied-f16", "smollm3-nope", "qwen2-window-tied",
            "qwen3-window-bias", "gpt2", "gpt2-untied-inner"]
ENCODERS = ["bert-classifier", "bert-regression-f16", "bert-embedder", "distilbert-classifier",
            "distilbert-embedder"]
WIDTH = {"gpt2": "n_inner", "distilbert": "hidden_dim"}


@pytest.fixture(scope="module")
def program(build):
    path = build / "bin" / "sfq"
    if not path.exists():
        pytest.skip("sfq is not built")
    return path


def write_model(name, folder, **changes):
    config_class, model_class, kw, dtype = test_parity.CASES[name]
    kw = dict(kw, **changes)
    kw[WIDTH.get(config_class.model_type, "intermediate_size")] = 128
    model = randomize(model_class(config_class(**kw)), seed=11).to(dtype)
    model.save_pretrained(folder)


def check(value, folder, program):
    loss = {stage["name"]: stage["loss"] for stage in value["stages"]}
    assert 0 <= loss["distill"] <= loss["reconstruct"] <= loss["prune"]
    assert abs(loss["fuse"] - loss["distill"]) <= 0.1 * loss["distill"] + 1e-3, loss
    assert loss["tune"] <= loss["fuse"]
    assert value["pruned"]["fraction"] >= 0.25
    checked = subprocess.run([program, "inspect", folder, "--verify", "--json"],
                             capture_output=True, check=True)
    inspected = json.loads(checked.stdout)
    assert inspected["bytes"] == value["bytes"]
    assert inspected["parameters"] < inspected["original_parameters"]
    widths = {(layer["heads"], layer["ffn"]) for layer in inspected["layers"]}
    assert all(heads > 0 and ffn >= 64 for heads, ffn in widths)


@pytest.mark.parametrize("name", LANGUAGE)
def test_language_model(name, program, tmp_path):
    write_model(name, tmp_path / "in")
    run = Run(program, [tmp_path / "in", "-o", tmp_path / "out", "--prune", "0.25", "--rounds", "2",
                        "--steps", "3", "--calib-tokens", "1000", "--calib-length", "32"])
    check(run.value, tmp_path / "out", program)


def write_data(folder, name):
    folder.mkdir()
    draw = random.Random(6)
    for split, count in (("train", 40), ("dev", 9)):
        rows = []
        for i in range(count):
            row = {"text": sentence(draw, i % 2)}
            if "embedder" in name:
                row["text_pair"] = sentence(draw, i % 2)
            if "classifier" in name:
                row["label"] = i % 3
            else:
                row["label"] = draw.uniform(0, 5)
            rows.append(json.dumps(row) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(rows))


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder(name, program, models, tmp_path):
    tokenizer = models("sst2-tiny")
    vocab = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    write_model(name, tmp_path / "in", vocab_size=vocab)
    shutil.copy(tokenizer / "tokenizer.json", tmp_path / "in")
    write_data(tmp_path / "data", name)
    task = "own" if "classifier" in name else "stsb"
    run = Run(program, [tmp_path / "in", "-o", tmp_path / "out", "--prune", "0.25", "--rounds", "2",
                        "--steps", "3", "--task", task, "--data", tmp_path / "data"])
    assert run.value["baseline"]["metric"] == ("accuracy" if task == "own" else "pearson")
    check(run.value, tmp_path / "out", program)


def test_encoder_on_text(program, models, tmp_path):
    """An encoder may be calibrated on plain text; there is nothing to measure then."""
    tokenizer = models("sst2-tiny")
    draw = random.Random(7)
    lines = [" ".join(sentence(draw, i % 2) for _ in range(3)) + ".\n" for i in range(200)]
    (tmp_path / "text").write_text("".join(lines))
    run = Run(program, [tokenizer, "-o", tmp_path / "out", "--prune", "0.25", "--steps", "2",
                        "--text", tmp_path / "text", "--calib-tokens", "1000", "--calib-length",
                        "32"])
    assert run.value["baseline"] is None and "nothing is measured" in run.stderr
    check(run.value, tmp_path / "out", program)
    Run(program, [tokenizer, "-o", tmp_path / "no", "--text", tmp_path / "text", "--max-drop", "1"],
        status=2)
