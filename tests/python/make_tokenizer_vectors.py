"""Writes tests/vectors/tokenizer/FAMILY.json: tiny tokenizers with the ids and texts that
`tokenizers` gives on the stress strings, for tests/unit/test_text_vectors.c.

    python tests/python/make_tokenizer_vectors.py
"""

import json
import pathlib

import tokenizer_families
from tokenizers import Tokenizer

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "vectors" / "tokenizer"
FAMILIES = ("gpt2 roberta llama3 qwen2 smollm2 llama2 llama2_metaspace gemma t5 albert bert "
            "wordlevel clip bpe_prefix fixed ctc").split()
SMALL_MAP = {"\ufb01": "fi", "\u00a0": " ", "\uff21": "A", "\uff22": "B", "\u2026": "...",
             "e\u0301": "\u00e9", "\u00ad": "", "\t": " ", "\n": " ", "\u2460": "1"}


def tokenizer_text(name, text):
    make = getattr(tokenizer_families, name)
    size = 1200 if name in ("t5", "albert") else 360  # Unigram keeps every character
    return make(text, size, SMALL_MAP) if name == "t5" else make(text, size)


def case(tokenizer, text, pair=None, max_tokens=0):
    if max_tokens:
        tokenizer.enable_truncation(max_tokens)
    encoding = tokenizer.encode(text, pair)
    tokenizer.no_truncation()
    out = {"text": text, "ids": encoding.ids,
           "decoded": tokenizer.decode(encoding.ids, skip_special_tokens=True)}
    if pair is not None:
        out.update(pair=pair, types=encoding.type_ids, max=max_tokens)
    else:
        out["plain"] = len(tokenizer.encode(text, add_special_tokens=False).ids)
    return out


def main():
    strings = json.loads((FOLDER / "stress.json").read_text())
    for name in FAMILIES:
        text = tokenizer_text(name, strings * 3)
        tokenizer = Tokenizer.from_str(text)
        cases = [case(tokenizer, s) for s in strings]
        cases += [case(tokenizer, strings[0], strings[2], m) for m in (0, 40, 9)]
        cases.append(case(tokenizer, strings[2], strings[0], 30))
        # compact, one case per line; ASCII so that no editor changes it
        lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
        model = json.dumps(json.loads(text), separators=(",", ":"))
        (FOLDER / f"{name}.json").write_text(f'{{"tokenizer":{model},\n"cases":[\n{lines}]}}\n')


if __name__ == "__main__":
    main()
