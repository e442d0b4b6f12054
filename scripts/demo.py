#!/usr/bin/env python3
"""The demonstration (`./dev demo`): the whole recipe (prune, fuse, recalibrate) on the language
model of the repository, fusing alone on its classifier, what that costs and gains. Every figure
comes from the program's own --json output of this run; text to calibrate on and text to measure on
are sampled from the uncompressed model: nothing but the repository is needed."""

import json
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOVELS = ROOT / "models/novels-5m"
SST2 = ROOT / "models/sst2-tiny"
PROMPTS = ("It was a dark", "Chapter 1", "The old house", "My dear", "In the morning",
           "She looked at him", "The captain", "\"I cannot")
SENTENCES = ("a moving, honest and beautifully acted film", "a dull, lifeless mess",
             "not as bad as the reviews would have you believe")
TOKENS_EACH = 400
PARAGRAPH = 70
# A small calibration set, so that the demonstration is quick: 128 sequences of 128 tokens.
RECIPE = ("--prune", 0.40, "--bits", 8, "--embedding-bits", 4, "--calib-tokens", 128 * 128,
          "--calib-length", 128, "--steps", 40)


class Program:
    """The sfq under demonstration: runs a verb, echoes the command, gives its JSON."""

    def __init__(self, path):
        self.path = path

    def __call__(self, *words, echo=True):
        words = [str(word) for word in words]
        if echo:
            shown = " ".join(f'"{w}"' if " " in w else w.replace(f"{ROOT}/", "") for w in words)
            print(f"$ sfq {shown}", flush=True)
        done = subprocess.run([self.path, *words, "-q", "--json"], stdout=subprocess.PIPE)
        if done.returncode != 0:
            sys.exit(done.returncode)
        return json.loads(done.stdout)


def sample(sfq, path):
    """A text of a few thousand tokens as the uncompressed model writes them."""
    pieces, tokens = [], 0
    for seed, prompt in enumerate(PROMPTS):
        answer = sfq("run", NOVELS, "-p", prompt, "-n", TOKENS_EACH, "--temperature", 1, "--seed",
                     seed, "--ignore-eos", echo=seed == 0)
        pieces.append(prompt + answer["text"])
        tokens += answer["tokens"]
    path.write_text("\n\n".join(pieces))
    print(f"  {len(PROMPTS)} prompts, seeds 0-{len(PROMPTS) - 1}: {tokens} tokens sampled\n")


def table(rows):
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    for n, row in enumerate(rows):
        print("  " + row[0].ljust(widths[0]) + "".join(
            "  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:])))
        if n == 0:
            print("  " + "-" * (sum(widths) + 2 * (len(widths) - 1)))


def ratio(new, old):
    return f"{new / old:.2f}x"


def figures(before, after, kept, fused, speed):
    """Rows of the table: inspect, eval and bench of the model as it was and as it is."""
    dense, packed = speed["models"]
    rows = [("", "16 bit", "compressed", "change")]
    rows.append(("size", f"{before['bytes'] / 1e6:.2f} MB", f"{after['bytes'] / 1e6:.2f} MB",
                 f"-{100 * after['reduction']:.1f} %"))
    rows.append(("bits per parameter", f"{before['bits_per_parameter']:.2f}",
                 f"{after['bits_per_parameter']:.2f}", ""))
    rows.append(("scale overhead", "-", f"{100 * after['scale_overhead']:.3f} %", "limit 0.3 %"))
    rows.append(("perplexity", f"{kept['perplexity']:.3f}", f"{fused['perplexity']:.3f}",
                 f"{100 * (fused['perplexity'] / kept['perplexity'] - 1):+.3f} %"))
    rows.append(("KL divergence, mean", "-", f"{fused['kl_mean']:.6f}", ""))
    rows.append(("same top-1 token", "-", f"{100 * fused['same_top1']:.2f} %",
                 f"{fused['flips']} of {fused['tokens']} differ"))
    for name, key in (("prefill, tokens/s", "prefill_tokens_per_second"),
                      ("decode, tokens/s", "decode_tokens_per_second")):
        rows.append((name, f"{dense[key]:.0f}", f"{packed[key]:.0f}",
                     ratio(packed[key], dense[key])))
    return rows


def stages(made):
    """What each stage left between the model and the original."""
    rows = [("stage", "held-out KL", "steps", "seconds")]
    for stage in made["stages"]:
        loss = "" if stage["loss"] is None else f"{stage['loss']:.5f}"
        rows.append((stage["name"], loss, str(stage["steps"] or ""), f"{stage['seconds']:.1f}"))
    table(rows)
    cut, used = made["pruned"], made["calibration"]
    print(f"\n  removed: {cut['heads']} heads, {cut['neurons']} neurons, "
          f"{100 * cut['fraction']:.1f} % of the blocks; calibrated on {used['sequences']} "
          f"sequences, {used['tokens']} tokens\n")


def classify(sfq, small):
    print("\nThree sentences through sst2-tiny, before and after (an encoder needs data to be "
          "pruned, so\nthis one is only fused):\n")
    rows = [("", "16 bit", "compressed")]
    for sentence in SENTENCES:
        cells = []
        for model in (SST2, small):
            answer = sfq("run", model, "-p", sentence, echo=False)
            cells.append(f"{answer['label']} {max(answer['scores']):.4f}")
        rows.append((sentence, *cells))
    table(rows)


def paragraphs(sfq, small):
    for name, model in (("16 bit", NOVELS), ("compressed", small)):
        answer = sfq("run", model, "-p", PROMPTS[0], "-n", PARAGRAPH, "--ignore-eos", echo=False)
        print(f"\n{name}, greedy:\n  {PROMPTS[0]}{answer['text']}".replace("\n", "\n  "))


def main():
    started = time.monotonic()
    sfq = Program(str(pathlib.Path(sys.argv[1]).resolve()))
    out = ROOT / "build/demo"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    novels, sst2, text = out / "novels", out / "sst2", out / "sampled.txt"
    machine = sfq("env", echo=False)
    print(f"sfq {machine['version']}, {machine['isa']}, {machine['threads']} threads\n")

    made = sfq("compress", NOVELS, "-o", novels, *RECIPE)
    print(f"  {made['original_bytes']} -> {made['bytes']} bytes in {made['seconds']:.1f} s\n")
    stages(made)
    made = sfq("compress", SST2, "-o", sst2, "--prune", 0, "--steps", 0)
    print(f"  {made['original_bytes']} -> {made['bytes']} bytes in {made['seconds']:.1f} s\n")
    sample(sfq, text)
    kept = sfq("eval", NOVELS, "--text", text)
    fused = sfq("eval", novels, "--text", text, "--against", NOVELS)
    speed = sfq("bench", NOVELS, "--against", novels)
    before, after = sfq("inspect", NOVELS), sfq("inspect", novels, "--verify")

    paragraphs(sfq, novels)
    classify(sfq, sst2)
    print(f"\nnovels-5m, measured on {kept['tokens']} tokens that the 16-bit model wrote; speed on "
          f"{speed['threads']} threads ({speed['isa']}):\n")
    table(figures(before, after, kept, fused, speed))
    print(f"\n{time.monotonic() - started:.0f} s; what was made lies in build/demo")


if __name__ == "__main__":
    main()
