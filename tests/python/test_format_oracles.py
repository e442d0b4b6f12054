"""The format layer against the libraries that define the formats: which safetensors files are valid
(the `safetensors` package), and what an absent key of config.json means (Transformers)."""

import re

import pytest

import hostile_weights
from hostile_kit import ROOT, WEIGHTS

safetensors = pytest.importorskip("safetensors")
transformers = pytest.importorskip("transformers")

# Where this reader is stricter than the package, on purpose (docs/FORMAT.md says so).
STRICTER = {
    "S14-space-in-front", "S15-nul-in-name", "S18-duplicate-metadata-key",
    "S35-a-million-tensors", "S35-metadata-flood", "S36-escape-in-name", "S36-long-name",
    "S36-long-string", "S37-member-unknown", "S37-float64",
}


@pytest.mark.parametrize("case", [c for c in hostile_weights.cases() if c.name[0] == "S"],
                         ids=lambda case: case.name)
def test_same_files_are_valid(case, tmp_path):
    case.make(tmp_path)
    try:
        with safetensors.safe_open(tmp_path / WEIGHTS, "np") as file:
            list(file.keys())
        accepted = True
    except Exception:  # its error class differs between versions
        accepted = False
    ours = case.code == 0 or case.name in STRICTER
    assert accepted == ours


def families():
    """Rows of the table in hf_family.c as {field: text}."""
    source = (ROOT / "src/format/hf_family.c").read_text()
    keys = dict(re.findall(r'\.(\w+) = "?(\w+)"?', source[source.index("#define LLAMA_KEYS"):
                                                         source.index("static const")]))
    for row in re.findall(r"\{(\.model_type.*?)\}", source, re.S):
        fields = dict(re.findall(r'\.(\w+) = "?([\w.+-]+)"?', row))
        yield {**keys, **fields} if "LLAMA_KEYS" in row else fields


@pytest.mark.parametrize("row", list(families()), ids=lambda row: row["model_type"])
def test_absent_keys(row):
    config = transformers.AutoConfig.for_model(row["model_type"])
    rope = getattr(config, "rope_parameters", None) or {}

    def number(field, default=0.0):
        return float(row.get(field, default))

    def token(value):
        return -1 if value is None else value

    assert config.max_position_embeddings == number("positions_default")
    assert getattr(config, row["activation"]) == row["activation_default"]
    if "eps" in row:
        assert getattr(config, row["eps"]) == number("eps_default")
    assert config.tie_word_embeddings == (row.get("tie_default") == "true")
    assert rope.get("rope_theta", 0) == number("theta_default")
    assert token(config.bos_token_id) == number("bos_default")
    assert token(config.eos_token_id) == number("eos_default")
    assert token(config.pad_token_id) == number("pad_default")
    assert getattr(config, "type_vocab_size", 0) == number("type_vocab_default")
    if number("kv_default") > 0:
        assert config.num_key_value_heads == number("kv_default")
    if number("head_dim_default") > 0:
        assert config.head_dim == number("head_dim_default")
    for key in ("hidden", "layers", "heads", "ffn"):
        assert hasattr(config, row[key])
