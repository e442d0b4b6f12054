"""Hostile artifacts (Q), derived from sst2-tiny as `sfq compress --prune 0 --steps 0` writes it:
its description in config.json, its packed tensors, its bytes."""

import struct

from hostile_kit import WEIGHTS, Case, load, with_json, with_tensors

CONFIG = "config.json"
RUN = ("run", "eval", "inspect")
MATRIX = "bert.encoder.layer.1.intermediate.dense"


def spec(artifact, **values):
    """Keys of one matrix's description."""
    def edit(config):
        entry = config["quantization_config"]["tensors"][MATRIX]
        for key, value in values.items():
            if value is ...:
                entry.pop(key)
            else:
                entry[key] = value
    return with_json(artifact, CONFIG, edit)


def top(artifact, **values):
    """Keys of quantization_config."""
    def edit(config):
        for key, value in values.items():
            if value is ...:
                config["quantization_config"].pop(key)
            else:
                config["quantization_config"][key] = value
    return with_json(artifact, CONFIG, edit)


def layer(artifact, **values):
    return with_json(artifact, CONFIG,
                     lambda c: c["quantization_config"]["layers"][1].update(values))


def scale(artifact, kind):
    """The fourth scale of the matrix becomes NaN or an infinity."""
    def edit(tensors):
        name = MATRIX + ".scales"
        half = tensors.entry(name)["dtype"] == "F16"
        data = struct.pack("<e" if half else "<f", float(kind))
        view = tensors.view(name)
        view[3 * len(data):4 * len(data)] = data
        view.release()
    return with_tensors(artifact, edit)


def entry(artifact, part, **fields):
    return with_tensors(artifact, lambda t: t.entry(MATRIX + part).update(fields))


def flip_code(tensors):
    view = tensors.view(MATRIX + ".codes")
    view[1000] ^= 1
    view.release()


def zero_block(tensors):
    view = tensors.view(MATRIX + ".codes")
    view[:1024] = bytes(1024)
    view.release()


def exchange(tensors):
    """Two halves of the codes change places."""
    view = tensors.view(MATRIX + ".codes")
    whole = bytes(view)
    view[:] = whole[len(whole) // 2:] + whole[:len(whole) // 2]
    view.release()


def forge(tensors):
    """The checksum itself is altered."""
    key = "xxh3:" + MATRIX + ".codes"
    old = tensors.header["__metadata__"][key]
    tensors.header["__metadata__"][key] = ("0" if old[0] != "0" else "1") + old[1:]


def cut(artifact, share):
    def edit(tensors):
        whole = tensors.bytes()
        return whole[:len(whole) * share // 1000]
    return with_tensors(artifact, edit)


def flip(artifact, bit):
    def edit(tensors):
        whole = bytearray(tensors.bytes())
        whole[bit // 8] ^= 1 << bit % 8
        return bytes(whole)
    return with_tensors(artifact, edit)


def descriptions(a):
    t = "tensors"
    return [
        Case("Q05-newer-version", 5, "newer", top(a, version=2), RUN),
        Case("Q05-version-0", 2, "version", top(a, version=0), RUN),
        Case("Q05-version-string", 2, "version", top(a, version="1"), RUN),
        Case("Q05-version-missing", 2, "version", top(a, version=...), RUN),
        Case("Q06-other-method", 5, "awq", top(a, quant_method="awq"), RUN),
        Case("Q06-method-missing", 2, "quant_method", top(a, quant_method=...), RUN),
        Case("Q07-ok-unknown-key", 0, "", top(a, note={"x": 1}), RUN),
        Case("Q09-parameters-0", 2, "original_parameters", top(a, original_parameters=0), RUN),
        Case("Q09-parameters-2-60", 2, "original_parameters", top(a, original_parameters=1 << 60),
             RUN),
        Case("Q10-bits-9", 2, "bits", spec(a, bits=9), RUN),
        Case("Q10-bits-1", 2, "bits", spec(a, bits=1), RUN),
        Case("Q10-bits-differ", 2, MATRIX + ".codes", spec(a, bits=5), RUN),
        Case("Q10-bits-missing", 2, "bits", spec(a, bits=...), RUN),
        Case("Q10-activation-bits-7", 2, "activation_bits", spec(a, activation_bits=7), RUN),
        Case("Q10-activation-bits-15", 2, "activation_bits", spec(a, activation_bits=15), RUN),
        Case("Q11-segments-0", 2, "segments", spec(a, segments=0), RUN),
        Case("Q11-segments-9", 2, "segments", spec(a, segments=9), RUN),
        Case("Q11-segment-k-0", 2, "segment_k", spec(a, segment_k=0), RUN),
        Case("Q11-share-0", 2, "share", spec(a, share=0), RUN),
        Case("Q11-share-3", 2, "share", spec(a, share=3), RUN),
        Case("Q11-shape-0", 2, "shape", spec(a, shape=[0, 128]), RUN),
        Case("Q11-shape-turned", 2, MATRIX, spec(a, shape=[128, 512]), RUN),
        Case("Q11-shape-2-62", 2, "shape", spec(a, shape=[1 << 62, 128]), RUN),
        Case("Q11-shape-other", 2, MATRIX, spec(a, shape=[496, 128]), RUN),
        Case("Q13-spec-missing", 2, MATRIX, with_json(
            a, CONFIG, lambda c: c["quantization_config"][t].pop(MATRIX)), RUN),
        Case("Q13-tensors-list", 2, "tensors", top(a, tensors=[]), RUN),
        Case("Q13-tensors-none", 2, "tensors", top(a, tensors=...), RUN),
        Case("Q14-layers-missing", 2, "layers", top(a, layers=...), RUN),
        Case("Q14-layers-short", 2, "layers", with_json(
            a, CONFIG, lambda c: c["quantization_config"]["layers"].pop()), RUN),
        Case("Q14-ffn-wider", 2, "ffn", layer(a, ffn=513), RUN),
        Case("Q14-ffn-differs", 2, "layer.1.", layer(a, ffn=448), RUN),
        Case("Q14-heads-differ", 2, "layer.1.", layer(a, heads=3, kv_heads=3), RUN),
        Case("Q14-heads-negative", 2, "heads", layer(a, heads=-1), RUN),
        Case("Q14-heads-kv", 2, "heads", layer(a, heads=3, kv_heads=2), RUN),
    ]


def tensors(a):
    codes, scales = MATRIX + ".codes", MATRIX + ".scales"
    w = with_tensors
    return [
        Case("Q12-scale-nan", 2, scales, scale(a, "nan"), ("run", "eval", "verify")),
        Case("Q12-scale-infinite", 2, scales, scale(a, "-inf"), ("run", "eval", "verify")),
        Case("Q15-codes-missing", 2, codes, w(a, lambda t: t.remove(codes)), RUN),
        Case("Q15-scales-missing", 2, scales, w(a, lambda t: t.remove(scales)), RUN),
        Case("Q15-norm-missing", 2, "LayerNorm", w(
            a, lambda t: t.remove(t.first("output.LayerNorm.weight"))), RUN),
        Case("Q15-extra", 2, "bert.more", w(
            a, lambda t: t.append("bert.more.weight", "F16", [1], bytes(2))), RUN),
        Case("Q15-codes-int8", 2, codes, entry(a, ".codes", dtype="I8"), RUN),
        Case("Q15-scales-bf16", 2, scales, entry(a, ".scales", dtype="BF16"), RUN),
        Case("Q15-codes-flat", 2, codes, w(a, lambda t: t.entry(codes).update(
            shape=[t.entry(codes)["data_offsets"][1] - t.entry(codes)["data_offsets"][0]])), RUN),
        Case("Q15-codes-turned", 2, codes, w(a, lambda t: t.entry(codes).update(
            shape=t.entry(codes)["shape"][::-1])), RUN),
        Case("Q02-code-flipped", 2, codes, w(a, flip_code), ("verify",)),
        Case("Q03-block-zeroed", 2, codes, w(a, zero_block), ("verify",)),
        Case("Q03-halves-exchanged", 2, codes, w(a, exchange), ("verify",)),
        Case("Q08-checksum-forged", 2, codes, w(a, forge), ("verify",)),
    ]


def files(a):
    cases = [Case(f"Q01-cut-{share}", 2, WEIGHTS, cut(a, share), RUN)
             for share in (0, 1, 5, 100, 333, 500, 750, 900, 990, 999)]
    cases += [Case(f"Q02-bit-{bit:03d}", 2, WEIGHTS, flip(a, bit), RUN)
              for bit in (1, 5, 11, 16, 40, 62, 66, 70)]
    return cases + [
        Case("Q16-compressed-again", 5, "compressed already", with_json(
            a, CONFIG, lambda c: None), ("compress",)),
        Case("Q17-ok", 0, "", with_json(a, CONFIG, lambda c: None), RUN + ("verify",)),
    ]


def cases(artifact):
    known = load(artifact / CONFIG)["quantization_config"]["tensors"]
    assert MATRIX in known, "the artifact is not sst2-tiny with its matrices packed"
    return descriptions(artifact) + tensors(artifact) + files(artifact)
