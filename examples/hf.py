"""A whole program with Transformers: compresses a language model while it loads, generates with
Transformers' own code, compares with sfq itself, saves an artifact, and opens it with both.

    python examples/hf.py models/novels-5m models/sst2-tiny tests/data/passage.txt out
"""

import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

import sfq
from sfq.transformers import SfqConfig


def main() -> None:
    novels, reviews, text, output = sys.argv[1:]
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    # The whole recipe on load: prune, recalibrate on what the model writes itself, quantize.
    config = SfqConfig(prune=0.2, embedding_bits=4, calib_tokens=4096, calib_length=64, steps=10)
    model = AutoModelForCausalLM.from_pretrained(novels, dtype=torch.float32,
                                                 quantization_config=config)
    done = model.hf_quantizer.compression
    print(f"{done.original_bytes / 1e6:.2f} MB -> {done.bytes / 1e6:.2f} MB "
          f"({done.reduction:.1%} smaller)")
    print(model.model.layers[0].mlp)
    print(model.model.layers[1].mlp)

    # Transformers' own generation, with its own caches.
    tokenizer = AutoTokenizer.from_pretrained(novels)
    prompt = tokenizer("It was a dark and", return_tensors="pt")["input_ids"]
    for cache in ("dynamic", "static"):
        options = {} if cache == "dynamic" else {"cache_implementation": cache}
        ids = model.generate(prompt, max_new_tokens=12, do_sample=False, **options)
        print(f"{cache:8s}{tokenizer.decode(ids[0])!r}")

    # What is saved is an artifact: sfq opens it, Transformers loads it, to the bit.
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    again = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32)
    exact = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32,
                                                 quantization_config=SfqConfig(exact=True))
    with open(text, encoding="utf-8") as file:
        ids = tokenizer(file.read(), return_tensors="pt")["input_ids"][:, :256]
    with torch.no_grad():
        logits = [m(ids).logits[0] for m in (model, again, exact)]
    with sfq.Model(output) as small:
        logits.append(torch.from_numpy(small.logits(ids[0].int().numpy())))
    print("saved and loaded: largest difference", (logits[0] - logits[1]).abs().max().item())
    for name, other in (("exact", logits[2]), ("sfq.Model", logits[3])):
        apart = (logits[0] - other).norm() / other.norm()
        same = (logits[0].argmax(-1) == other.argmax(-1)).float().mean()
        print(f"against {name}: relative difference {apart:.4f}, same next token {same:.1%}")

    # A pipeline, compressed by a flag.
    classify = pipeline("text-classification", reviews, dtype=torch.float32,
                        model_kwargs={"sfq_compress": True})
    print(classify(["a moving, honest film", "dull and much too long"]))


if __name__ == "__main__":
    main()
