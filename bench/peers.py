#!/usr/bin/env python3
"""`sfq` beside llama.cpp, onnxruntime, OpenVINO and CTranslate2 on this machine, on the same shapes
with random weights. Interleaved pairs (ours, theirs, ours, ...), medians of the pairs' ratios.

    bench/peers.py setup --work DIR            peers and models, once: 17 GB, an hour or so
    bench/peers.py run   --work DIR [--rows decode-q8_0,bert-8,...] [--pairs 7]
    bench/peers.py table [--csv FILE]          bench/peers_CLASS.csv as Markdown; CLASS is amx,
                                               avx512 or avx2: this machine's
    bench/peers.py rows                        the names of the rows

The peers come from PyPI into an environment under DIR: llama.cpp is built from the source package
of llama-cpp-python for this processor; nothing of it is needed to build or to test sfq. Every step
of the set-up and every row of the table is done once: what is there is not done again (--again).
Peers get their best flags: a short sweep before the first pair, kept in DIR/sweep.json. A row whose
probe before and after differs by more than 10 % is measured again, at most twice, and then dropped
(--keep-drift keeps it, marked). A row that fails is named, and the next one follows. Only the
standard library is used here.
"""

import argparse
import csv
import datetime
import hashlib
import json
import os
import pathlib
import select
import shutil
import statistics
import subprocess
import sys
import tarfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SFQ = ROOT / "build/bin/sfq"
HERE = ROOT / "bench"
PACKAGES = ("numpy gguf onnx onnxruntime openvino nncf ctranslate2 torch==2.13.0 "
            "transformers<6").split()
LLAMA = "llama-cpp-python==0.3.36"
QUANTS = "Q8_0 Q6_K Q5_K_M Q4_K_M Q4_0 Q3_K_M Q2_K".split()
DRIFT = 0.10
# Our shapes lie in huge pages; with this weights that llama.cpp copies (-lm none) do, too.
HUGE_PAGES = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1"


def machine_class():
    """The classes of machines whose figures may stand in one table."""
    flags = pathlib.Path("/proc/cpuinfo").read_text().split("\nflags", 1)[1].splitlines()[0].split()
    return "amx" if "amx_int8" in flags else "avx512" if "avx512_vnni" in flags else "avx2"


# Quant: our bits, bits of our tables and head, floors of decode and of prefill 512.
# llama.cpp keeps the head of its K-quants and of Q4_0 at 6 bits; so do we beside them.
LLM = {
    "q8_0": (8, 8, 1.05, 3.0), "q6_k": (6, 6, 1.10, None), "q5_k_m": (5, 6, 1.10, None),
    "q4_k_m": (4, 6, 1.10, 3.0), "q4_0": (4, 6, 1.10, 3.0), "q3_k_m": (3, 6, 1.30, None),
    "q2_k": (2, 6, None, None), "f16": (16, None, 1.0, None),
}
PRUNED_FLOORS = {"decode": 3.0, "prefill": 2.0}
ENCODERS = {  # shape, batch, length, our activation bits (0: as compress chooses), floor
    "bert-8": ("bert-base", 8, 128, 0, 1.0), "bert-32": ("bert-base", 32, 128, 0, 1.0),
    "bert-8-a8": ("bert-base", 8, 128, 8, 1.0), "bert-32-a8": ("bert-base", 32, 128, 8, 1.0),
    "minilm-1": ("minilm", 1, 16, 0, 1.2),
}
if machine_class() == "avx2":  # other floors; above are those of AVX-512 and AMX
    LLM |= {
        "q8_0": (8, 8, 1.05, 2.2), "q6_k": (6, 6, 1.35, None), "q5_k_m": (5, 6, 1.35, None),
        "q4_k_m": (4, 6, 1.25, 2.0), "q4_0": (4, 6, 1.12, 2.0), "q3_k_m": (3, 6, 1.50, None),
    }
    ENCODERS = {name: (*row[:4], 1.3 if row[0] == "minilm" else 1.1)
                for name, row in ENCODERS.items()}
    ENCODERS |= {f"{name}-exact": ENCODERS[name] for name in ("bert-8", "bert-32", "minilm-1")}
    PRUNED_FLOORS["prefill"] = 2.5
VARIANTS = {
    "onnxruntime": ("int8-f32", "uint8-f32", "int8-fused", "uint8-fused"),
    "openvino": ("openvino-int8", "openvino-weights"),
    "ctranslate2": ("int8",),
}
# Without VNNI onnxruntime adds products of signed weights in 16 bits, which saturate: 64 times
# 255 * 127 gives 1,048,544 for 2,072,640. Rows named -exact stand beside its unsigned weights.
EXACT = VARIANTS | {"onnxruntime": ("uint8-f32", "uint8-fused")}
EXTRA = ("decode-q2_k", "prefill-f16")  # no floor is set for them: only where they are named
SHARE_FLOORS = {8: 0.90, 7: 0.90, 6: 0.90, 5: 0.90, 4: 0.90, 3: 0.85, 2: 0.80, 16: 0.85}

FIELDS = ("row metric unit ours ours_min ours_max peer peer_name peer_flags peer_min peer_max "
          "ratio ratio_min ratio_max floor pairs ours_bytes_per_token peer_bytes_per_token "
          "bandwidth_share multiply_share products_per_mac probe_read probe_peak drift isa threads "
          "date").split()


def say(*words):
    print(f"[{datetime.datetime.now():%H:%M:%S}]", *words, file=sys.stderr, flush=True)


def call(*args, timeout=3600, **more):
    return subprocess.run([str(a) for a in args], check=True, timeout=timeout, **more)


def output(*args, timeout=900, env=None):
    done = subprocess.run([str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=timeout, env=env)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, args))}: exit {done.returncode}\n"
                           + done.stderr.decode()[-2000:])
    return done.stdout.decode()


# ---- set-up -------------------------------------------------------------------------------------

class Work:
    """The folder of the peers: where things are, and the steps that are done."""

    def __init__(self, folder):
        self.dir = pathlib.Path(folder).resolve()
        self.python = self.dir / "venv/bin/python"
        self.bin = self.dir / "llama/bin"
        self.models = self.dir / "models"

    def done(self, name):
        return (self.dir / "done" / name).exists()

    def step(self, name, action):
        if self.done(name):
            return
        say("set-up:", name)
        action()
        (self.dir / "done").mkdir(parents=True, exist_ok=True)
        (self.dir / "done" / name).touch()

    def gguf(self, quant):
        return self.models / f"llama-1b-{quant}.gguf"


def install(w):
    call(sys.executable, "-m", "venv", w.dir / "venv")
    call(w.python, "-m", "pip", "install", "-q", *PACKAGES)


def build_llama(w, jobs):
    """Its C++ programs alone, for this processor; no web server, no tests."""
    call(w.python, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "llama-cpp-python",
         LLAMA, "-d", w.dir / "sdist")
    (archive,) = (w.dir / "sdist").glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(w.dir / "src", filter="data")
    (source,) = (w.dir / "src").glob("*/vendor/llama.cpp")
    # GCC 12's _tile_loadconfig does not say that it reads the whole struct: the stores into it are
    # dropped and AMX crashes. (Newer compilers do not need this.)
    amx = source / "ggml/src/ggml-cpu/amx/mmq.cpp"
    barrier = '__asm__ volatile("" : : "r"(&tc) : "memory");'
    amx.write_text(amx.read_text().replace("_tile_loadconfig(&tc);",
                                           barrier + " _tile_loadconfig(&tc);"))
    call("cmake", "-S", source, "-B", w.dir / "llama", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
         "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF",
         "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DBUILD_SHARED_LIBS=OFF",
         stdout=subprocess.DEVNULL)
    call("ninja", "-C", w.dir / "llama", f"-j{jobs}", "llama-bench", "llama-quantize",
         stdout=subprocess.DEVNULL, timeout=4 * 3600)
    shutil.rmtree(w.dir / "src")
    shutil.rmtree(w.dir / "sdist")


def quantize(w, quant):
    part = w.gguf(quant).with_suffix(".part")
    call(w.bin / "llama-quantize", w.gguf("f16"), part, quant.upper(), 2,
         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part.rename(w.gguf(quant))


def artifact_step():
    """Made anew when the script that makes it, and so perhaps its bytes, has changed."""
    return "artifact-" + hashlib.sha256((HERE / "peer_models.py").read_bytes()).hexdigest()[:8]


def setup(w, jobs):
    w.models.mkdir(parents=True, exist_ok=True)
    script = HERE / "peer_models.py"
    w.step("venv", lambda: install(w))
    w.step("llama", lambda: build_llama(w, jobs))
    for shape in ("minilm", "bert-base"):
        w.step(shape, lambda: call(w.python, script, "encoder", shape, w.models / shape,
                                   stdout=subprocess.DEVNULL))
    w.step(artifact_step(), lambda: call(w.python, script, "artifact", w.models / "llama-1b-sfq",
                                         ROOT / "models/novels-5m"))
    w.step("f16", lambda: call(w.python, script, "gguf", w.gguf("f16"), stdout=subprocess.DEVNULL))
    for quant in QUANTS:
        w.step(quant.lower(), lambda: quantize(w, quant.lower()))
    say("set-up: done,", round(sum(f.stat().st_size for f in w.dir.rglob("*") if f.is_file()) / 1e9,
                               1), "GB in", w.dir)


# ---- ours ---------------------------------------------------------------------------------------

def sfq_json(*args, timeout=1800):
    return json.loads(output(SFQ, *args, "--json", "-q", timeout=timeout))


def ours(shape, bits, threads, prompt, generate, embedding=None, batch=1, rounds=1, more=()):
    extra = ["--embedding-bits", embedding] if embedding else []
    return sfq_json("bench", "--shape", shape, "--bits", bits, *extra, "--threads", threads,
                    "--prompt-tokens", prompt, "--generate-tokens", generate, "--batch", batch,
                    "--rounds", rounds, *more)


def probe(threads):
    """Read bandwidth, and the highest multiply peak."""
    value = sfq_json("bench", "--probe", "--threads", threads)
    p = value["probe"]
    return p["read_bytes_per_second"], max(x["macs_per_second"] for x in p["peaks"])


# ---- llama.cpp ----------------------------------------------------------------------------------

def llama_bench(w, quant, flags, *more):
    """What llama-bench says as JSON. A NAME=VALUE among the flags is for its environment."""
    words = flags.split()
    env = {**os.environ, **dict(word.split("=", 1) for word in words if "=" in word)}
    return json.loads(output(w.bin / "llama-bench", "-m", w.gguf(quant),
                             *(word for word in words if "=" not in word), *more, "-r", 1, "-o",
                             "json", env=env))


def llama_rate(w, quant, flags, prompt, generate):
    """Tokens per second of the prompt, or of generation."""
    return llama_bench(w, quant, flags, "-p", prompt, "-n", generate)[0]["avg_ts"]


def flag_line(flags):
    return " ".join(f"{k} {v}".strip() for k, v in flags.items())


def sweep_llama(w, quant, threads, metric, sweep):
    """The best of 1..n threads, flash attention, repacking and weights copied instead of mapped,
    also to huge pages, one after the other, on a short run of the metric: a change stays where it
    beats what was best so far in turns with it."""
    name = f"llama.cpp {quant} {metric} {threads}"
    size = (128, 0) if metric == "prefill" else (0, 12)
    if name not in sweep:
        best = {"-t": threads, "-fa": "on", "--repack": 1}
        for change in ({"-t": 1}, {"-fa": "off"}, {"--repack": 0}, {"-lm": "none"},
                       {"-lm": "none", HUGE_PAGES: ""}):
            tried = {**best, **change}
            try:
                pairs = [[llama_rate(w, quant, flag_line(f), *size) for f in (best, tried)]
                         for _ in range(3)]
            except RuntimeError as why:
                say(f"sweep {quant} {metric}: {flag_line(tried)}:", str(why).splitlines()[0][-10:])
                continue
            gain = statistics.median(b / a for a, b in pairs)
            say(f"sweep {quant} {metric}: {flag_line(tried)}: {gain:.2f} times {flag_line(best)}")
            if gain > 1:
                best = tried
        sweep[name] = flag_line(best)
    return sweep[name]


def gguf_bytes_per_token(w, quant, position):
    """All tensors but the word table, and an F16 cache of that many positions."""
    code = ("import sys; from gguf import GGUFReader; print(sum(int(t.n_bytes) for t in "
            "GGUFReader(sys.argv[1]).tensors if t.name != 'token_embd.weight'))")
    weights = int(output(w.python, "-c", code, w.gguf(quant)))
    return weights + 2 * 2 * 16 * 8 * 64 * position


# ---- encoders -----------------------------------------------------------------------------------

class Encoder:
    """A library's process, idle between measurements."""

    def __init__(self, w, library, variant, shape, threads):
        self.name, self.variant = library, variant
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [w.python, HERE / "peer_encoders.py", library, variant, w.models / shape, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)

    def seconds(self, batch, length, budget):
        ask = {"batch": batch, "length": length, "seconds": budget}
        self.process.stdin.write(json.dumps(ask).encode() + b"\n")
        self.process.stdin.flush()
        ready = select.select([self.process.stdout], [], [], 900)[0]
        answer = self.process.stdout.readline() if ready else b""
        if not answer:
            raise RuntimeError(f"{self.name} {self.variant}: no answer")
        return json.loads(answer)["seconds"]

    def close(self):
        self.process.kill()
        self.process.wait()


def best_encoders(w, shape, batch, length, threads, sweep, exact):
    """One process per library, with its fastest variant for this case."""
    chosen = []
    for library, variants in (EXACT if exact else VARIANTS).items():
        name = f"{shape} {batch}x{length} {library} {threads}" + (" exact" if exact else "")
        if name not in sweep:
            rates = []
            for variant in variants:
                e = Encoder(w, library, variant, shape, threads)
                try:
                    rates.append((e.seconds(batch, length, 0.5), variant))
                    say(f"sweep {name}: {variant}: {1e3 * rates[-1][0]:.2f} ms")
                except (RuntimeError, OSError) as why:
                    say(f"sweep {name}: {why}")
                e.close()
            sweep[name] = min(rates)[1] if rates else ""
        if sweep[name]:
            chosen.append(Encoder(w, library, sweep[name], shape, threads))
    return chosen


# ---- rows ---------------------------------------------------------------------------------------

class Run:
    """One session of measuring: the folder, the options, what the sweeps found."""

    def __init__(self, w, args):
        self.w, self.threads, self.pairs = w, args.threads, args.pairs
        self.sweep_file = w.dir / "sweep.json"
        self.sweep = json.loads(self.sweep_file.read_text()) if self.sweep_file.exists() else {}

    def save(self):
        part = self.sweep_file.with_suffix(".part")
        part.write_text(json.dumps(self.sweep, indent=1, sort_keys=True) + "\n")
        part.replace(self.sweep_file)


def spread(prefix, values):
    return {prefix: statistics.median(values), prefix + "_min": min(values),
            prefix + "_max": max(values)}


def paired(mine, theirs, higher=True):
    """Medians of both, and of the ratios pair by pair; above 1 we are better."""
    ratios = [a / b if higher else b / a for a, b in zip(mine, theirs)]
    return {**spread("ours", mine), **spread("peer", theirs), **spread("ratio", ratios),
            "pairs": len(mine)}


def figures(model):
    return {"ours_bytes_per_token": round(model["bytes_per_token"]),
            "bandwidth_share": model["read_bandwidth_share"],
            "multiply_share": model["multiply_share"],
            "products_per_mac": model["products_per_mac"]}


def median_figures(models):
    keys = figures(models[0])
    return {k: statistics.median(figures(m)[k] or 0 for m in models) for k in keys}


def of_phase(shares, metric):
    """Without the shares of the other phase."""
    other = {"decode": ("multiply_share", "products_per_mac"), "prefill": ("bandwidth_share",)}
    return {k: v for k, v in shares.items() if k not in other[metric]}


def llm_row(run, quant, metric):
    """Decode of 32 tokens behind a prompt of one, or a prompt of 512, llama-1b."""
    bits, embedding, decode_floor, prefill_floor = LLM[quant]
    prompt, generate = (512, 1) if metric == "prefill" else (1, 32)
    flags = sweep_llama(run.w, quant, run.threads, metric, run.sweep)
    run.save()
    size = (512, 0) if metric == "prefill" else (0, 32)
    mine, theirs, models = [], [], []
    for _ in range(run.pairs):
        value = ours("llama-1b", bits, run.threads, prompt, generate, embedding)
        models.append(value["models"][0])
        mine.append(models[-1][f"{metric}_tokens_per_second"])
        theirs.append(llama_rate(run.w, quant, flags, *size))
    shares = of_phase(median_figures(models), metric)
    return {"metric": f"{metric}, {bits} bits", "unit": "tokens/s", **paired(mine, theirs),
            **shares, "peer_name": f"llama.cpp {quant.upper()}",
            "peer_flags": flags, "floor": decode_floor if metric == "decode" else prefill_floor,
            "peer_bytes_per_token": gguf_bytes_per_token(run.w, quant, prompt + generate // 2),
            "isa": value["isa"]}


def encoder_row(run, name):
    shape, batch, length, activation, floor = ENCODERS[name]
    exact = name.endswith("-exact")
    peers = best_encoders(run.w, shape, batch, length, run.threads, run.sweep, exact)
    run.save()
    rounds = 5 if shape == "bert-base" else 301
    mine, theirs, models = [], [[] for _ in peers], []
    try:
        for _ in range(run.pairs):
            value = ours(shape, 8, run.threads, length, 1, batch=batch, rounds=rounds,
                         more=["--activation-bits", activation])
            models.append(value["models"][0])
            mine.append(models[-1]["prefill_tokens_per_second"])
            for rates, peer in zip(theirs, peers):
                rates.append(batch * length / peer.seconds(batch, length, 1.0))
    finally:
        for peer in peers:
            peer.close()
    order = sorted(range(len(peers)), key=lambda i: -statistics.median(theirs[i]))
    for i in order[1:]:
        say(f"{name}: {peers[i].name} {peers[i].variant}: "
            f"{statistics.median(theirs[i]):.0f} tokens/s, not the best")
    best = order[0]
    read = f", {activation}-bit inputs" if activation else ", exact peers" if exact else ""
    return {"metric": f"{shape} {batch} x {length}, 8 bits{read}", "unit": "tokens/s",
            **paired(mine, theirs[best]), **median_figures(models), "peer_name": peers[best].name,
            "peer_flags": peers[best].variant, "floor": floor, "isa": value["isa"]}


def share_rows(run, shape):
    """Ours alone: the share of the probed bandwidth in decode, at every number of bits."""
    bits = [8, 7, 6, 5, 4, 3, 2]
    value = ours(shape, bits[0], run.threads, 1, 16, rounds=run.pairs,
                 more=["--against-bits", ",".join(map(str, bits[1:]))])
    for b, model in zip(bits, value["models"]):
        yield {"metric": f"decode, {b} bits, share of bandwidth", "unit": "tokens/s",
               "ours": model["decode_tokens_per_second"], "pairs": run.pairs,
               "ours_bytes_per_token": round(model["bytes_per_token"]),
               "bandwidth_share": model["read_bandwidth_share"],
               "ratio": model["read_bandwidth_share"], "floor": SHARE_FLOORS[b],
               "peer_name": "probe", "isa": value["isa"]}


def pruned_row(run):
    """7B, 8 bits, 40 % pruned, beside our own 16 bits: rounds take turns inside the program."""
    value = ours("llama-7b", 8, run.threads, 512, 8, rounds=run.pairs,
                 more=["--prune", 0.4, "--against-bits", 16])
    mine, dense = value["models"]
    for metric, floor in PRUNED_FLOORS.items():
        key = f"{metric}_tokens_per_second"
        yield {"metric": f"{metric}, 8 bits, 40 % pruned", "unit": "tokens/s", "ours": mine[key],
               "peer": dense[key], "peer_name": "sfq, 16 bits", "ratio": mine[key] / dense[key],
               "floor": floor, "pairs": run.pairs, **of_phase(figures(mine), metric),
               "peer_bytes_per_token": round(dense["bytes_per_token"]), "isa": value["isa"]}


def prompt_of(artifact, tokens):
    """A text that is exactly so many tokens."""
    text = "once"
    for _ in range(4 * tokens):
        if len(sfq_json("tokenize", artifact, "-p", text)["ids"]) == tokens:
            return text
        text += " once"
    raise RuntimeError("no text has that many tokens")


def timed(*args):
    begin = time.perf_counter()
    output(*args)
    return time.perf_counter() - begin


def llama_first(w, threads, flags):
    """Seconds of a whole llama-bench that reads a prompt of 16: its logits are the first token's."""
    begin = time.perf_counter()
    llama_bench(w, "q8_0", f"-t {threads} {flags}", "-p", 16, "-n", 0, "--no-warmup")
    return time.perf_counter() - begin


def sweep_first(w, threads, sweep):
    name = f"llama.cpp first token {threads}"
    if name not in sweep:
        fastest = float("inf")
        for flags in (f"--repack {r} -fa on -lm {m}" for r in (0, 1) for m in ("mmap", "none")):
            try:
                seconds = min(llama_first(w, threads, flags) for _ in range(3))
            except RuntimeError as why:
                say(f"sweep first token: {flags}:", str(why).splitlines()[0])
                continue
            say(f"sweep first token: {flags}: {seconds:.3f} s")
            if seconds < fastest:
                sweep[name], fastest = flags, seconds
    return sweep[name]


def load_row(run):
    """From starting the program to its first token behind a prompt of 16, files in the cache."""
    w, artifact = run.w, run.w.models / "llama-1b-sfq"
    prompt = prompt_of(artifact, 16)
    flags = sweep_first(w, run.threads, run.sweep)
    run.save()
    mine, theirs = [], []
    for _ in range(run.pairs):
        mine.append(timed(SFQ, "run", artifact, "-p", prompt, "-n", 1, "--ignore-eos", "-q",
                          "--threads", run.threads))
        theirs.append(llama_first(w, run.threads, flags))
    return {"metric": "start to first token, 8 bits", "unit": "s",
            **paired(mine, theirs, higher=False), "peer_name": "llama.cpp Q8_0",
            "peer_flags": flags, "floor": 2.0}


def watch(processes):
    """Sums of PSS over all processes, sampled while all of them live."""
    sums = []
    while all(p.poll() is None for p in processes):
        total = 0
        try:
            for p in processes:
                text = pathlib.Path(f"/proc/{p.pid}/smaps_rollup").read_text()
                total += int(text.split("\nPss:")[1].split()[0]) * 1024
            sums.append(total)
        except (OSError, IndexError):
            break
        time.sleep(0.1)
    return sums


def start_run(artifact, threads, generate):
    return subprocess.Popen([SFQ, "run", artifact, "-p", "once", "-n", str(generate),
                             "--ignore-eos", "--threads", str(threads), "--json", "-q"],
                            stdout=subprocess.PIPE)


def together(artifact, count, threads, generate):
    """Median PSS of the last third, and the summed rate."""
    processes = [start_run(artifact, threads, generate) for _ in range(count)]
    sums = watch(processes)
    rate = 0
    for p in processes:
        out = p.communicate()[0]
        if p.returncode != 0:
            raise RuntimeError(f"sfq run: exit {p.returncode}")
        done = json.loads(out)
        rate += done["tokens"] / done["decode_seconds"]
    return statistics.median(sums[-(len(sums) // 3 + 1):]), rate


def four_rows(run):
    artifact = run.w.models / "llama-1b-sfq"
    weights = (artifact / "model.safetensors").stat().st_size
    extra, one_rates, four_rates = [], [], []
    for _ in range(min(run.pairs, 3)):
        one, rate = together(artifact, 1, run.threads, 96)
        one_rates.append(rate)
        four, rate = together(artifact, 4, 1, 96)
        four_rates.append(rate)
        extra.append((four - one) / weights)
    yield {"metric": "4 processes: memory beyond the first, share of the weights", "unit": "",
           **spread("ours", extra), "pairs": len(extra), "floor": "<= 0.15",
           "ratio": statistics.median(extra), "peer_name": "1 process"}
    yield {"metric": "4 processes: summed decode", "unit": "tokens/s",
           **paired(four_rates, one_rates), "peer_name": "1 process, all threads", "floor": 0.9}


def all_rows():
    rows = {f"decode-{q}": lambda run, q=q: [llm_row(run, q, "decode")] for q in LLM}
    rows |= {f"prefill-{q}": lambda run, q=q: [llm_row(run, q, "prefill")]
             for q in LLM if LLM[q][3] or q == "f16"}
    rows |= {name: lambda run, n=name: [encoder_row(run, n)] for name in ENCODERS}
    rows |= {"load": lambda run: [load_row(run)], "four": lambda run: list(four_rows(run)),
             "share-1b": lambda run: list(share_rows(run, "llama-1b")),
             "share-3b": lambda run: list(share_rows(run, "llama-3b")),
             "pruned-7b": lambda run: list(pruned_row(run))}
    return rows


# ---- the table ----------------------------------------------------------------------------------

def read_csv(path):
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_csv(path, lines):
    part = path.with_suffix(".part")
    with open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(lines)
    part.replace(path)


def rounded(value):
    return f"{value:.6g}" if isinstance(value, float) else value


def measure(run, action):
    """The lines of a row, with the drift between the probes before and after it."""
    before = probe(run.threads)
    lines = action(run)
    after = probe(run.threads)
    drift = max(abs(b / a - 1) for a, b in zip(before, after))
    for line in lines:
        line |= {"probe_read": before[0], "probe_peak": before[1], "drift": drift,
                 "threads": run.threads, "date": f"{datetime.date.today()}"}
    return lines, drift


def is_of(line, name, args):
    return line["row"] == name and line["threads"] == str(args.threads)


def run_row(run, name, action, args):
    """Measures a row, more than once if the machine changed meanwhile, and writes it down."""
    begin = time.perf_counter()
    for attempt in range(3):
        lines, drift = measure(run, action)
        if drift <= DRIFT or args.keep_drift:
            break
        say(f"{name}: the probe drifted by {100 * drift:.0f} %, "
            + ("dropped" if attempt == 2 else "once more"))
    if drift > DRIFT and not args.keep_drift:
        return
    fresh = [{k: rounded(v) for k, v in {"row": name, **line}.items()} for line in lines]
    write_csv(args.csv, [x for x in read_csv(args.csv) if not is_of(x, name, args)] + fresh)
    say(f"{name}: {time.perf_counter() - begin:.0f} s;",
        "; ".join(f"{line['metric']}: {line['ratio']:.3f}" for line in lines))


def run_rows(w, args):
    rows, run = all_rows(), Run(w, args)
    names = args.rows.split(",") if args.rows else [n for n in rows if n not in EXTRA]
    unknown = [n for n in names if n not in rows]
    if unknown:
        sys.exit(f"no such row: {', '.join(unknown)}; there are {', '.join(rows)}")
    failed = []
    for name in names:
        if not args.again and any(is_of(line, name, args) for line in read_csv(args.csv)):
            continue
        try:
            run_row(run, name, rows[name], args)
        except (RuntimeError, LookupError, OSError, subprocess.SubprocessError) as why:
            say(f"{name}: failed:", why)
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def number(text, scale=1.0, digits=3):
    return f"{float(text) / scale:.{digits}g}" if text else ""


def percent(text):
    return f"{100 * float(text):.0f} %" if text and float(text) > 0 else ""


def rate(line, who):
    value = float(line[who]) if line[who] else None
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def table(path):
    print("| case | ours | peer | | ratio (least, most) | floor | MB/token, ours / peer | "
          "bandwidth | multiply peak | drift |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for line in read_csv(path):
        spread_text = (f" ({number(line['ratio_min'])}, {number(line['ratio_max'])})"
                       if line["ratio_min"] else "")
        both = " / ".join(number(line[f"{who}_bytes_per_token"], 1e6) for who in ("ours", "peer"))
        products = line["products_per_mac"]
        products = f" x {number(products)}" if products and float(products) > 1 else ""
        share = percent(line["multiply_share"])
        print(f"| {line['row'].split('-')[0]}: {line['metric']} | {rate(line, 'ours')} | "
              f"{rate(line, 'peer')} | {line['peer_name']} {line['peer_flags']} | "
              f"{number(line['ratio'])}{spread_text} | {line['floor']} | {both.strip(' /')} | "
              f"{percent(line['bandwidth_share'])} | {share}{products if share else ''} | "
              f"{percent(line['drift'])} |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("command", choices=("setup", "run", "table", "rows"))
    p.add_argument("--work", type=pathlib.Path)
    p.add_argument("--rows", default="")
    p.add_argument("--pairs", type=int, default=7)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--jobs", type=int, default=1, help="of the compiler, in setup")
    p.add_argument("--csv", type=pathlib.Path, default=HERE / f"peers_{machine_class()}.csv")
    p.add_argument("--again", action="store_true")
    p.add_argument("--keep-drift", action="store_true")
    args = p.parse_args()
    if args.command == "rows":
        print("\n".join(n + ("  (only where named)" if n in EXTRA else "") for n in all_rows()))
    elif args.command == "table":
        table(args.csv)
    elif args.work is None:
        sys.exit("--work DIR: where the peers and their models go, outside of the repository")
    elif args.command == "setup":
        setup(Work(args.work), args.jobs)
    else:
        run_rows(Work(args.work), args)


if __name__ == "__main__":
    main()
