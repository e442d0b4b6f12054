"""A whole program over the Python package: compress a model, measure it, use it.

usage: complete.py MODEL TEXT OUTPUT    (a language model, a text to measure on, a new directory)
"""

import sys

import sfq


def main(model: str, text: str, output: str) -> None:
    done = sfq.compress(model, output, prune=0.2, bits=8, embedding_bits=4, calib_tokens=8192,
                        calib_length=128, steps=20)
    print(f"{done.original_bytes / 1e6:.2f} MB -> {done.bytes / 1e6:.2f} MB "
          f"({done.reduction:.1%} smaller)")
    for stage in done.stages:
        if stage.loss is not None:
            print(f"  {stage.name:12s} held-out loss {stage.loss:.4f}")

    quality = sfq.evaluate(output, text=text, against=model)
    print(f"perplexity {quality.perplexity:.2f}, KL {quality.kl_mean:.4f}, "
          f"same next token {quality.same_top1:.1%}")

    with sfq.Model(output) as small:
        for piece in small.stream("It was a dark and", max_tokens=24, temperature=0.8, seed=2):
            print(piece, end="", flush=True)
        print()
        logits = small.logits("It was a dark and", last=True)
        best = logits.argsort()[:-4:-1]
        print("likeliest:", [small.detokenize([token]) for token in best])

    try:
        sfq.Model("no-such-model")
    except sfq.NotFoundError as error:
        print(error.code, error.file)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
