"""Hostile weight files: every rule of the safetensors format broken once (S), tensors that do not
fit the config (W), values that are no numbers (N)."""

import struct

from hostile_kit import BERT, LLAMA, READ, WEIGHTS, Case, with_entry, with_file, with_header, \
    with_tensors

CLASSIFIER = "classifier.weight"


def cut(keep):
    """Keeps keep(size) bytes of the file."""
    def edit(tensors):
        whole = tensors.bytes()
        return whole[:keep(len(whole))]
    return with_tensors(BERT, edit)


def flip(bit):
    """One bit of the file, counted from its first byte."""
    def edit(tensors):
        whole = bytearray(tensors.bytes())
        whole[bit // 8] ^= 1 << bit % 8
        return bytes(whole)
    return with_tensors(BERT, edit)


def length(value):
    return with_tensors(BERT, lambda t: t.bytes(length=value))


def rename(old, new):
    """A tensor's name in the raw header text."""
    return with_header(BERT, lambda text: text.replace(b'"' + old + b'":', b'"' + new + b'":'))


def shape(*dims):
    """Raw text for the shape of the classifier."""
    text = ",".join(dims).encode()
    return with_header(BERT, lambda t: t.replace(
        b'"shape":[2,128]', b'"shape":[' + text + b']', 2))


def extra(text):
    """More members in front of the first."""
    return with_header(BERT, lambda t: b"{" + text + b"," + t[1:])


def many(members, sample):
    """A header of that many members and no data."""
    def make():
        text = b"{" + b",".join(sample(i) for i in range(members)) + b"}"
        return struct.pack("<Q", len(text)) + text
    return with_file(BERT, WEIGHTS, make)


def one(text):
    return with_file(BERT, WEIGHTS, struct.pack("<Q", len(text)) + text)


def overlap(tensors):
    begin, end = tensors.entry("bert.embeddings.LayerNorm.bias")["data_offsets"]
    for name, entry in tensors.header.items():
        if name.endswith("LayerNorm.bias"):
            entry["data_offsets"] = [begin, end]


def hole(tensors):
    last = max((e for n, e in tensors.header.items() if n != "__metadata__"),
               key=lambda e: e["data_offsets"][0])
    last["data_offsets"] = [at + 8 for at in last["data_offsets"]]
    tensors.data += bytes(8)


def empty_inside(tensors):
    tensors.header["empty"] = {"dtype": "F16", "shape": [0], "data_offsets": [3, 3]}


def buffers(tensors):
    """What old checkpoints carry beside the weights: ids as I64, and an empty one at the end."""
    ids = struct.pack("<128q", *range(128))
    tensors.append("bert.embeddings.position_ids", "I64", [1, 128], ids)


EMPTY = b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'


def syntax():
    return [
        Case("S01-empty-file", 2, "too few", with_file(BERT, WEIGHTS, b"")),
        Case("S02-seven-bytes", 2, "too few", with_file(BERT, WEIGHTS, b"\2\0\0\0\0\0\0")),
        Case("S03-header-of-0", 2, "begins with", with_file(BERT, WEIGHTS, bytes(8))),
        Case("S04-only-a-brace", 2, "header byte", one(b"{")),
        Case("S05-header-past-end", 2, "truncated", length(1 << 24)),
        Case("S06-header-over-limit", 2, "100000001", length(100000001)),
        Case("S07-header-2-63", 2, "9223372036854775808", length(1 << 63)),
        Case("S08-header-2-64-1", 2, "18446744073709551615", length((1 << 64) - 1)),
        Case("S08-header-wraps", 2, "18446744073709551608", length((1 << 64) - 8)),
        Case("S09-not-utf8", 2, "not UTF-8", rename(CLASSIFIER.encode(), b"class\xffier")),
        Case("S10-overlong", 2, "not UTF-8", rename(CLASSIFIER.encode(), b"class\xc0\xafier")),
        Case("S10-lone-surrogate", 2, "surrogate", rename(CLASSIFIER.encode(), b"c\\udc00")),
        Case("S11-not-json", 2, "begins with", one(b"This is no JSON")),
        Case("S11-comma-missing", 2, "header byte",
             with_header(BERT, lambda t: t.replace(b"]},", b"]}", 1))),
        Case("S12-array", 2, "begins with", one(b"[]")),
        Case("S13-byte-order-mark", 2, "begins with", with_header(BERT, b"\xef\xbb\xbf".__add__)),
        Case("S14-space-in-front", 2, "begins with", with_header(BERT, b" ".__add__)),
        Case("S14-ok-space-behind", 0, "", with_header(BERT, lambda t: t + b" \n\t  ")),
        Case("S15-nul-inside", 2, "header byte", with_header(BERT, lambda t: t[:-1] + b"\0}")),
        Case("S15-nul-in-name", 2, "NUL", rename(CLASSIFIER.encode(), b"c\\u0000")),
        Case("S16-bytes-behind", 2, "behind the header", with_header(BERT, lambda t: t + b"{}")),
        Case("S17-duplicate-name", 2, "duplicate", with_header(
            BERT, lambda t: t.replace(b'"classifier.bias":', b'"classifier.weight":'))),
        Case("S18-duplicate-metadata", 2, "duplicate __metadata__", extra(b'"__metadata__":{}')),
        Case("S18-duplicate-metadata-key", 2, "duplicate key",
             with_header(BERT, lambda t: t.replace(b'"format":', b'"format":"x","format":'))),
        Case("S19-metadata-number", 2, "__metadata__",
             with_header(BERT, lambda t: t.replace(b'"pt"', b"1"))),
        Case("S36-deep", 2, "header byte", one(b'{"a":' + b"[" * 100000)),
        Case("S36-long-string", 2, "limit", one(
            b'{"__metadata__":{"a":"' + b"x" * 50000000 + b'"}}')),
        Case("S36-long-name", 2, "limit 4096", rename(CLASSIFIER.encode(), b"n" * 65536)),
        Case("S36-escape-in-name", 2, "\\x1B", extra(b'"\\u001b[31m\\nred":' + EMPTY)),
    ]


def entries():
    e = with_entry
    return [
        Case("S20-unknown-dtype", 2, "Q99", e(BERT, CLASSIFIER, dtype="Q99")),
        Case("S20-dtype-number", 2, "header byte", e(BERT, CLASSIFIER, dtype=7)),
        Case("S21-dtype-wider", 2, CLASSIFIER, e(BERT, CLASSIFIER, dtype="F32")),
        Case("S21-shape-larger", 2, CLASSIFIER, e(BERT, CLASSIFIER, shape=[3, 128])),
        Case("S22-negative-offset", 2, "header byte", e(BERT, CLASSIFIER, data_offsets=[-512, 0])),
        Case("S23-end-before-begin", 2, "end before", e(BERT, CLASSIFIER, data_offsets=[512, 0])),
        Case("S24-past-the-end", 2, "truncated", with_tensors(
            BERT, lambda t: t.append("x", "U8", [64], b"") or t.entry("x").update(
                data_offsets=[len(t.data), len(t.data) + 64]))),
        Case("S25-overlap", 2, "overlaps", with_tensors(BERT, overlap)),
        Case("S26-hole", 2, "hole", with_tensors(BERT, hole)),
        Case("S27-bytes-at-the-end", 2, "behind the last",
             with_tensors(BERT, lambda t: t.bytes() + b"PK\3\4")),
        Case("S29-product-wraps", 2, "64 bits", shape("2", "18446744073709551614")),
        Case("S30-wraps-to-4", 2, "64 bits", shape("4194305", "4194305", "211106198978564")),
        Case("S31-size-wraps", 2, "64 bits", shape("9223372036854775809")),
        Case("S32-dim-1e3", 2, "without fraction", shape("1e3")),
        Case("S32-dim-minus-0", 2, "whole number", shape("-0")),
        Case("S32-dim-1.5", 2, "without fraction", shape("1.5")),
        Case("S32-dim-1e400", 2, "without fraction", shape("1e400")),
        Case("S32-dim-2-64", 2, "64 bits", shape("18446744073709551616")),
        Case("S33-rank-9", 2, "more than 8", shape(*["1"] * 9)),
        Case("S33-empty-inside", 2, "empty", with_tensors(BERT, empty_inside)),
        Case("S33-ok-buffers", 0, "", with_tensors(BERT, buffers)),
        Case("S34-half-a-byte", 2, "whole number of bytes", with_tensors(
            BERT, lambda t: t.append("x", "F4", [3], b"\0\0"))),
        Case("S35-a-million-tensors", 2, "131072 tensors", many(
            1000000, lambda i: b'"%d":%s' % (i, EMPTY))),
        Case("S35-metadata-flood", 2, "metadata entries", one(
            b'{"__metadata__":{' + b",".join(b'"%d":""' % i for i in range(300000)) + b"}}")),
        Case("S37-member-missing", 2, "is missing", with_tensors(
            BERT, lambda t: t.entry(CLASSIFIER).pop("shape") and None)),
        Case("S37-member-unknown", 2, "nothing else", e(BERT, CLASSIFIER, strides=[1])),
        Case("S37-float64", 5, "F64", with_tensors(BERT, lambda t: t.append(
            "x", "F64", [1], bytes(8)))),
    ]


def damage():
    """Cut and flipped files. Every bit of the length, and of the first members, matters."""
    cuts = [("28-minus-1", lambda n: n - 1), ("28-half", lambda n: n // 2),
            ("28-header-only", lambda n: 8 + 8144), ("28-in-header", lambda n: 4000),
            ("28-8-bytes", lambda n: 8), ("28-100-bytes", lambda n: 100)]
    cases = [Case("S" + name, 2, WEIGHTS, cut(keep)) for name, keep in cuts]
    return cases + [Case(f"S38-bit-{bit:03d}", 2, WEIGHTS, flip(bit))
                    for bit in (0, 3, 17, 31, 47, 63, 64, 71)]


# ---- tensors against the config ----

def transpose(tensors):
    entry = tensors.entry(tensors.first("intermediate.dense.weight"))
    entry["shape"] = entry["shape"][::-1]


def retype(suffix, dtype):
    def edit(tensors):
        tensors.entry(tensors.first(suffix))["dtype"] = dtype
    return edit


def fit():
    t = with_tensors
    return [
        Case("W01-missing", 2, "layer.2.output.dense.weight", t(
            BERT, lambda x: x.remove("bert.encoder.layer.2.output.dense.weight"))),
        Case("W02-missing-llama", 2, "layers.5.mlp.up_proj.weight", t(
            LLAMA, lambda x: x.remove("model.layers.5.mlp.up_proj.weight"))),
        Case("W03-unknown-tensor", 2, "bert.adapter.weight", t(
            BERT, lambda x: x.append("bert.adapter.weight", "F16", [2], bytes(4)))),
        Case("W04-transposed", 2, "intermediate.dense.weight", t(BERT, transpose)),
        Case("W05-int-weights", 2, "I64", t(BERT, lambda x: x.remove(CLASSIFIER) or x.append(
            CLASSIFIER, "I64", [2, 128], bytes(2048)))),
        Case("W06-same-size-dtype", 2, "I16", t(BERT, retype(CLASSIFIER, "I16"))),
        Case("W07-bool-weights", 2, "BOOL", t(BERT, lambda x: x.remove(CLASSIFIER) or x.append(
            CLASSIFIER, "BOOL", [2, 128], bytes(256)))),
        Case("W08-flat", 2, CLASSIFIER, with_entry(BERT, CLASSIFIER, shape=[256])),
        Case("W09-no-tensors", 2, "tensor", one(b"{}")),
        Case("W10-ok-bfloat", 0, "", t(BERT, retype("position_embeddings.weight", "BF16"))),
    ]


# ---- values ----

def fill(suffix, half, at=None):
    """F16 values of a tensor: all of them, or the one at index `at`."""
    def edit(tensors):
        view = tensors.view(tensors.first(suffix))
        if at is None:
            view[:] = struct.pack("<H", half) * (len(view) // 2)
        else:
            view[2 * at:2 * at + 2] = struct.pack("<H", half)
        view.release()
    return edit


NAN, INF, LARGEST, TINY, MINUS_ZERO, ONE = 0x7E00, 0xFC00, 0x7BFF, 0x0001, 0x8000, 0x3C00


def values():
    t = with_tensors
    word, query = "word_embeddings.weight", "attention.self.query.weight"
    cases = [
        Case("N01-one-nan", 2, "element 77", t(BERT, fill(query, NAN, 77)), READ),
        Case("N02-one-infinity", 2, "element 5", t(BERT, fill(query, INF, 5)), READ),
        Case("N03-nan-unused-row", 2, "element 524287", t(BERT, fill(word, NAN, 524287)), READ),
        Case("N04-nan-in-norm", 2, "LayerNorm.weight", t(
            BERT, fill("embeddings.LayerNorm.weight", NAN, 3)), ("verify", "run", "eval")),
        Case("N05-nan-llama", 2, "q_proj.weight", t(LLAMA, fill("q_proj.weight", NAN, 9)), READ),
        Case("N06-all-nan", 2, "output.dense.weight", t(BERT, fill("output.dense.weight", NAN)),
             READ),
        Case("N08-nan-classified", 2, "not a finite number", t(
            BERT, fill("output.dense.weight", NAN)), ("run", "eval")),
        Case("N09-nan-generated", 2, "not a", t(LLAMA, fill("q_proj.weight", NAN, 9)),
             ("run", "eval")),
        Case("N07-nan-bias", 2, "classifier.bias", t(BERT, fill("classifier.bias", INF, 1)),
             ("verify", "run", "eval")),
    ]
    good = [("zero-tensor", query, 0, None), ("equal-tensor", query, ONE, None),
            ("largest", query, LARGEST, 3), ("denormals", query, TINY, None),
            ("minus-zero", query, MINUS_ZERO, None), ("norm-zero", "LayerNorm.weight", 0, None)]
    return cases + [Case(f"N1{i}-ok-{name}", 0, "", t(BERT, fill(suffix, half, at)),
                         ("run", "compress"))
                    for i, (name, suffix, half, at) in enumerate(good)]


def cases():
    return syntax() + entries() + damage() + fit() + values()
