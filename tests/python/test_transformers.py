"""`sfq.transformers`: artifacts load with widths of their own in every layer and compute what sfq
computes; checkpoints are compressed on load; what is saved is an artifact again."""

import copy
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch

import test_format_spec
import test_parity
from oracle import distance, randomize
from package import PASSAGE, command, sfq

tf = pytest.importorskip("transformers")
import sfq.transformers as plugin  # noqa: E402

LANGUAGE = ["llama-gqa", "llama-mha-bias-tied-f16", "mistral-window", "smollm3-nope",
            "qwen2-window-tied", "qwen3-window-bias", "gpt2", "gpt2-untied-inner"]
ENCODERS = ["bert-classifier", "bert-regression-f16", "bert-embedder", "distilbert-classifier",
            "distilbert-embedder"]
FFN = {"gpt2": "n_inner", "distilbert": "hidden_dim"}
EAGER = {"dtype": torch.float32, "attn_implementation": "eager"}
ROUNDING = 3e-2  # what rounded activations cost a tiny random model: a third of it, mostly
PACKED = (plugin.Linear, plugin.Embedding)
EXACT = plugin.SfqConfig(exact=True)
PROMPT = "It was a dark and"


def compute(model, ids, **more):
    """[n, T, vocab], [n, labels], or hidden states [n, T, width]"""
    with torch.no_grad():
        out = model(ids, **more)
    return (out.logits if "logits" in out else out.last_hidden_state).float().numpy()


def widths(info):
    return [(layer.heads, layer.kv_heads, layer.ffn) for layer in info.layers]


def draw(vocab, *shape):
    return torch.randint(0, vocab, shape, generator=torch.Generator().manual_seed(1))


# ---- families ------------------------------------------------------------------------------------


class Case:
    """A tiny random model of a family and head, pruned and quantized by sfq."""

    def __init__(self, name, folder, models, ffn=128, **options):
        config_class, self.kind, kw, dtype = test_parity.CASES[name]
        kw = {**kw, FFN.get(config_class.model_type, "intermediate_size"): ffn}
        options = {"prune": 0.4, "rounds": 1, "calib_tokens": 600, "calib_length": 32, "bits": 7,
                   "embedding_bits": 4, "activation_bits": 12, "steps": 2, **options}
        if name in ENCODERS:
            tokenizer = models("sst2-tiny") / "tokenizer.json"
            kw["vocab_size"] = tf.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer)).vocab_size
            options["text"] = PASSAGE
        (folder / "in").mkdir(parents=True)
        randomize(self.kind(config_class(**kw)), seed=11).to(dtype).save_pretrained(folder / "in")
        if name in ENCODERS:
            shutil.copy(tokenizer, folder / "in")
        self.name, self.path = name, folder / "out"
        self.ids = draw(kw["vocab_size"], 2, 23)
        self.result = sfq.compress(folder / "in", self.path, progress=False, **options)

    def load(self, path=None, **options):
        return self.kind.from_pretrained(path or self.path, **{**EAGER, **options})

    def sfq(self, path=None):
        with sfq.Model(path or self.path) as model:
            compute = model.hidden if model.info.head == "embedding" else model.logits
            return compute(self.ids.numpy().astype(np.int32))


@pytest.fixture(scope="module", params=LANGUAGE + ENCODERS)
def case(request, models, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp(request.param) / "m", models,
                bits_for={"layers?.0.*down|h.0.*c_fc|lin2": 16})


def decoded_by_numpy(model, path):
    """Stock linear layers and tables with what the second reader of the format decodes."""
    tensors = dict(test_format_spec.read_tensors(path / "model.safetensors"))
    entries = json.loads((path / "config.json").read_text())["quantization_config"]["tensors"]
    heads = [name for name, m in model.named_modules() if isinstance(m, plugin.TiedLinear)]
    for name, entry in entries.items():
        old = model.get_submodule(name)
        weight = torch.nn.Parameter(torch.tensor(test_format_spec.decode(
            tensors[name + ".codes"], tensors[name + ".scales"], entry)))
        if isinstance(old, plugin.Embedding):
            new = torch.nn.Embedding(*weight.shape)
            for head in heads:
                model.set_submodule(head, torch.nn.Linear(*weight.T.shape, bias=False))
                model.get_submodule(head).weight = weight
        else:
            new = torch.nn.Linear(old.in_features, old.out_features, old.bias is not None)
            new.bias = None if old.bias is None else torch.nn.Parameter(old.bias.float())
        new.weight = weight
        model.set_submodule(name, new)
    assert not any(isinstance(m, PACKED) for m in model.modules())
    return model


def test_family(case):
    """Transformers around the packed matrices gives sfq's numbers within what rounding activations
    costs, and the decoded model's where they are not rounded."""
    info = sfq.inspect(case.path)
    assert case.result.pruned.neurons > 0
    got, ours = compute(case.load(), case.ids), case.sfq()
    exact = compute(case.load(quantization_config=EXACT), case.ids)
    assert 1e-5 < distance(ours, exact) < ROUNDING
    assert distance(got, ours) < ROUNDING and distance(got, exact) < ROUNDING
    assert distance(exact, compute(decoded_by_numpy(case.load(), case.path), case.ids)) < 1e-4
    sdpa = compute(case.load(attn_implementation="sdpa"), case.ids)
    assert distance(sdpa, got) < ROUNDING
    model = case.load()
    sizes = {m.out_features for m in model.modules() if isinstance(m, plugin.Linear)}
    assert {layer.ffn for layer in info.layers[1:]} <= sizes  # a matrix of layer 0 is 16 bit
    layers = model.config.quantization_config.layers
    assert [(i["heads"], i["kv_heads"], i["ffn"]) for i in layers] == widths(info)


def test_save_and_load(case, tmp_path):
    """The same numbers, bit by bit, from Transformers and from sfq."""
    model = case.load()
    model.save_pretrained(tmp_path / "saved")
    again = case.load(tmp_path / "saved")
    assert np.array_equal(compute(again, case.ids), compute(model, case.ids))
    assert np.array_equal(case.sfq(tmp_path / "saved"), case.sfq())
    configs = [json.loads((path / "config.json").read_text()) for path in
               (case.path, tmp_path / "saved")]
    assert configs[0]["quantization_config"] == configs[1]["quantization_config"]
    assert configs[0].get("per_layer_config") == configs[1].get("per_layer_config")
    before, after = sfq.inspect(case.path), sfq.inspect(tmp_path / "saved", verify=True)
    assert widths(after) == widths(before)
    if case.name != "bert-embedder":  # Transformers saves its new pooler, too
        assert after.parameters == before.parameters
    tensors = dict(test_format_spec.read_tensors(case.path / "model.safetensors"))
    for name, tensor in test_format_spec.read_tensors(tmp_path / "saved" / "model.safetensors"):
        if name.endswith((".codes", ".scales")):
            assert np.array_equal(tensor, tensors[name]) and tensor.dtype == tensors[name].dtype


@pytest.mark.parametrize("name", ["llama-gqa", "gpt2", "bert-classifier", "distilbert-classifier"])
def test_heads_are_pruned(name, models, tmp_path):
    """Head counts differ between layers, in every way that families spell them."""
    case = Case(name, tmp_path / "m", models, ffn=64, prune=0.25, steps=0)
    heads = [layer.heads for layer in sfq.inspect(case.path).layers]
    assert len(set(heads)) > 1, heads
    ours = case.sfq()
    assert distance(ours, compute(case.load(quantization_config=EXACT), case.ids)) < ROUNDING
    assert distance(compute(case.load(), case.ids), ours) < ROUNDING


# ---- language model and classifier that were trained ---------------------------------------------


@pytest.fixture(scope="module")
def novels(models, tmp_path_factory):
    """novels-5m, pruned, at 6 and 4 bits, by the command."""
    out = tmp_path_factory.mktemp("novels") / "small"
    command("compress", models("novels-5m"), "-o", out, "--prune", 0.2, "--steps", 0, "--rounds", 1,
            "--calib-tokens", 512, "--calib-length", 32, "--bits", 6, "--embedding-bits", 4)
    return out


@pytest.fixture(scope="module")
def novels_model(novels):
    return tf.AutoModelForCausalLM.from_pretrained(novels, dtype=torch.float32)


@pytest.fixture(scope="module")
def reviews(models, tmp_path_factory):
    out = tmp_path_factory.mktemp("reviews") / "small"
    sfq.compress(models("sst2-tiny"), out, prune=0, steps=0, bits=7, progress=False)
    return out


def passage_ids(path, count):
    with sfq.Model(path) as model:
        return model.tokenize(PASSAGE.read_text(encoding="utf-8"))[:count]


def divergence(p, q):
    """Mean KL over the positions of two arrays of logits [T, vocab]."""
    p, q = (torch.log_softmax(torch.tensor(x, dtype=torch.float64), -1) for x in (p, q))
    return (p.exp() * (p - q)).sum(-1).mean().item()


def test_logits_of_text(novels, novels_model):
    ids = passage_ids(novels, 200)
    got = compute(novels_model, torch.tensor(ids[None].astype(np.int64)))[0]
    with sfq.Model(novels) as model:
        ours = model.logits(ids)
    assert divergence(ours, got) < 1e-4
    assert (got.argmax(1) == ours.argmax(1)).mean() > 0.98


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generate(novels, novels_model, cache):
    """Greedy tokens are the likeliest of the whole forward pass; two prompts at a time, padded."""
    tokenizer = tf.AutoTokenizer.from_pretrained(novels)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    batch = tokenizer([PROMPT, "The"], return_tensors="pt", padding=True)
    batch.pop("token_type_ids", None)
    options = {} if cache == "dynamic" else {"cache_implementation": cache}
    out = novels_model.generate(**batch, max_new_tokens=20, min_new_tokens=20, do_sample=False,
                                pad_token_id=tokenizer.pad_token_id, **options)
    first = batch["input_ids"].shape[1]
    assert out.shape == (2, first + 20)
    for row, mask in zip(out, batch["attention_mask"]):
        ids = row[int((mask == 0).sum()):][None]
        logits = compute(novels_model, ids)[0][-21:-1]
        logits[:, novels_model.generation_config.eos_token_id] = -np.inf
        chosen = logits[np.arange(20), ids[0, -20:].numpy()]
        assert (logits.max(1) - chosen).max() < 0.05


def test_text_generation(novels, novels_model):
    tokenizer = tf.AutoTokenizer.from_pretrained(novels)
    by_model = tf.pipeline("text-generation", novels_model, tokenizer=tokenizer)
    by_path = tf.pipeline("text-generation", str(novels), dtype=torch.float32)
    assert any(isinstance(m, plugin.Linear) for m in by_path.model.modules())
    texts = [p(PROMPT, max_new_tokens=12, do_sample=False)[0]["generated_text"]
             for p in (by_model, by_path)]
    assert texts[0] == texts[1] and texts[0].startswith(PROMPT) and len(texts[0]) > len(PROMPT)


def test_text_classification(reviews):
    texts = ["a moving, honest film", "dull and much too long", "the plot is thin"]
    classify = tf.pipeline("text-classification", str(reviews), dtype=torch.float32, top_k=None)
    with sfq.Model(reviews) as model:
        for text, got in zip(texts, classify(texts)):
            scores = {entry["label"]: entry["score"] for entry in got}
            assert np.allclose([scores[label] for label in model.labels], model.classify(text),
                               rtol=0, atol=5e-3)


def test_compile(novels_model):
    """One graph without breaks, and the same numbers but for the order of torch's own sums."""
    ids = draw(4096, 1, 12)
    compiled = torch.compile(novels_model, backend="aot_eager", fullgraph=True)
    wanted = compute(novels_model, ids, use_cache=False)
    assert distance(compute(compiled, ids, use_cache=False), wanted) < 5e-3


def test_gradient_of_the_input(novels_model):
    x = torch.randn(1, 5, 256, generator=torch.Generator().manual_seed(2), requires_grad=True)
    novels_model(inputs_embeds=x, use_cache=False).logits.square().mean().backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtypes(novels, novels_model, dtype):
    ids = draw(4096, 1, 12)
    model = tf.AutoModelForCausalLM.from_pretrained(novels, dtype=dtype)
    assert model.dtype == dtype and model.model.embed_tokens(ids).dtype == dtype
    cast = copy.deepcopy(novels_model).to(dtype)
    with torch.no_grad():
        logits = model(ids).logits
        assert logits.dtype == cast(ids).logits.dtype == dtype
    packed = [m for m in cast.modules() if isinstance(m, PACKED)]
    assert {m.codes.dtype for m in packed} == {torch.uint8}
    assert {m.scales.dtype for m in packed} == {torch.float16}
    for got in (logits[0].float().numpy(), compute(cast, ids)[0]):
        assert divergence(compute(novels_model, ids)[0], got) < 1e-2


def test_copy_and_dequantize(novels):
    ids = draw(4096, 1, 9)
    exact = tf.AutoModelForCausalLM.from_pretrained(novels, dtype=torch.float32,
                                                    quantization_config=EXACT)
    copied = copy.deepcopy(exact)
    assert copied.lm_head.table is copied.model.embed_tokens
    assert copied.lm_head.table is not exact.model.embed_tokens
    wanted = compute(exact, ids)
    assert np.array_equal(compute(copied, ids), wanted)
    copied.model.embed_tokens.codes.zero_()
    assert not np.array_equal(compute(copied, ids), wanted)
    plain = exact.dequantize()
    assert not any(isinstance(m, (*PACKED, plugin.TiedLinear)) for m in plain.modules())
    assert plain.lm_head.weight is plain.model.embed_tokens.weight
    assert distance(compute(plain, ids), wanted) < 1e-5
    assert not hasattr(plain.config, "quantization_config")


# ---- compress on load ----------------------------------------------------------------------------


def same_tensors(model, other):
    a, b = model.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def nothing_left(tmp_path, monkeypatch):
    """Temporary files of the test go to a folder, which is empty in the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("way", ["config", "dict", "flag", "flag with options", "pipeline"])
def test_on_load(models, tmp_path, nothing_left, way):
    """Every spelling gives the model that sfq.compress writes."""
    path, auto = str(models("novels-5m")), tf.AutoModelForCausalLM
    options = {} if way == "flag" else {"bits": 5, "keep": ["layers.2.*k_proj"]}
    sfq.compress(path, tmp_path / "out", prune=0, steps=0, progress=False, **options)
    wanted = auto.from_pretrained(tmp_path / "out", dtype=torch.float32)
    if way == "config":
        got = auto.from_pretrained(path, dtype=torch.float32,
                                   quantization_config=plugin.SfqConfig(**options))
    elif way == "dict":
        got = tf.LlamaForCausalLM.from_pretrained(
            path, dtype=torch.float32, quantization_config={"quant_method": "sfq", **options})
    elif way == "pipeline":
        got = tf.pipeline("text-generation", path, dtype=torch.float32,
                          model_kwargs={"sfq_compress": options}).model
    else:
        got = auto.from_pretrained(path, dtype=torch.float32, sfq_compress=options or True)
    assert same_tensors(got, wanted) and got.hf_quantizer.compression.bytes > 0
    got.save_pretrained(tmp_path / "saved")
    saved = auto.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert same_tensors(saved, wanted)
    configs = [json.loads((tmp_path / f / "config.json").read_text()) for f in ("out", "saved")]
    assert configs[0]["quantization_config"] == configs[1]["quantization_config"]


def test_recipe_on_load(models, tmp_path, nothing_left):
    """Pruning and recalibration on load; the artifact is kept where that is asked for."""
    options = dict(prune=0.2, steps=2, rounds=1, calib_tokens=512, calib_length=32, seed=3,
                   text=str(PASSAGE))
    done = sfq.compress(models("novels-5m"), tmp_path / "out", progress=False, **options)
    config = plugin.SfqConfig(**options, output=tmp_path / "kept", progress=False)
    got = tf.AutoModelForCausalLM.from_pretrained(models("novels-5m"), dtype=torch.float32,
                                                  quantization_config=config)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "kept" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert got.hf_quantizer.compression.drop == done.drop
    assert same_tensors(got, tf.AutoModelForCausalLM.from_pretrained(tmp_path / "out",
                                                                     dtype=torch.float32))
    got.save_pretrained(tmp_path / "saved")
    assert widths(sfq.inspect(tmp_path / "saved")) == widths(sfq.inspect(tmp_path / "out"))
    with pytest.raises(sfq.ExistsError, match="kept"):
        tf.AutoModelForCausalLM.from_pretrained(models("novels-5m"), quantization_config=config)


def test_other_heads(models, reviews, tmp_path):
    """The base model of a classifier, and a classifier over a base model."""
    bert = tf.AutoModel.from_pretrained(reviews, dtype=torch.float32)
    classifier = tf.AutoModelForSequenceClassification.from_pretrained(reviews, dtype=torch.float32)
    ids = draw(4096, 1, 9)
    with torch.no_grad():
        assert torch.equal(bert(ids).last_hidden_state, classifier.bert(ids).last_hidden_state)
    tf.AutoModel.from_pretrained(models("sst2-tiny")).save_pretrained(tmp_path / "base")
    new = tf.BertForSequenceClassification.from_pretrained(
        tmp_path / "base", num_labels=3, sfq_compress={"bits": 7}, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(new.bert(ids).last_hidden_state, bert(ids).last_hidden_state)
    shutil.copy(models("sst2-tiny") / "tokenizer.json", tmp_path / "base")
    new.save_pretrained(tmp_path / "new")
    with sfq.Model(tmp_path / "new") as model:
        assert len(model.labels) == 3
        ours = model.logits(ids[0].numpy().astype(np.int32))
    assert np.allclose(ours, compute(new, ids)[0], rtol=0, atol=1e-2)


# ---- errors --------------------------------------------------------------------------------------


def broken(path, folder, change):
    """A copy of an artifact, its quantization_config changed."""
    shutil.copytree(path, folder)
    config = json.loads((folder / "config.json").read_text())
    change(config["quantization_config"])
    (folder / "config.json").write_text(json.dumps(config))
    return folder


Q_PROJ = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("change, kind, words", [
    (lambda q: q.update(version=2), sfq.UnsupportedError, "version 2"),
    (lambda q: q.pop("version"), sfq.FormatError, "no version"),
    (lambda q: q.pop("layers"), sfq.FormatError, "layers"),
    (lambda q: q["tensors"][Q_PROJ].update(bits=5), sfq.FormatError, Q_PROJ + ".codes is U8"),
    (lambda q: q["tensors"][Q_PROJ].update(bits="8"), sfq.FormatError, Q_PROJ),
    (lambda q: q["tensors"][Q_PROJ].update(shape=[256]), sfq.FormatError, Q_PROJ),
    (lambda q: q["tensors"].update({"model.norm": q["tensors"][Q_PROJ]}), sfq.FormatError,
     "model.norm.codes is missing"),
    (lambda q: q["tensors"][Q_PROJ].update(shape=[1 << 40, 256]), sfq.FormatError, Q_PROJ),
    (lambda q: q["layers"][1].update(heads=0, kv_heads=0), sfq.UnsupportedError, "layer 1"),
    (lambda q: q["layers"][1].update(heads="4"), sfq.FormatError, "number 1 has no heads"),
    (lambda q: q["layers"].insert(0, None), sfq.FormatError, "number 0 has no heads"),
    (lambda q: q["layers"].pop(), sfq.FormatError, "has . layers, the model"),
    (lambda q: q.update(shapes=[]), sfq.FormatError, "shapes is missing or no dict"),
])
def test_damaged(novels, tmp_path, change, kind, words):
    path = broken(novels, tmp_path / "broken", change)
    with pytest.raises(kind, match=words):
        tf.AutoModelForCausalLM.from_pretrained(path)


def test_errors(models, novels_model, tmp_path, nothing_left):
    auto, path = tf.AutoModelForCausalLM, models("novels-5m")
    with pytest.raises(sfq.ArgumentError, match="no argument 'bit'"):
        auto.from_pretrained(path, sfq_compress={"bit": 4})
    with pytest.raises(sfq.ArgumentError, match="sfq_compress is 8"):
        auto.from_pretrained(path, sfq_compress=8)
    for function in (plugin.SfqConfig.of, plugin.SfqConfig.from_dict):
        with pytest.raises(sfq.ArgumentError, match="quantization_config is 8; expected a dict"):
            function(8)
    with pytest.raises(sfq.ArgumentError, match="output is 3; expected a path"):
        plugin.SfqConfig(output=3)
    with pytest.raises(sfq.ArgumentError, match="keep is 3"):
        auto.from_pretrained(path, sfq_compress={"keep": 3})
    with pytest.raises(sfq.ArgumentError, match="not both"):
        auto.from_pretrained(path, sfq_compress=True, quantization_config=plugin.SfqConfig())
    with pytest.raises(sfq.ArgumentError, match="bits"):
        auto.from_pretrained(path, sfq_compress={"bits": 9})
    plain = auto.from_pretrained(path, sfq_compress=False)
    assert isinstance(plain.lm_head, torch.nn.Linear)
    plain.config.save_pretrained(tmp_path / "pickle")
    torch.save(plain.state_dict(), tmp_path / "pickle" / "pytorch_model.bin")
    with pytest.raises(sfq.UnsupportedError, match="safetensors"):
        auto.from_pretrained(tmp_path / "pickle", sfq_compress=True)
    opt = tf.OPTForCausalLM(tf.OPTConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1,
                                         ffn_dim=64, num_attention_heads=2,
                                         max_position_embeddings=32, word_embed_proj_dim=32))
    opt.save_pretrained(tmp_path / "opt")
    with pytest.raises(sfq.UnsupportedError, match="opt|OPT"):
        auto.from_pretrained(tmp_path / "opt", sfq_compress=True)
    with pytest.raises(sfq.UnsupportedError, match="CPU"):
        plugin.SfqQuantizer(plugin.SfqConfig()).validate_environment(device_map={"": "cuda:0"})
    with pytest.raises(sfq.DataError, match="4096"):
        novels_model(torch.tensor([[5, 4096]]))
    with pytest.raises(sfq.ArgumentError, match="ids"):
        novels_model.model.embed_tokens(torch.tensor([0.5]))


def test_module_runner(novels, tmp_path):
    """`python -m sfq.transformers MODULE`: a program that knows no plug-ins loads an artifact."""
    (tmp_path / "program.py").write_text(
        "import sys\nfrom transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "print(sys.argv[0].endswith('program.py'), __name__, type(model.lm_head).__name__)\n")
    run = [sys.executable, "-m", "sfq.transformers"]
    done = subprocess.run([*run, "program", str(novels)], cwd=tmp_path, capture_output=True,
                          text=True, check=True)
    assert done.stdout.split() == ["True", "__main__", "TiedLinear"]
    assert subprocess.run(run, capture_output=True).returncode == 2


def test_register_again():
    before = tf.PreTrainedModel.from_pretrained.__func__
    plugin.register()
    assert tf.PreTrainedModel.from_pretrained.__func__ is before
    from transformers.quantizers import auto
    assert auto.AUTO_QUANTIZER_MAPPING["sfq"] is plugin.SfqQuantizer
    names = [kind.__name__ for kind in auto.LOADING_ATTRIBUTES_CONFIG_TYPES]
    assert names.count("SfqConfig") == 1


def test_config_is_plain():
    """AutoModel copies it deeply, config.json holds it."""
    config = plugin.SfqConfig(prune=0.3, text=pathlib.Path("a.txt"), bits_for={"down": 8})
    again = plugin.SfqConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.options == config.options == copy.deepcopy(config).options
    assert config.options["text"] == "a.txt" and config.options["steps"] is None
    assert plugin.SfqConfig().options["steps"] == 0
