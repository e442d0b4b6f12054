"""Hostile tokenizer.json (T): damaged tables, components that do not exist, and tokenizers that
do not belong to the model."""

import json
import os

from hostile_kit import BERT, LLAMA, TEXT, Case, load, place, with_file, with_json

NAME = "tokenizer.json"


def edit(source, change):
    return with_json(source, NAME, change)


def vocab(source, **tokens):
    return edit(source, lambda t: t["model"]["vocab"].update(tokens))


def merges(*extra):
    return edit(LLAMA, lambda t: t["model"]["merges"].extend(extra))


def component(source, key, value):
    return edit(source, lambda t: t.update({key: value}))


def split(pattern):
    """The first pre-tokenizer's pattern."""
    def change(tokenizer):
        tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": pattern}
    return edit(LLAMA, change)


def text(content):
    return with_file(BERT, NAME, content)


def legacy(tokenizer):
    tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]


def smaller(tokenizer):
    """Fewer tokens than rows of the embedding: padding rows, fine. Drops the last id."""
    table = tokenizer["model"]["vocab"]
    table.pop(max(table, key=table.get))


def added(**fields):
    token = {"id": 4096, "content": "<x>", "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": True}
    return lambda t: t["added_tokens"].append(dict(token, **fields))


def fifo(folder):
    place(BERT, folder, {NAME})
    os.mkfifo(folder / NAME)


def raw(old, new):
    def content():
        whole = (BERT / NAME).read_bytes()
        assert old in whole
        return whole.replace(old, new, 1)
    return with_file(BERT, NAME, content)


def damaged():
    return [
        Case("T01-missing", 2, NAME, text(None), TEXT),
        Case("T01-fifo", 2, NAME, fifo, TEXT),
        Case("T01-empty", 2, NAME, text(""), TEXT),
        Case("T01-cut", 2, NAME, text(lambda: (BERT / NAME).read_bytes()[:20000]), TEXT),
        Case("T01-array", 2, NAME, text("[]"), TEXT),
        Case("T01-no-model", 2, "model", edit(BERT, lambda t: t.pop("model")), TEXT),
        Case("T01-deep", 2, NAME, text("[" * 100000), TEXT),
        Case("T01-duplicate-key", 2, "duplicate", raw(b"{", b'{"version":"1.0",'), TEXT),
        Case("T02-id-negative", 2, NAME, vocab(BERT, zzz=-1), TEXT),
        Case("T02-id-2-32", 2, NAME, vocab(BERT, zzz=1 << 32), TEXT),
        Case("T02-id-string", 2, NAME, vocab(BERT, zzz="7"), TEXT),
        Case("T03-two-tokens-one-id", 2, NAME, vocab(LLAMA, zzz=77), TEXT),
        Case("T04-merge-unknown", 2, NAME, merges(["he", "\u4e2d\u4e2d"]), TEXT),
        Case("T05-merge-too-long", 2, NAME, merges(["a" * 1000, "b" * 1000]), TEXT),
        Case("T06-merge-one-part", 2, NAME, merges(["he"]), TEXT),
        Case("T06-merge-three-parts", 2, NAME, merges(["h", "e", "l"]), TEXT),
        Case("T06-merge-number", 2, NAME, merges(7), TEXT),
        Case("T09-not-utf8", 2, NAME, raw(b"[CLS]", b"[C\xffS]"), TEXT),
        Case("T12-added-id-negative", 2, NAME, edit(BERT, added(id=-3)), TEXT),
        Case("T13-bad-pattern", 2, NAME, split("(a+"), TEXT),
        Case("T13-long-pattern", 2, NAME, split("(" * 500000), TEXT),
        Case("T15-template-unknown", 2, NAME, edit(BERT, lambda t: t["post_processor"][
            "single"].append({"SpecialToken": {"id": "[NONE]", "type_id": 0}})), TEXT),
        Case("T15-template-type", 2, NAME, edit(BERT, lambda t: t["post_processor"].update(
            single=7)), TEXT),
        Case("T19-model-type", 5, "Nonsense", edit(BERT, lambda t: t["model"].update(
            type="Nonsense")), TEXT),
        Case("T14-pre-tokenizer", 5, "Nonsense", component(BERT, "pre_tokenizer", {
            "type": "Nonsense"}), TEXT),
        Case("T14-normalizer", 5, "Nonsense", component(BERT, "normalizer", {
            "type": "Nonsense"}), TEXT),
        Case("T14-decoder", 5, "Nonsense", component(LLAMA, "decoder", {"type": "Nonsense"}),
             TEXT),
        Case("T14-post-processor", 5, "Nonsense", component(BERT, "post_processor", {
            "type": "Nonsense"}), TEXT),
        Case("T14-component-number", 2, NAME, component(BERT, "normalizer", 7), TEXT),
    ]


def other_models():
    beyond = ("run", "eval")
    return [
        Case("T18-id-beyond-rows", 2, NAME, vocab(BERT, zzz=4096), beyond),
        Case("T18-added-beyond-rows", 2, NAME, edit(LLAMA, added(id=9999)), beyond),
    ]


def accepted():
    """What `tokenizers` takes too: an unknown token that is never needed, an empty added one."""
    return [
        Case("T02-ok-fewer-ids", 0, "", edit(BERT, smaller), TEXT),
        Case("T07-ok-unk-missing", 0, "", edit(BERT, lambda t: t["model"].update(
            unk_token="[NONE]")), TEXT),
        Case("T12-ok-added-empty", 0, "", edit(BERT, added(content="", id=4)), TEXT),
        Case("T06-ok-legacy-merges", 0, "", edit(LLAMA, legacy), TEXT),
        Case("T20-ok-truncation", 0, "", component(BERT, "truncation", {
            "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}), TEXT),
    ]


def cases():
    assert json.dumps(load(BERT / NAME)["model"]["type"]) == '"WordPiece"'
    return damaged() + other_models() + accepted()
