#!/usr/bin/env python3
"""The contract of the command line, tested on the program itself: help, usage errors, exit status,
JSON keys, streams, signals, compress as a user meets it, man pages and completions. Standard
library only. SFQ is the program, SFQ_BUILD the build; SFQ_GOLDEN=write renews golden/."""

import json
import os
import pathlib
import pty
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
GOLDEN = HERE / "golden"
SFQ = os.environ.get("SFQ", str(ROOT / "build/bin/sfq"))
BUILD = pathlib.Path(os.environ.get("SFQ_BUILD", ROOT / "build"))
NOVELS = str(ROOT / "models/novels-5m")
SST2 = str(ROOT / "models/sst2-tiny")
VERBS = "inspect compress export eval run bench tokenize env".split()


def sfq(*words, stdin=b"", env=None, cwd=None):
    """status, stdout, stderr of one run (bytes decoded)."""
    done = subprocess.run([SFQ, *words], input=stdin, capture_output=True, timeout=120, cwd=cwd,
                          env={**os.environ, **(env or {})})
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def one_output(folder):
    """sst2-tiny with the first output of its head alone, as a regression."""
    shutil.copytree(SST2, folder)
    config = json.loads((folder / "config.json").read_text())
    config.update(problem_type="regression", id2label={"0": "score"}, label2id={"score": 0})
    (folder / "config.json").write_text(json.dumps(config))
    old = (folder / "model.safetensors").read_bytes()
    start = 8 + struct.unpack("<Q", old[:8])[0]
    header, data = json.loads(old[8:start]), b""
    header.pop("__metadata__", None)
    for name, tensor in header.items():
        begin, end = (start + at for at in tensor["data_offsets"])
        if name.startswith("classifier."):
            end -= (end - begin) // 2
            tensor["shape"][0] = 1
        tensor["data_offsets"] = [len(data), len(data) + end - begin]
        data += old[begin:end]
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return str(folder)


class Case(unittest.TestCase):
    def setUp(self):
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="sfq-cli-"))
        self.addCleanup(shutil.rmtree, self.scratch)

    def good(self, *words, **more):
        status, out, err = sfq(*words, **more)
        self.assertEqual(status, 0, err)
        return out

    def object(self, *words, **more):
        """The one JSON object of a run that must succeed."""
        out = self.good(*words, "--json", **more)
        value = json.loads(out)
        self.assertEqual(value["schema"], 1)
        return value

    def refused(self, status, *words, says=(), **more):
        """A run that must fail with `status`, one line on stderr, and the same in JSON."""
        got, out, err = sfq(*words, **more)
        self.assertEqual(got, status, err)
        lines = err.splitlines()
        self.assertEqual(len(lines), 1, err)
        self.assertTrue(lines[0].startswith("sfq: "), err)
        for text in says:
            self.assertIn(text, lines[0])
        got, out, err = sfq(*words[:1], "--json", *words[1:], **more)
        self.assertEqual(got, status, err)
        value = json.loads(out)
        self.assertEqual(value["schema"], 1)
        self.assertEqual(set(value["error"]), {"code", "message", "file", "tensor"})
        return value["error"]


class Help(Case):
    def golden(self, name, text):
        path = GOLDEN / (name + ".txt")
        if os.environ.get("SFQ_GOLDEN") == "write":
            path.write_text(text)
        self.assertEqual(path.read_text(), text, f"{path.name}: SFQ_GOLDEN=write renews it")

    def test_program(self):
        text = self.good("--help")
        self.golden("help", text)
        self.assertEqual(text, self.good("help"))

    def test_verbs(self):
        for verb in VERBS:
            text = self.good("help", verb)
            self.assertEqual(text, self.good(verb, "--help"))
            self.assertLess(text.index("Examples:"), text.index("Usage:"))
            self.assertLessEqual(max(map(len, text.splitlines())), 100)
            self.golden("help-" + verb, text)

    def test_version(self):
        self.assertRegex(self.good("--version"), r"^sfq \d+\.\d+\.\d+\n$")


class Usage(Case):
    def test_verbs(self):
        self.refused(2, "inspct", says=["'inspct'", "did you mean 'inspect'"])
        self.refused(2, "xyzzy", says=["'xyzzy'"])
        status, out, err = sfq()
        self.assertEqual((status, out), (2, ""))
        self.assertEqual(len(err.splitlines()), 1)

    def test_later_stages_do_not_exist(self):
        for verb in "resize report serve".split():
            self.refused(2, verb, says=["no verb"])
        for option in "--target-size --target-speedup".split():
            self.refused(2, "compress", NOVELS, option, "1", says=[option])

    def test_options(self):
        self.refused(2, "compress", NOVELS, "--bitz", "4", says=["--bitz", "'--bits'"])
        self.refused(2, "compress", NOVELS, "-o", "x", "--bits", "9", says=["--bits", "2 to 8"])
        self.refused(2, "compress", NOVELS, "--plan", "--bits-for", "q=12", says=["--bits-for"])
        self.refused(2, "compress", NOVELS, "--plan", "--recipe", "best", says=["--recipe"])
        self.refused(2, "compress", NOVELS, "--plan", "--recipe", "auto", says=["not built yet"])
        self.refused(2, "compress", NOVELS, "--plan", "--pick", "best", says=["curated random"])
        self.refused(2, "compress", NOVELS, "--plan", "--saliency", "x", says=["fisher taylor"])
        self.refused(2, "compress", NOVELS, "--plan", "--rounds", "17", says=["--rounds"])
        self.refused(2, "compress", NOVELS, "--plan", "--minutes", "-1", says=["--minutes"])
        self.refused(2, "compress", NOVELS, "--plan", "--calib-length", "8", says=["16 to 4096"])
        self.refused(2, "compress", NOVELS, "--plan", "--calib-fraction", "0", says=["fraction"])
        self.refused(2, "compress", NOVELS, "--plan", "--calib-fraction", "0.1", "--calib-tokens",
                     "9", says=["not both"])
        self.refused(2, "compress", NOVELS, says=["-o DIR"])
        self.refused(2, "run", NOVELS, "-p", "a", "-n", "many", says=["--tokens", "many"])
        self.refused(2, "run", NOVELS, "-p", "a", "--temperature", "nan", says=["--temperature"])
        self.refused(2, "run", NOVELS, "-p", says=["needs a value"])
        self.refused(2, "run", NOVELS, says=["-p TEXT"])
        self.refused(2, "run", NOVELS, "-p", "a", "--file", "b", says=["two texts"])
        self.refused(2, "eval", NOVELS, says=["--task", "--text"])
        self.refused(2, "eval", NOVELS, "--task", "sst2", says=["--data"])
        self.refused(2, "inspect", str(self.scratch), says=["config.json", "holds a model"])
        self.refused(2, "inspect", says=["MODEL is missing"])
        self.refused(2, "inspect", NOVELS, "more", says=["one word too many", "more"])
        self.refused(2, "bench", says=["MODEL is missing"])

    def test_names_are_in_errors(self):
        for verb in ("inspect", "run", "tokenize", "bench"):
            words = ["-p", "x"] if verb in ("run", "tokenize") else []
            error = self.refused(2, verb, "no-such-model", *words, says=["no-such-model"])
            self.assertEqual(error["code"], "E_NOT_FOUND")

    def test_dashes(self):
        os.symlink(NOVELS, self.scratch / "-model")
        self.good("inspect", "--", "-model", cwd=self.scratch)
        self.refused(2, "inspect", "-model", cwd=self.scratch, says=["-model"])
        ids = self.object("tokenize", NOVELS, "-p", "-x")["ids"]
        self.assertGreater(len(ids), 0)

    def test_input_files(self):
        self.refused(2, "tokenize", NOVELS, "--file", str(self.scratch), says=[str(self.scratch)])
        (self.scratch / "bad").write_bytes(b"good \xff bad")
        self.refused(2, "tokenize", NOVELS, "--file", str(self.scratch / "bad"), says=["bad", "5"])


class Json(Case):
    def keys(self, value, names):
        self.assertLessEqual(set(names.split()), set(value))

    def test_inspect(self):
        value = self.object("inspect", NOVELS)
        self.keys(value, "architecture parameters bytes bits_per_parameter original_parameters "
                         "original_bytes reduction scale_overhead macs_per_token layers")
        self.assertEqual(value["architecture"], "LlamaForCausalLM")
        self.assertEqual(value["bytes"], os.path.getsize(NOVELS + "/model.safetensors"))
        self.assertEqual(value["original_bytes"], 2 * value["original_parameters"])
        self.assertEqual(len(value["layers"]), 6)
        for layer in value["layers"]:
            self.assertEqual((layer["heads"], layer["kv_heads"], layer["ffn"]), (8, 4, 768))
            self.assertEqual(layer["bits"], 16)
        self.assertEqual(self.object("inspect", SST2, "--verify")["verified"], True)

    def test_export(self):
        out = self.scratch / "plain"
        value = self.object("export", SST2, "-o", str(out), "--format", "dense")
        self.keys(value, "output bytes parameters format padded heads kv_heads ffn")
        self.assertEqual(value["output"], str(out))
        self.assertEqual(value["bytes"], (out / "model.safetensors").stat().st_size)
        layer = self.object("inspect", str(out))["layers"][0]
        self.assertEqual(value["ffn"], layer["ffn"])
        self.assertIs(value["padded"], False)
        self.refused(2, "export", SST2, "-o", str(out), says=["exists"])
        self.refused(2, "export", SST2, "-o", "x", "--format", "gguf", says=["not write"])

    def test_run(self):
        value = self.object("run", NOVELS, "-p", "It was a dark and", "-n", "12", "--ignore-eos")
        self.keys(value, "text tokens")
        self.assertEqual(value["tokens"], 12)
        self.assertEqual(len(value["ids"]), 12)
        value = self.object("run", SST2, "-p", "a moving, honest film")
        self.keys(value, "label scores")
        self.assertEqual(value["label"], "positive")
        self.assertAlmostEqual(sum(value["scores"]), 1, places=5)
        self.assertEqual(self.object("run", SST2, "-p", "a dull, lifeless mess")["label"],
                         "negative")

    def test_tokenize_needs_the_tokenizer_only(self):
        bare = self.scratch / "bare"
        bare.mkdir()
        shutil.copy(f"{SST2}/tokenizer.json", bare)
        whole = self.object("tokenize", SST2, "-p", "a film")["ids"]
        self.assertEqual(self.object("tokenize", str(bare), "-p", "a film")["ids"], whole)
        config = json.loads(pathlib.Path(SST2, "config.json").read_text())
        (bare / "config.json").write_text(json.dumps(dict(config, vocab_size=10)))
        self.refused(2, "tokenize", str(bare), "-p", "a film", says=["tokenizer.json", "10 rows"])

    def test_tokenize(self):
        value = self.object("tokenize", SST2, "-p", "a film")
        self.assertTrue(all(isinstance(i, int) for i in value["ids"]))
        text = self.good("tokenize", SST2, "-p", "a film")
        self.assertEqual([int(word) for word in text.split()], value["ids"])

    def test_eval(self):
        text = self.scratch / "text"
        text.write_text("It was a dark and stormy night; the rain fell in torrents. " * 8)
        value = self.object("eval", NOVELS, "--text", str(text), "--against", NOVELS, "-q")
        self.keys(value, "perplexity nll tokens kl_mean kl_p999 same_top1 flips isa "
                         "activation_bits")
        self.assertEqual((value["kl_mean"], value["same_top1"], value["flips"]), (0, 1, 0))
        data = self.scratch / "dev.tsv"
        data.write_text("sentence\tlabel\na moving , honest film\t1\na dull mess\t0\n")
        value = self.object("eval", SST2, "--task", "sst2", "--data", str(self.scratch))
        self.keys(value, "task metric value metrics n isa activation_bits")
        self.assertEqual((value["task"], value["metric"], value["n"]), ("sst2", "accuracy", 2))
        self.assertEqual(value["value"], value["metrics"]["accuracy"])

    def test_eval_values(self):
        """A regression has no distribution to compare: the keys are there, and null."""
        model = one_output(self.scratch / "model")
        (self.scratch / "dev.jsonl").write_text("".join(
            json.dumps({"text": text, "label": label}) + "\n"
            for text, label in (("a", 0.5), ("b c", 1.5), ("bad", 0.1))))
        value = self.object("eval", model, "--task", "own", "--data", str(self.scratch),
                            "--against", model, "-q")
        for key in "kl_mean kl_p999 same_top1 flips".split():
            self.assertIsNone(value[key], key)
        self.assertEqual(set(value["metrics"]), {"pearson", "spearman"})

    def test_run_values(self):
        """Every output of a regression is printed, on one line."""
        self.assertEqual(len(self.good("run", one_output(self.scratch / "1"), "-p", "a").split()),
                         1)
        two = self.scratch / "2"
        shutil.copytree(SST2, two)
        config = json.loads((two / "config.json").read_text())
        (two / "config.json").write_text(json.dumps({**config, "problem_type": "regression"}))
        text = self.good("run", str(two), "-p", "a")
        scores = self.object("run", str(two), "-p", "a")["scores"]
        self.assertEqual(text, "".join(f"{s:.4f} " for s in scores)[:-1] + "\n")

    def test_bench(self):
        value = self.object("bench", NOVELS, "--against", SST2, "--prompt-tokens", "32",
                            "--generate-tokens", "4", "--rounds", "1", "-q")
        self.keys(value, "isa threads models")
        self.assertEqual([m["path"] for m in value["models"]], [NOVELS, SST2])
        for model in value["models"]:
            self.keys(model, self.MODEL_KEYS)
        self.assertGreater(value["models"][0]["decode_tokens_per_second"], 0)
        self.assertIsNone(value["models"][1]["decode_tokens_per_second"])

    def test_bench_several(self):
        """--against takes every word behind it."""
        short = ["--prompt-tokens", "8", "--generate-tokens", "2", "--rounds", "1", "-q"]
        for words in (["--against", SST2, NOVELS], ["--against", SST2, "--against", NOVELS]):
            value = self.object("bench", NOVELS, *words, *short)
            self.assertEqual([m["path"] for m in value["models"]], [NOVELS, SST2, NOVELS])
        self.refused(2, "bench", NOVELS, SST2, says=["--against"])
        self.refused(2, "bench", NOVELS, "--against", *[SST2] * 16, says=["16"])

    SHORT = ["--prompt-tokens", "8", "--generate-tokens", "2", "--rounds", "1", "-q"]
    MODEL_KEYS = ("path bits bytes load_seconds prefill_tokens_per_second decode_tokens_per_second "
                  "latency_seconds peak_rss_bytes bytes_per_token read_bandwidth_share "
                  "multiply_share products_per_mac multiply_peak")

    def test_bench_shape(self):
        """A shape from a config.json at all bits; keys, order, names."""
        config = NOVELS + "/config.json"
        value = self.object("bench", "--shape", config, "--bits", "2", "--prune", "0.25",
                            "--against-bits", "3,4,5", "6", "7,8", "16", *self.SHORT)
        bits = [2, 3, 4, 5, 6, 7, 8, 16]
        self.assertEqual([m["shape_bits"] for m in value["models"]], bits)
        self.assertEqual([m["prune"] for m in value["models"]], [0.25] + [0] * 7)
        self.assertEqual(value["models"][0]["path"], config + "@2-25%")
        self.assertEqual(value["models"][7]["path"], config + "@16")
        for model in value["models"]:
            self.keys(model, self.MODEL_KEYS + " shape shape_bits prune")
            self.assertGreater(model["decode_tokens_per_second"], 0)
            self.assertGreater(model["multiply_share"], 0)
        sizes = [m["bytes"] for m in value["models"]]
        self.assertEqual(sizes, sorted(sizes))

    def test_bench_shape_encoder(self):
        value = self.object("bench", "--shape", "minilm", "--bits", "8", "--against-bits", "16",
                            *self.SHORT)
        for model in value["models"]:
            self.assertIsNone(model["decode_tokens_per_second"])
            self.assertGreater(model["latency_seconds"], 0)
        self.assertIn("per batch", self.good("bench", "--shape", "minilm", "--bits", "8",
                                             *self.SHORT))

    def test_bench_shape_is_what_compress_writes(self):
        """The bytes of a shape's tensors are those of the artifact, one by one in sum."""
        for model, bits in ((NOVELS, "4"), (SST2, "3")):
            out = self.scratch / ("out" + bits)
            self.good("compress", model, "-o", str(out), "--prune", "0", "--steps", "0", "--bits",
                      bits, "-q")
            data = (out / "model.safetensors").read_bytes()
            header = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])
            header.pop("__metadata__")
            want = sum(end - begin for begin, end in
                       (tensor["data_offsets"] for tensor in header.values()))
            value = self.object("bench", "--shape", model + "/config.json", "--bits", bits,
                                *self.SHORT)
            self.assertEqual(value["models"][0]["bytes"], want)

    def test_bench_shape_refused(self):
        shape = ["bench", "--shape", "minilm"]
        self.refused(2, *shape, says=["--bits"])
        for bits in ("1", "9", "15", "17", "x"):
            self.refused(2, *shape, "--bits", bits, says=["bits"])
        for bits in ("1", "9", "8,", ",8", "8;4", "-8", "99999999999999999999"):
            self.refused(2, *shape, "--bits", "8", "--against-bits", bits, says=["--against-bits"])
        for share in ("1", "-0.1", "nan", "x"):
            self.refused(2, *shape, "--bits", "8", "--prune", share, says=["--prune"])
        self.refused(2, *shape, "--bits", "8", NOVELS, says=[NOVELS])
        self.refused(2, *shape, "--bits", "8", "--against", NOVELS, says=["--against-bits"])
        self.refused(2, "bench", NOVELS, "--bits", "8", says=["--shape"])
        self.refused(2, "bench", NOVELS, "--prune", "0.4", says=["--shape"])
        self.refused(2, "bench", "--shape", "llama-2b", "--bits", "8", says=["llama-1b"])
        self.refused(2, *shape, "--bits", "8", "--against-bits", ",".join(["8"] * 16), says=["16"])
        config = self.scratch / "config.json"
        config.write_text("{}")
        self.refused(2, "bench", "--shape", str(config), "--bits", "8", says=["model_type"])
        config.write_text('{"architectures": ["MambaForCausalLM"], "model_type": "mamba"}')
        self.refused(5, "bench", "--shape", str(config), "--bits", "8", says=["Mamba"])

    def test_bench_shape_needs_memory(self):
        config = self.scratch / "config.json"
        config.write_text(json.dumps({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 65536,
            "intermediate_size": 262144, "num_hidden_layers": 1024, "num_attention_heads": 256,
            "vocab_size": 32000, "hidden_act": "silu"}))
        self.refused(6, "bench", "--shape", str(config), "--bits", "16", says=["MB of memory"])

    def test_bench_probe(self):
        probe = self.object("bench", "--probe")["probe"]
        self.keys(probe, "read_bytes_per_second read_bytes_per_second_one_thread macs_per_second "
                         "peaks")
        for peak in probe["peaks"]:
            self.keys(peak, "isa type macs_per_second")
            self.assertGreater(peak["macs_per_second"], 0)
        capped = self.object("bench", "--probe", env={"SFQ_MAX_ISA": "ref"})["probe"]
        self.assertEqual([p["isa"] for p in capped["peaks"]], ["ref"])

    def test_env(self):
        value = self.object("env")
        self.keys(value, "version isa threads libraries compiler")
        self.assertEqual(self.object("env", env={"SFQ_MAX_ISA": "ref"})["isa"], "ref")


def on_terminal(words, env=None):
    """What a run writes to stderr when that is a terminal."""
    master, slave = pty.openpty()
    child = subprocess.Popen([SFQ, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=slave, env={**os.environ, "TERM": "xterm", **(env or {})})
    os.close(slave)
    seen = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    os.close(master)
    return child.wait(), seen.decode()


class Streams(Case):
    def bench(self):
        return ["bench", NOVELS, "--prompt-tokens", "64", "--generate-tokens", "32", "--rounds",
                "1"]

    def test_stdin(self):
        words = ["-n", "6", "--ignore-eos"]
        from_pipe = self.good("run", NOVELS, "-", *words, stdin=b"Once upon a time")
        self.assertEqual(from_pipe, self.good("run", NOVELS, "-p", "Once upon a time", *words))
        (self.scratch / "f").write_text("Once upon a time")
        self.assertEqual(from_pipe,
                         self.good("run", NOVELS, "--file", str(self.scratch / "f"), *words))

    def test_text_equals_json(self):
        words = ["run", NOVELS, "-p", "The old house", "-n", "16", "--ignore-eos"]
        text = self.object(*words)["text"]
        self.assertEqual(self.good(*words).rstrip("\n"), text.rstrip("\n"))

    def test_stop_and_seed(self):
        words = ["run", NOVELS, "-p", "The", "-n", "40", "--temperature", "1", "--ignore-eos"]
        first = self.object(*words, "--seed", "5")["text"]
        self.assertEqual(first, self.object(*words, "--seed", "5")["text"])
        self.assertNotEqual(first, self.object(*words, "--seed", "6")["text"])
        stop = first[len(first) // 2:][:4]
        cut = self.object(*words, "--seed", "5", "--stop", stop)
        self.assertEqual(cut["text"], first[:first.index(stop)])

    def test_terminal_and_colour(self):
        status, seen = on_terminal(self.bench())
        self.assertEqual(status, 0, seen)
        self.assertIn("\r", seen)
        self.assertIn("\x1b[", seen)
        status, seen = on_terminal(self.bench(), {"NO_COLOR": "1"})
        self.assertNotIn("\x1b[", seen)
        status, seen = on_terminal(self.bench(), {"TERM": "dumb"})
        self.assertNotIn("\x1b", seen)
        self.assertNotIn("\r", seen.replace("\r\n", "\n"))
        self.assertEqual(on_terminal([*self.bench(), "-q"]), (0, ""))

    def test_plain_lines(self):
        status, _, err = sfq(*self.bench())
        self.assertEqual(status, 0)
        self.assertNotIn("\r", err)
        self.assertNotIn("\x1b", err)

    def test_reader_has_gone(self):
        words = [SFQ, "run", NOVELS, "-p", "The", "-n", "900", "--ignore-eos"]
        child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        child.stdout.read(1)
        child.stdout.close()
        err = child.stderr.read()
        child.stderr.close()
        self.assertEqual((child.wait(), err), (1, b""))

    def test_full_disk(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full on this system")
        with open("/dev/full", "wb") as full:
            done = subprocess.run([SFQ, "env"], stdout=full, stderr=subprocess.PIPE, timeout=60)
        self.assertEqual(done.returncode, 6)
        self.assertEqual(len(done.stderr.splitlines()), 1)

    def test_file_cut_while_read(self):
        model = self.scratch / "m"
        shutil.copytree(NOVELS, model)
        words = [SFQ, "run", str(model), "-p", "The", "-n", "900", "--ignore-eos"]
        child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        child.stdout.read(1)
        os.truncate(model / "model.safetensors", 4096)
        _, err = child.communicate(timeout=60)
        self.assertEqual(child.returncode, 1, err)
        self.assertIn(b"changed or was cut", err)
        self.assertEqual(len(err.splitlines()), 1)

    def test_file_size_limit(self):
        """A limit on the size of files (ulimit -f) is a full disk, not a signal."""
        limit = (1 << 20, 1 << 20)
        done = subprocess.run([SFQ, "compress", NOVELS, "-o", str(self.scratch / "out"), "--prune",
                               "0", "--steps", "0", "-q"], capture_output=True, timeout=60,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
        self.assertEqual(done.returncode, 6, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1)
        self.assertEqual(os.listdir(self.scratch), [])


class Interrupt(Case):
    def stop(self, words, number, wait_for):
        child = subprocess.Popen([SFQ, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(child)
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
        return child.returncode, out, err.decode()

    def test_run(self):
        words = ["run", NOVELS, "-p", "The", "-n", "1000", "--ignore-eos", "--threads", "1"]
        for number in (signal.SIGINT, signal.SIGTERM):
            status, _, err = self.stop(words, number, lambda child: child.stdout.read(1))
            self.assertEqual(status, 130, err)
            self.assertTrue(err.startswith("sfq: "), err)
            self.assertEqual(len(err.splitlines()), 1, err)

    def test_waiting_for_input(self):
        child = subprocess.Popen([SFQ, "run", NOVELS, "-"], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        child.stdin.write(b"a" * (1 << 20))  # returns when most of it was read
        child.stdin.flush()
        child.send_signal(signal.SIGINT)
        self.assertEqual((child.wait(60), child.stderr.read()), (130, b"sfq: interrupted\n"))
        for stream in (child.stdin, child.stdout, child.stderr):
            stream.close()

    def test_compress_leaves_the_output(self):
        text, out = self.scratch / "text", self.scratch / "out"
        text.write_text("It was a dark and stormy night; the rain fell in torrents. " * 4000)
        shutil.copytree(NOVELS, out)
        before = {f.name: f.read_bytes() for f in out.iterdir()}

        def measuring(child):
            select.select([child.stderr], [], [], 30)
            time.sleep(0.2)

        words = ["compress", NOVELS, "-o", str(out), "--force", "--prune", "0", "--steps", "0",
                 "--text", str(text)]
        status, _, err = self.stop(words, signal.SIGINT, measuring)
        self.assertEqual(status, 130, err)
        self.assertEqual(before, {f.name: f.read_bytes() for f in out.iterdir()})
        self.assertEqual(sorted(os.listdir(self.scratch)), ["out", "text"])


class Compress(Case):
    DATA_FREE = ("--prune", "0", "--steps", "0")

    def test_artifact(self):
        out = self.scratch / "out"
        value = self.object("compress", NOVELS, "-o", str(out), *self.DATA_FREE, "-q")
        for key in ("output recipe original_bytes bytes reduction scale_overhead pruned "
                    "calibration stages baseline compressed drop seconds stopped_by").split():
            self.assertIn(key, value)
        self.assertEqual(set(value["pruned"]), {"heads", "neurons", "fraction"})
        self.assertLessEqual({"sequences", "tokens", "fraction"}, set(value["calibration"]))
        self.assertEqual(value["output"], str(out))
        self.assertEqual(value["bytes"], os.path.getsize(out / "model.safetensors"))
        self.assertGreater(value["reduction"], 0.4)
        self.assertLess(value["scale_overhead"], 0.003)
        inspected = self.object("inspect", str(out), "--verify")
        for key in ("bytes", "original_bytes", "reduction", "scale_overhead"):
            self.assertEqual(inspected[key], value[key], key)
        report = json.loads((out / "sfq_report.json").read_text())
        self.assertIsInstance(report, dict)
        error = self.refused(2, "compress", NOVELS, "-o", str(out), *self.DATA_FREE,
                             says=[str(out), "force"])
        self.assertEqual(error["code"], "E_EXISTS")
        self.good("compress", NOVELS, "-o", str(out), *self.DATA_FREE, "--force", "-q")

    def test_defaults(self):
        """0.40, and steps by the calibration size: encoders need data for that, language models
        do not."""
        out = str(self.scratch / "out")
        for words in (["-o", out], ["-o", out, "--plan"], ["--plan"], ["--plan", "--prune", "0"],
                      ["--plan", "--steps", "0"]):
            self.refused(2, "compress", SST2, *words, says=["data", "--prune 0", "--steps 0"])
        self.refused(2, "compress", SST2, "-o", out, "--task", "sst2", "--data", "x", "-q",
                     says=["x"])
        self.assertEqual(os.listdir(self.scratch), [])
        pruned = self.object("compress", NOVELS, "--plan")
        whole = self.object("compress", NOVELS, "--plan", *self.DATA_FREE)
        self.assertLess(pruned["bytes"], 0.8 * whole["bytes"])
        self.assertGreater(pruned["plan"]["seconds"], whole["plan"]["seconds"])
        self.assertGreater(pruned["plan"]["memory_bytes"], whole["plan"]["memory_bytes"])
        self.assertGreater(pruned["plan"]["disk_bytes"], whole["plan"]["disk_bytes"])

    def test_plan(self):
        value = self.object("compress", NOVELS, "--plan", *self.DATA_FREE)
        self.assertEqual(set(value["plan"]), {"memory_bytes", "disk_bytes", "seconds"})
        out = self.scratch / "out"
        made = self.object("compress", NOVELS, "-o", str(out), *self.DATA_FREE, "-q")
        self.assertLess(abs(made["bytes"] - value["bytes"]), 0.01 * made["bytes"])
        text = self.good("compress", NOVELS, "--plan", *self.DATA_FREE)
        for word in ("size", "memory", "disk", "time"):
            self.assertIn(word, text)

    def test_bits_for(self):
        names = ["--bits", "4", "--bits-for", "down_proj=8", "--bits-for", "(?=mlp).*up_proj=6"]
        out = self.scratch / "out"
        mixed = self.object("compress", NOVELS, "-o", str(out), *self.DATA_FREE, *names, "-q")
        plain = self.object("compress", NOVELS, "--plan", *self.DATA_FREE, "--bits", "4")
        self.assertGreater(mixed["bytes"], plain["bytes"])
        self.refused(2, "compress", NOVELS, "--plan", *self.DATA_FREE, "--keep", "(",
                     says=["("])

    def test_progress(self):
        """Evaluations inside a compression count as its stages."""
        text = self.scratch / "text"
        text.write_text("It was a dark night. " * 40)
        status, _, err = sfq("compress", NOVELS, "-o", str(self.scratch / "out"), *self.DATA_FREE,
                             "--text", str(text))
        self.assertEqual(status, 0, err)
        stages = [line.split()[1:3] for line in err.splitlines()]
        for index, name in enumerate("check baseline fuse evaluate write".split(), 1):
            self.assertIn([f"{index}/5", name], stages)
        self.assertEqual({n for n, _ in stages}, {f"{i}/5" for i in range(1, 6)})
        self.assertNotIn(" 0 bytes", err)

    def test_card(self):
        out = self.scratch / "out"
        self.good("compress", NOVELS, "-o", str(out), *self.DATA_FREE, "-q", "--keep", "layers.0")
        self.assertIn("`keep`", (out / "README.md").read_text())
        self.good("compress", NOVELS, "-o", str(out), *self.DATA_FREE, "-q", "--force")
        self.assertNotIn("`keep`", (out / "README.md").read_text())

    def test_verify(self):
        out = self.scratch / "out"
        self.good("compress", NOVELS, "-o", str(out), *self.DATA_FREE, "-q")
        weights = out / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-100000] ^= 1
        weights.write_bytes(data)
        self.good("inspect", str(out))
        error = self.refused(2, "inspect", str(out), "--verify", "-q", says=["damaged"])
        self.assertEqual((error["code"], error["file"]), ("E_CHECKSUM", str(weights)))
        self.assertTrue(error["tensor"].endswith(".codes"))
        status, _, err = sfq("inspect", NOVELS, "--verify")
        self.assertEqual(status, 0, err)
        self.assertIn("56 of 56 tensors carry no checksum", err)

    def test_errors_name_the_file(self):
        """By its path, in one way, whoever finds the fault; a tensor that is missing lies nowhere:
        there it is the directory."""
        model = pathlib.Path(one_output(self.scratch / "m"))
        weights = model / "model.safetensors"
        good = weights.read_bytes()
        weights.write_bytes(good.replace(b"pooler.dense.bias", b"pooler.dense.bogs"))
        for verb in (["inspect"], ["compress", "-o", str(self.scratch / "o"), *self.DATA_FREE]):
            error = self.refused(2, verb[0], str(model), *verb[1:], says=["pooler.dense.bias"])
            self.assertEqual((error["file"], error["tensor"]),
                             (str(model), "bert.pooler.dense.bias"))
        weights.write_bytes(good[:-2] + b"\xff\x7f")
        for verb in (["inspect", "--verify", "-q"],
                     ["compress", "-o", str(self.scratch / "o"), *self.DATA_FREE, "-q"]):
            error = self.refused(2, verb[0], str(model), *verb[1:], says=[str(weights)])
            self.assertEqual((error["code"], error["file"]), ("E_NUMERIC", str(weights)))

    def test_guard(self):
        text, out = self.scratch / "text", self.scratch / "out"
        text.write_text(self.good("run", NOVELS, "-p", "The", "-n", "300", "--ignore-eos"))
        words = ["compress", NOVELS, "-o", str(out), *self.DATA_FREE, "--bits", "2", "--text",
                 str(text), "--max-drop", "0.001", "-q", "--json"]
        status, stdout, err = sfq(*words)
        self.assertEqual(status, 3, err)
        value = json.loads(stdout)
        self.assertEqual(value["error"]["code"], "E_GUARD")
        self.assertEqual(value["output"], str(out) + ".rejected")
        self.assertEqual(os.listdir(self.scratch).count("out"), 0)
        self.good("inspect", value["output"])

    def test_output_is_input(self):
        copy = self.scratch / "m"
        shutil.copytree(NOVELS, copy)
        (self.scratch / "link").symlink_to("m")
        for out in (copy, self.scratch / "link", f"{copy}/.", f"{copy}/../m/", self.scratch):
            for force in ([], ["--force"]):
                self.refused(2, "compress", str(copy), "-o", str(out), *self.DATA_FREE, *force,
                             says=["the model"])
        self.assertEqual(sorted(os.listdir(self.scratch)), ["link", "m"])


class Pages(Case):
    def test_bash(self):
        script = BUILD / "completions/sfq.bash"
        tail = ('COMP_WORDS=(sfq compress --emb); COMP_CWORD=2; _sfq; echo "${COMPREPLY[@]}"; '
                'COMP_WORDS=(sfq tok); COMP_CWORD=1; _sfq; echo "${COMPREPLY[@]}"')
        done = subprocess.run(["bash", "-c", f'source "{script}"; {tail}'], capture_output=True,
                              text=True, timeout=20)
        self.assertEqual((done.stdout, done.stderr), ("--embedding-bits\ntokenize\n", ""))

    def test_other_shells(self):
        for shell, name in (("zsh", "_sfq"), ("fish", "sfq.fish")):
            script = BUILD / "completions" / name
            self.assertIn("embedding-bits", script.read_text())
            if shutil.which(shell):
                subprocess.run([shell, "-n", str(script)], check=True, timeout=20)

    def test_every_option_is_everywhere(self):
        for verb in VERBS:
            page = (BUILD / f"man/sfq-{verb}.1").read_text().replace("\\-", "-")
            text = self.good(verb, "--help")
            for word in text.split():
                if word.startswith("--") and word[2:].isalpha():
                    self.assertIn(word, page, verb)

    def test_manual(self):
        pages = sorted((BUILD / "man").glob("*.1"))
        self.assertEqual(len(pages), 1 + len(VERBS))
        if shutil.which("mandoc"):
            check = ["mandoc", "-T", "lint", "-W", "error"]
        elif shutil.which("groff"):
            check = ["groff", "-man", "-Tutf8", "-ww", "-z"]
        else:
            self.skipTest("neither mandoc nor groff is here")
        for page in pages:
            done = subprocess.run([*check, str(page)], capture_output=True, text=True, timeout=20)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""), page.name)


if __name__ == "__main__":
    sys.exit(unittest.main())
