"""Hostile config.json and generation_config.json (C), directories and indexes (D)."""

import json
import os

from hostile_kit import BERT, INDEX, LLAMA, WEIGHTS, Case, Tensors, place, put, with_file, \
    with_json

CONFIG = "config.json"
GENERATION = "generation_config.json"


def keys(source, **values):
    """config.json with these values; a value of Ellipsis takes the key away."""
    def edit(config):
        for key, value in values.items():
            if value is ...:
                config.pop(key, None)
            else:
                config[key] = value
    return with_json(source, CONFIG, edit)


def raw(source, old, new):
    """config.json with a piece of its text replaced."""
    def content():
        text = (source / CONFIG).read_text()
        assert old in text
        return text.replace(old, new, 1)
    return with_file(source, CONFIG, content)


def rope(**values):
    return keys(LLAMA, rope_parameters={"rope_theta": 10000.0, "rope_type": "default", **values})


def fields():
    heads = "num_attention_heads"
    return [
        Case("C03-heads-0", 2, heads, keys(BERT, num_attention_heads=0)),
        Case("C03-heads-negative", 2, heads, keys(BERT, num_attention_heads=-4)),
        Case("C04-heads-7", 2, "does not divide", keys(BERT, num_attention_heads=7)),
        Case("C04-heads-2-31", 2, heads, keys(BERT, num_attention_heads=1 << 31)),
        Case("C05-kv-0", 2, "num_key_value_heads", keys(LLAMA, num_key_value_heads=0)),
        Case("C05-kv-above-heads", 2, "num_key_value_heads", keys(LLAMA, num_key_value_heads=16)),
        Case("C05-kv-3", 2, "does not divide", keys(LLAMA, num_key_value_heads=3)),
        Case("C06-layers-0", 2, "num_hidden_layers", keys(BERT, num_hidden_layers=0)),
        Case("C06-layers-2-31", 2, "limit 1024", keys(BERT, num_hidden_layers=1 << 31)),
        Case("C06-layers-fewer", 2, "layer.3.", keys(BERT, num_hidden_layers=3)),
        Case("C06-layers-more", 2, "layer.4.", keys(BERT, num_hidden_layers=5)),
        Case("C07-vocab-0", 2, "vocab_size", keys(BERT, vocab_size=0)),
        Case("C07-vocab-differs", 2, "word_embeddings", keys(BERT, vocab_size=4000)),
        Case("C07-vocab-2-40", 2, "vocab_size", keys(LLAMA, vocab_size=1 << 40)),
        Case("C08-hidden-differs", 2, "word_embeddings", keys(BERT, hidden_size=256)),
        Case("C08-hidden-2-40", 2, "hidden_size", keys(BERT, hidden_size=1 << 40)),
        Case("C08-hidden-missing", 2, "hidden_size", keys(BERT, hidden_size=...)),
        Case("C09-ffn-0", 2, "intermediate_size", keys(BERT, intermediate_size=0)),
        Case("C09-ffn-differs", 2, "intermediate.dense", keys(BERT, intermediate_size=500)),
        Case("C10-number-as-string", 2, "hidden_size", keys(BERT, hidden_size="128")),
        Case("C10-number-as-bool", 2, "vocab_size", keys(BERT, vocab_size=True)),
        Case("C10-number-null", 2, "num_hidden_layers", keys(BERT, num_hidden_layers=None)),
        Case("C10-number-1.5", 2, "num_hidden_layers", keys(BERT, num_hidden_layers=1.5)),
        Case("C10-number-2-64", 2, CONFIG, raw(BERT, '"vocab_size": 4096',
                                              '"vocab_size": 18446744073709551616')),
        Case("C11-theta-0", 2, "rope_theta", rope(rope_theta=0)),
        Case("C11-theta-negative", 2, "rope_theta", rope(rope_theta=-1e4)),
        Case("C11-theta-nan", 2, CONFIG, raw(LLAMA, "10000.0", "NaN")),
        Case("C11-theta-1e400", 2, CONFIG, raw(LLAMA, "10000.0", "1e400")),
        Case("C12-eps-0", 2, "layer_norm_eps", keys(BERT, layer_norm_eps=0)),
        Case("C12-eps-negative", 2, "rms_norm_eps", keys(LLAMA, rms_norm_eps=-1e-5)),
        Case("C13-positions-2-62", 2, "max_position_embeddings",
             keys(LLAMA, max_position_embeddings=1 << 62)),
        Case("C13-positions-differ", 2, "position_embeddings",
             keys(BERT, max_position_embeddings=512)),
        Case("C15-untied", 2, "lm_head", keys(LLAMA, tie_word_embeddings=False)),
        Case("C17-head-dim-odd", 2, "head_dim", keys(LLAMA, head_dim=31)),
        Case("C17-head-dim-differs", 2, "q_proj", keys(LLAMA, head_dim=64)),
        Case("C18-eos-negative", 2, "eos_token_id", keys(LLAMA, eos_token_id=-5)),
        Case("C18-eos-string", 2, "eos_token_id", keys(LLAMA, eos_token_id="</s>")),
        Case("C18-eos-list-of-17", 2, "limit 16", keys(LLAMA, eos_token_id=[1] * 17)),
        Case("C18-bos-2-40", 2, "bos_token_id", keys(LLAMA, bos_token_id=1 << 40)),
        Case("C19-labels-gap", 2, "id2label", keys(BERT, id2label={"0": "a", "2": "b"})),
        Case("C19-labels-three", 2, "classifier", keys(BERT, id2label={
            "0": "a", "1": "b", "2": "c"})),
        Case("C19-labels-number", 2, "id2label", keys(BERT, id2label={"0": "a", "1": 2})),
        Case("C19-labels-list", 2, "id2label", keys(BERT, id2label=["a", "b"])),
        Case("C20-layers-exception", 2, "per_layer_config",
             keys(LLAMA, per_layer_config={"6": {"intermediate_size": 64}})),
        Case("C20-layer-wider", 2, "intermediate_size",
             keys(LLAMA, per_layer_config={"0": {"intermediate_size": 1 << 40}})),
        Case("C20-layer-differs", 2, "layers.0.mlp",
             keys(LLAMA, per_layer_config={"0": {"intermediate_size": 64}})),
        Case("C21-type-vocab-negative", 2, "type_vocab_size", keys(BERT, type_vocab_size=-1)),
        Case("C22-model-type-missing", 2, "model_type", keys(BERT, model_type=...)),
        Case("C22-model-type-other", 2, "model_type", keys(BERT, model_type="llama",
                                                          rms_norm_eps=1e-6)),
        Case("C23-generation-negative", 2, GENERATION, with_json(
            LLAMA, GENERATION, lambda g: g.update(eos_token_id=-2))),
        Case("C23-generation-broken", 2, GENERATION, with_file(LLAMA, GENERATION, "{")),
    ]


def unsupported():
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    return [
        Case("C14-architecture", 5, "FooForCausalLM", keys(LLAMA, architectures=[
            "FooForCausalLM"], model_type="foo")),
        Case("C14-no-architectures", 5, 'without "architectures"', keys(LLAMA, architectures=...)),
        Case("C14-activation", 5, "snake", keys(BERT, hidden_act="snake")),
        Case("C14-rope-type", 5, "longrope", rope(rope_type="longrope")),
        Case("C14-quant-method", 5, "gptq", keys(LLAMA, quantization_config=gptq)),
        Case("C14-decoder", 5, "is_decoder", keys(BERT, is_decoder=True)),
        Case("C14-positions", 5, "relative_key", keys(BERT, position_embedding_type=
                                                      "relative_key")),
        Case("C14-heads-pruned-v4", 5, "pruned_heads", keys(BERT, pruned_heads={"0": [1]})),
        Case("C14-rope-per-layer-type", 5, "rope_parameters", rope(full_attention={
            "rope_type": "default"})),
    ]


def accepted():
    return [
        Case("C16-ok-unknown-keys", 0, "", keys(BERT, foo={"bar": [1, None]}, _x="\u00fc")),
        Case("C18-ok-eos-list", 0, "", keys(LLAMA, eos_token_id=[1, 4095, 50256])),
        Case("C24-ok-version-4", 0, "", keys(
            LLAMA, rope_parameters=..., rope_theta=10000, rope_scaling=None, dtype=...,
            torch_dtype="float16", head_dim=None, attention_bias=..., mlp_bias=...)),
    ]


def files():
    deep = '{"a":' * 100000 + "1" + "}" * 100000
    return [
        Case("C01-missing", 2, CONFIG, with_file(BERT, CONFIG, None)),
        Case("C02-empty", 2, CONFIG, with_file(BERT, CONFIG, "")),
        Case("C02-no-keys", 2, "model_type", with_file(BERT, CONFIG, "{}")),
        Case("C02-array", 2, "object", with_file(BERT, CONFIG, "[]")),
        Case("C02-cut", 2, CONFIG, with_file(BERT, CONFIG, lambda: (
            BERT / CONFIG).read_bytes()[:300])),
        Case("C02-duplicate-key", 2, "duplicate", raw(BERT, "{", '{"vocab_size": 1,')),
        Case("C02-not-utf8", 2, CONFIG, with_file(BERT, CONFIG, lambda: (
            BERT / CONFIG).read_bytes().replace(b"negative", b"neg\xff"))),
        Case("C02-deep", 2, "nested", with_file(BERT, CONFIG, deep)),
        Case("C02-a-million-objects", 2, "limit 200000", with_file(
            BERT, CONFIG, '{"a":[' + "{}," * 1000000 + "{}]}")),
        Case("C02-20-megabytes", 2, CONFIG, with_file(BERT, CONFIG, " " * 20000000 + "{}")),
    ]


# ---- directories ----

def shards(edit=None):
    """novels-5m in two shards; edit(folder, index) damages them."""
    def make(folder):
        place(LLAMA, folder, {WEIGHTS})
        whole = Tensors(LLAMA / WEIGHTS)
        names = [n for n in whole.header if n != "__metadata__"]
        index = {"metadata": {"total_size": len(whole.data)}, "weight_map": {}}
        for part, chosen in ((1, names[:20]), (2, names[20:])):
            shard = Tensors(LLAMA / WEIGHTS)
            begin = whole.entry(chosen[0])["data_offsets"][0]
            end = whole.entry(chosen[-1])["data_offsets"][1]
            shard.header = {n: dict(whole.entry(n), data_offsets=[
                at - begin for at in whole.entry(n)["data_offsets"]]) for n in chosen}
            shard.data = whole.data[begin:end]
            put(folder, f"model-{part}.safetensors", shard.bytes())
            index["weight_map"].update({n: f"model-{part}.safetensors" for n in chosen})
        if edit:
            edit(folder, index)
        if not (folder / INDEX).exists():
            put(folder, INDEX, json.dumps(index))
    return make


def pointing(target):
    """The index sends one tensor to `target`."""
    def edit(folder, index):
        index["weight_map"]["model.norm.weight"] = target
    return shards(edit)


def instead(kind):
    """The second shard is something else."""
    def edit(folder, index):
        path = folder / "model-2.safetensors"
        path.unlink()
        kind(path)
    return shards(edit)


def doubled(folder, index):
    name = "model.embed_tokens.weight"
    shard = Tensors(folder / "model-2.safetensors")
    shard.append(name, "F16", [0], b"")
    put(folder, "model-2.safetensors", shard.bytes())


def unlisted(folder, index):
    del index["weight_map"]["model.norm.weight"]


def unheld(folder, index):
    index["weight_map"]["model.extra.weight"] = "model-1.safetensors"


def swapped(folder, index):
    index["weight_map"]["model.norm.weight"] = "model-1.safetensors"


def total(folder, index):
    index["metadata"]["total_size"] = 1


def sparse(path):
    with open(path, "wb") as file:
        file.truncate(1 << 40)


def replaced(name, kind):
    """File `name` is something else than a file."""
    def make(folder):
        place(BERT, folder, {name})
        kind(folder / name)
    return make


def pickled(folder):
    place(BERT, folder, {WEIGHTS})
    put(folder, "pytorch_model.bin", b"\x80\x02}q\x00.")


def linked(folder):
    """As the Hugging Face cache keeps files: links to blobs."""
    blobs = folder / "blobs"
    blobs.mkdir()
    for path in sorted(BERT.iterdir()):
        put(blobs, path.name + ".blob", path.read_bytes())
        os.symlink(f"blobs/{path.name}.blob", folder / path.name)


def index_text(text):
    return shards(lambda folder, index: put(folder, INDEX, text))


def directories():
    name = "plain name"
    return [
        Case("D01-parent", 2, name, pointing("../model-2.safetensors")),
        Case("D01-absolute", 2, name, pointing("/etc/model.safetensors")),
        Case("D01-backslash", 2, name, pointing("..\\model-2.safetensors")),
        Case("D01-nul", 2, INDEX, pointing("model-2.safetensors\0.safetensors")),
        Case("D01-empty", 2, name, pointing("")),
        Case("D01-no-string", 2, name, pointing(7)),
        Case("D01-pickle", 2, name, pointing("pytorch_model.bin")),
        Case("D02-link-to-passwd", 2, "model-2.safetensors",
             instead(lambda p: os.symlink("/etc/passwd", p))),
        Case("D03-fifo", 2, "model-2.safetensors", instead(os.mkfifo)),
        Case("D03-directory", 2, "model-2.safetensors", instead(os.mkdir)),
        Case("D03-device", 2, "model-2.safetensors",
             instead(lambda p: os.symlink("/dev/zero", p))),
        Case("D03-link-loop", 2, "model-2.safetensors",
             instead(lambda p: os.symlink(p.name, p))),
        Case("D04-missing-shard", 2, "model-2.safetensors is missing",
             instead(lambda p: None)),
        Case("D05-tensor-twice", 2, "duplicate", shards(doubled)),
        Case("D06-not-in-index", 2, "not in the index", shards(unlisted)),
        Case("D06-not-in-shard", 2, "no shard holds it", shards(unheld)),
        Case("D06-other-shard", 2, "lies in", shards(swapped)),
        Case("D07-ok-total-size", 0, "", shards(total)),
        Case("D07-ok-shards", 0, "", shards()),
        Case("D08-index-empty", 2, INDEX, index_text("")),
        Case("D08-index-no-map", 2, "weight_map", index_text("{}")),
        Case("D08-index-list", 2, INDEX, index_text("[]")),
        Case("D08-index-duplicate", 2, "duplicate", index_text(
            '{"weight_map":{"a":"model-1.safetensors","a":"model-1.safetensors"}}')),
        Case("D08-index-flood", 2, "limit", index_text(
            '{"weight_map":{' + ",".join(f'"{i}":{{}}' for i in range(200000)) + "}}")),
        Case("D10-sparse-terabyte", 2, WEIGHTS, replaced(WEIGHTS, sparse)),
        Case("D11-weights-fifo", 2, WEIGHTS, replaced(WEIGHTS, os.mkfifo)),
        Case("D11-config-fifo", 2, CONFIG, replaced(CONFIG, os.mkfifo)),
        Case("D11-config-directory", 2, CONFIG, replaced(CONFIG, os.mkdir)),
        Case("D11-dangling-link", 2, WEIGHTS,
             replaced(WEIGHTS, lambda p: os.symlink("nowhere", p))),
        Case("D12-no-weights", 2, WEIGHTS, with_file(BERT, WEIGHTS, None)),
        Case("D12-empty-directory", 2, CONFIG, lambda folder: None),
        Case("D12-pickle-only", 5, "pytorch_model.bin", pickled),
        Case("D13-ok-links", 0, "", linked),
        Case("D16-no-such-directory", 2, "no such directory", None, model="/no/such/model"),
        Case("D16-not-in-cache", 2, "refs/main", None, model="org/name"),
        Case("D16-long-path", 2, "", None, model="x/" * 4000 + "y"),
        Case("D16-a-file", 2, "is no directory", None, model=str(BERT / CONFIG)),
        Case("D16-escape-in-path", 2, "\\x1B", None, model="\x1b[31mred"),
    ]


def cases():
    return files() + fields() + unsupported() + accepted() + directories()
