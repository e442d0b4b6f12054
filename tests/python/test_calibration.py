"""What calibration does with good, poor and hostile data, through the command line: quotas, what
decides the result and what does not, and errors that say what, where and what to do. The unit tests
look at the sets themselves."""

import json
import os
import subprocess

import pytest

WORDS = "a the film story actor scene dull warm fine weak bold slow quiet long bright poor".split()


def rows(count, labels=2, offset=0):
    """Examples of which no two are alike."""
    for i in range(count):
        n = i + offset
        words = [WORDS[(n * k + k * k) % len(WORDS)] for k in range(1, 4 + n % 9)]
        yield {"text": f"number {n} " + " ".join(words), "label": i % labels}


def write_rows(path, examples):
    path.write_text("".join(json.dumps(row) + "\n" for row in examples))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_rows(folder / "train.jsonl", rows(200))
    write_rows(folder / "dev.jsonl", rows(30, offset=900))
    return folder


@pytest.fixture
def compress(build, models, tmp_path):
    """Runs sfq compress on a small model; the finished process and its JSON answer."""
    sfq = build / "bin" / "sfq"
    if not sfq.exists():
        pytest.skip("sfq is not built")

    def run(model, *words, out="out", threads=1):
        command = [sfq, "compress", models(model), "-o", tmp_path / out, "--prune", "0.2",
                   "--steps", "0", "--rounds", "1", "--threads", threads, "--json", *words]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True,
                              errors="replace", timeout=300, check=False)
        return done, json.loads(done.stdout) if done.stdout.strip() else None

    return run


def refused(done, answer, tmp_path, status, code, part):
    """An error with its code and its words, and nothing left of the run."""
    assert done.returncode == status, done.stderr
    assert answer["error"]["code"] == code
    assert part in answer["error"]["message"]
    assert not list(tmp_path.glob("out*")) and not list(tmp_path.glob(".out*"))


def report(tmp_path, out="out"):
    return json.loads((tmp_path / out / "sfq_report.json").read_text())["calibration"]


def weights(tmp_path, out):
    return (tmp_path / out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("words,sequences", [((), 200), (("--calib-fraction", 0.25), 50),
                                             (("--calib-fraction", 0.03), 6),
                                             (("--pick", "random"), 200)])
def test_task_quota(compress, data, tmp_path, words, sequences):
    done, answer = compress("sst2-tiny", "--task", "own", "--data", data, *words)
    assert done.returncode == 0, done.stderr
    assert answer["calibration"]["sequences"] == sequences
    assert answer["calibration"]["fraction"] == pytest.approx(sequences / 200)
    full = report(tmp_path)
    assert full["origin"] == "task" and full["available"] == 200
    assert full["held_out"] == max(1, sequences // 5)


def test_dev_decides_nothing(compress, data, tmp_path):
    """Another dev split: other figures, the same artifact."""
    compress("sst2-tiny", "--task", "own", "--data", data, out="first")
    write_rows(data / "dev.jsonl", ({**row, "label": 1} for row in rows(9, offset=5000)))
    compress("sst2-tiny", "--task", "own", "--data", data, out="second")
    assert weights(tmp_path, "first") == weights(tmp_path, "second")


def test_labels_decide_nothing(compress, data, tmp_path):
    """The original model answers for the train split: its labels enter nothing."""
    compress("sst2-tiny", "--task", "own", "--data", data, out="first")
    write_rows(data / "train.jsonl", ({**row, "label": 1 - row["label"]} for row in rows(200)))
    compress("sst2-tiny", "--task", "own", "--data", data, out="second")
    assert weights(tmp_path, "first") == weights(tmp_path, "second")


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_no_labels(compress, data, tmp_path, kind):
    """Own data without labels calibrates as with them. A dev split without any, or none at all,
    measures nothing and says so; --max-drop has then nothing to go by."""
    compress("sst2-tiny", "--task", "own", "--data", data, out="first")
    (data / "train.jsonl").unlink()
    (data / "dev.jsonl").unlink()
    texts = [row["text"] for row in rows(200)]
    if kind == "jsonl":
        write_rows(data / "train.jsonl", ({"text": text} for text in texts))
        write_rows(data / "dev.jsonl", [{"text": "good", "label": None}])
    else:
        (data / "train.csv").write_text("text\n" + "\n".join(texts) + "\n")
    done, answer = compress("sst2-tiny", "--task", "own", "--data", data, out="second")
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path, "first") == weights(tmp_path, "second")
    assert answer["baseline"] is answer["compressed"] is answer["drop"] is None
    assert "nothing is measured" in done.stderr
    assert [stage["name"] for stage in answer["stages"]].count("baseline") == 0
    done, answer = compress("sst2-tiny", "--task", "own", "--data", data, "--max-drop", "1")
    refused(done, answer, tmp_path, 2, "E_ARGUMENT", "no dev.jsonl or dev.csv with labels")


def test_some_labels(compress, data, tmp_path):
    """A dev split that lacks some of its labels is damaged."""
    write_rows(data / "dev.jsonl", [{"text": "good", "label": 1}, {"text": "bad"}])
    done, answer = compress("sst2-tiny", "--task", "own", "--data", data)
    refused(done, answer, tmp_path, 2, "E_DATA", "line 2")


def test_seed_decides(compress, data, tmp_path):
    for seed, out in ((0, "first"), (1, "second")):
        done, _ = compress("sst2-tiny", "--task", "own", "--data", data, "--calib-fraction", 0.1,
                           "--seed", seed, out=out)
        assert done.returncode == 0, done.stderr
    assert weights(tmp_path, "first") != weights(tmp_path, "second")


@pytest.mark.parametrize("source", ["self", "text"])
def test_language_model(compress, root, tmp_path, source):
    """Sampled or read, at one thread or three: the same bytes, of exactly the tokens asked for."""
    text = tmp_path / "text.txt"
    passage = (root / "tests" / "data" / "passage.txt").read_text()
    text.write_text("".join(f"Chapter {i}.\n{passage}" for i in range(12)))
    words = ["--calib-tokens", 1280, "--calib-length", 64]
    words += ["--text", text] if source == "text" else []
    for threads in (1, 3):
        done, answer = compress("novels-5m", *words, out=f"out{threads}", threads=threads)
        assert done.returncode == 0, done.stderr
        assert answer["calibration"]["tokens"] == 1280
        assert answer["calibration"]["sequences"] == 20
    assert weights(tmp_path, "out1") == weights(tmp_path, "out3")
    assert report(tmp_path, "out1")["origin"] == source


def test_all_alike(compress, data):
    """One sentence two hundred times: done, with a word about it."""
    write_rows(data / "train.jsonl", ({"text": "a fine film", "label": 1} for _ in range(200)))
    done, answer = compress("sst2-tiny", "--task", "own", "--data", data)
    assert done.returncode == 0, done.stderr
    assert answer["calibration"]["sequences"] == 200
    assert "differ from one another" in done.stderr


POOR_TRAIN = {
    "empty": ("", "empty"),
    "one": ('{"text": "a fine film", "label": 1}\n', "1 sequences; calibration needs 5"),
    "four": ('{"text": "a fine film", "label": 1}\n' * 4, "4 sequences; calibration needs 5"),
    "label beyond": ('{"text": "good", "label": 1}\n{"text": "bad", "label": 7}\n', "line 2"),
    "label below": ('{"text": "good", "label": -1}\n', "line 1"),
    "label between": ('{"text": "good", "label": 0.5}\n', "line 1"),
    "nan": ('{"text": "good", "label": NaN}\n', "line 1"),
    "label of no type": ('{"text": "good", "label": []}\n', "line 1"),
    "no object": ("[1, 2]\n", "line 1"),
    "bytes": (b'{"text": "caf\xe9", "label": 1}\n', "invalid UTF-8 at byte 13"),
}


@pytest.mark.parametrize("name", POOR_TRAIN)
def test_poor_train(compress, data, tmp_path, name):
    content, part = POOR_TRAIN[name]
    content = content.encode() if isinstance(content, str) else content
    (data / "train.jsonl").write_bytes(content)
    done, answer = compress("sst2-tiny", "--task", "own", "--data", data)
    refused(done, answer, tmp_path, 2, "E_DATA", part)


@pytest.mark.parametrize("kind", ["fifo", "directory", "missing"])
def test_train_that_is_no_file(compress, data, tmp_path, kind):
    path = data / "train.jsonl"
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    done, answer = compress("sst2-tiny", "--task", "own", "--data", data)
    code = "E_NOT_FOUND" if kind == "missing" else "E_ARGUMENT"
    refused(done, answer, tmp_path, 2, code, "train" if kind != "missing" else "no train")


POOR_TEXT = {
    "empty": (b"", "E_DATA", "empty"),
    "short": (b"Some words.", "E_DATA", "too few to calibrate on"),
    "bytes": (b"good " * 300 + b"\xff\xfe", "E_DATA", "invalid UTF-8 at byte 1500"),
    "surrogate": (b"good " * 300 + b"\xed\xa0\x80", "E_DATA", "invalid UTF-8 at byte 1500"),
}


@pytest.mark.parametrize("name", POOR_TEXT)
def test_poor_text(compress, tmp_path, name):
    content, code, part = POOR_TEXT[name]
    text = tmp_path / "text.txt"
    text.write_bytes(content)
    done, answer = compress("novels-5m", "--text", text)
    refused(done, answer, tmp_path, 2, code, part)


@pytest.mark.parametrize("kind", ["fifo", "directory", "missing"])
def test_text_that_is_no_file(compress, tmp_path, kind):
    path = tmp_path / "text.txt"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    done, answer = compress("novels-5m", "--text", path)
    code = "E_NOT_FOUND" if kind == "missing" else "E_ARGUMENT"
    refused(done, answer, tmp_path, 2, code, "text.txt")


@pytest.mark.parametrize("name", ["one line", "repeated", "little"])
def test_unusual_text(compress, root, tmp_path, name):
    """Text that is odd but serves: one line without an end, one sentence again and again, a page."""
    passage = (root / "tests" / "data" / "passage.txt").read_text()
    content = {"one line": passage.replace("\n", " ") * 10, "repeated": "All work. " * 6000,
               "little": passage}[name]
    text = tmp_path / "text.txt"
    text.write_text(content)
    done, answer = compress("novels-5m", "--text", text, "--calib-length", 64)
    assert done.returncode == 0, done.stderr
    assert answer["calibration"]["sequences"] >= 5
    assert answer["baseline"]["metric"] == "perplexity"


@pytest.mark.parametrize("words,part", [
    (("--calib-tokens", 1000, "--calib-fraction", 0.1), "not both"),
    (("--calib-fraction", 0.1), "--calib-tokens"),
    (("--calib-tokens", 20), "20 tokens are too few"),
])
def test_options_that_do_not_fit(compress, tmp_path, words, part):
    done, answer = compress("novels-5m", *words)
    refused(done, answer, tmp_path, 2, "E_ARGUMENT", part)


def test_tokens_of_a_task(compress, data, tmp_path):
    done, answer = compress("sst2-tiny", "--task", "own", "--data", data, "--calib-tokens", 500)
    refused(done, answer, tmp_path, 2, "E_ARGUMENT", "calib_fraction")


def test_fraction_of_too_little(compress, data, tmp_path):
    done, answer = compress("sst2-tiny", "--task", "own", "--data", data, "--calib-fraction", 0.02)
    refused(done, answer, tmp_path, 2, "E_ARGUMENT", "is 4; calibration needs 5")
