"""The C tokenizer against the `tokenizers` library, id for id: the shipped models, models in
../shared (where present) and tokenizers of all families trained here, on a multilingual stress
text, random strings and wikitext-2 (where present)."""

import json
import random
import resource
import subprocess

import pytest

tokenizers = pytest.importorskip("tokenizers")
import tokenizer_families  # noqa: E402
from conftest import ROOT  # noqa: E402

SHARED = ROOT.parent / "shared"
WIKITEXT = SHARED / "data" / "wikitext-2"
STRESS = json.loads((ROOT / "tests/vectors/tokenizer/stress.json").read_text())
ENGLISH = """It is a truth universally acknowledged, that a single man in possession of a good
fortune, must be in want of a wife. However little known the feelings or views of
such a man may be on his first entering a neighbourhood, this truth is so well fixed
in the minds of the surrounding families, that he is considered as the rightful
property of some one or other of their daughters.""".split("\n")


class Tool:
    """A running sfq-test-tokenize."""

    def __init__(self, program, folder):
        self.process = subprocess.Popen([program, folder], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        self.opened = json.loads(self.process.stdout.readline())

    def ask(self, verb, flag, limit, text, pair=None):
        head = f"{verb} {int(flag)} {limit} {len(text)} {-1 if pair is None else len(pair)}\n"
        self.process.stdin.write(head.encode() + text + (pair or b""))
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def encode(self, text, special=True, pair=None, limit=0):
        return self.ask("encode", special, limit, text.encode(), pair and pair.encode())

    def decode(self, ids, skip=True):
        reply = self.ask("decode", skip, 0, " ".join(map(str, ids)).encode())
        return bytes.fromhex(reply["hex"]).decode()

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(20) == 0


@pytest.fixture(scope="session")
def program(build):
    path = build / "bin" / "sfq-test-tokenize"
    if not path.exists():
        pytest.skip(f"{path} is not built")
    return path


@pytest.fixture(scope="session")
def training_text():
    text = ENGLISH * 5 + STRESS
    if WIKITEXT.is_dir():
        text += (WIKITEXT / "test.txt").read_text().split("\n")[:2000]
    return text


@pytest.fixture(scope="session")
def random_strings():
    rng = random.Random(7)
    pool = [c for s in STRESS for c in s]
    plain = " \n\r\tabc'S.1\u00e9"
    out = ["".join(rng.choice(pool if rng.random() < 0.7 else plain)
                   for _ in range(rng.randint(1, 40))) for _ in range(150)]
    blocks = [(0x20, 0x3000), (0x300, 0x370), (0x3000, 0xD800), (0xE000, 0x20000)]
    out += ["".join(chr(rng.randrange(*rng.choice(blocks))) for _ in range(rng.randint(1, 30)))
            for _ in range(150)]
    return out


def compare(tool, oracle, strings):
    for text in strings:
        want = oracle.encode(text)
        got = tool.encode(text)
        assert got.get("ids") == want.ids, ascii(text)
        assert got["types"] == want.type_ids, ascii(text)
        plain = oracle.encode(text, add_special_tokens=False).ids
        assert tool.encode(text, special=False)["ids"] == plain, ascii(text)
        assert got["special"] == len(want.ids) - len(plain)
        for skip in (True, False):
            assert tool.decode(want.ids, skip) == oracle.decode(want.ids, skip), ascii(text)


def compare_pairs(tool, oracle, strings):
    rng = random.Random(3)
    for _ in range(60):
        a, b = rng.choice(strings), rng.choice(strings)
        limit = rng.choice([0, 0, 4, 5, 7, 16, 64, 65])
        if limit:
            oracle.enable_truncation(limit)
        want = oracle.encode(a, b)
        oracle.no_truncation()
        got = tool.encode(a, pair=b, limit=limit)
        assert got["ids"] == want.ids and got["types"] == want.type_ids, (ascii(a), ascii(b), limit)


def compare_all(program, folder, oracle, random_strings, length=None):
    oracle.no_truncation()
    oracle.no_padding()
    tool = Tool(program, folder)
    assert "error" not in tool.opened, tool.opened
    compare(tool, oracle, STRESS + random_strings + ["\n".join(STRESS), "x", " "])
    compare_pairs(tool, oracle, STRESS)
    if WIKITEXT.is_dir():
        text = (WIKITEXT / "valid.txt").read_text()[:length]
        want = oracle.encode(text, add_special_tokens=False).ids
        assert tool.encode(text, special=False)["ids"] == want
        assert tool.decode(want[:20000]) == oracle.decode(want[:20000])
    tool.close()


@pytest.mark.parametrize("name", ["models/novels-5m", "models/sst2-tiny",
                                  "../shared/models/stories260K", "../shared/models/minilm-sst2"])
def test_model(program, random_strings, name):
    folder = ROOT / name
    if not (folder / "tokenizer.json").exists():
        pytest.skip(f"{name} is not here")
    oracle = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    compare_all(program, folder, oracle, random_strings)


@pytest.mark.parametrize("family", sorted(tokenizer_families.FAMILIES))
def test_family(program, training_text, random_strings, tmp_path, family):
    if family in ("t5", "xlmr"):
        pytest.importorskip("sentencepiece")
    text = tokenizer_families.FAMILIES[family](training_text, 2600)
    (tmp_path / "tokenizer.json").write_text(text)
    compare_all(program, tmp_path, tokenizers.Tokenizer.from_str(text), random_strings,
                200000)


MODEL = {"type": "WordLevel", "unk_token": "u", "vocab": {"u": 0, "\u0001": 1}}


def split_steps(pattern):
    first = {"type": "Split", "pattern": {"String": "\u0001"}, "behavior": "Isolated",
             "invert": False}
    return {"type": "Sequence",
            "pretokenizers": [first, {**first, "pattern": {"Regex": pattern},
                                      "behavior": "Removed"}]}


@pytest.mark.parametrize("pattern", [
    r"\s", r"\S", r"\w", r"\W", r"\d", r"\D", r"\h", r"[^\W]", r"[^\S]", r"[\w-]", r"[[:alpha:]]",
    r"[[:alnum:]]", r"[[:punct:]]", r"[[:space:]]", r"[[:upper:]]", r"\p{L}", r"\P{L}", r"\p{^N}",
    r"\p{Lu}", r"\p{Lo}", r"\p{M}", r"\p{N}", r"\p{P}", r"\p{S}", r"\p{Z}", r"[^\s\p{L}\p{N}]",
    r"(?i:s)", r"(?i:k)", r".", r"\p{Alpha}", r"[^(\s|[.,!?])]", r"\b."])
def test_pattern_classes(program, tmp_path, pattern):
    """Every code point of planes 0 and 1, by itself between separators, matches or does not match
    as in Oniguruma."""
    data = {"version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None,
            "decoder": None, "pre_tokenizer": split_steps(pattern), "model": MODEL}
    text = json.dumps(data)
    (tmp_path / "tokenizer.json").write_text(text)
    oracle = tokenizers.Tokenizer.from_str(text)
    tool = Tool(program, tmp_path)
    assert "error" not in tool.opened, tool.opened
    points = [c for c in range(2, 0x20000) if not 0xD800 <= c < 0xE000]
    for at in range(0, len(points), 100000):
        chunk = "\u0001".join(map(chr, points[at:at + 100000]))
        assert tool.encode(chunk)["ids"] == oracle.encode(chunk).ids, hex(points[at])
    tool.close()


@pytest.mark.parametrize("pattern, text", [
    (r"a{2}+", "aaaaaaa"), (r"a{1,2}+b", "aaaab"), (r"x{,3}", "xxxxx"), (r"a{2}?", "aaaaa"),
    (r"a++b|a", "aaab aa"), (r"^b", "a\nb\nb"), (r"a$", "a\na\n"), (r"(?m:a.b)", "a\nb"),
    (r"a.b", "a\nb axb"), (r"", "abc"), (r"\b", "ab cd"), (r"(?=b)", "abab"), (r"(?<=a)b", "abb"),
    (r"{", "a{b"), (r"a{x}", "a{x}"), (r"\u00e9", "caf\u00e9"), (r"[\v]", "a\u000bb"),
    (r"x|", "axa"),
    (r"(?<n>a)\k<n>", "aaaba"), (r"(?>a+)b", "aaab"), (r"[]a]", "a]b"), (r"[a\]-]", "a-]b")])
def test_pattern_language(program, tmp_path, pattern, text):
    """Where the languages of Oniguruma and PCRE2 differ."""
    vocab = {"u": 0}
    for i in range(len(text)):
        for j in range(i + 1, len(text) + 1):
            vocab.setdefault(text[i:j], len(vocab))
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    data = {"version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None,
            "decoder": None, "pre_tokenizer": step, "model": {**MODEL, "vocab": vocab}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    tool = Tool(program, tmp_path)
    assert "error" not in tool.opened, tool.opened
    oracle = tokenizers.Tokenizer.from_str(json.dumps(data))
    assert tool.encode(text)["ids"] == oracle.encode(text).ids
    tool.close()


HOSTILE = {"a": "a", "spaces": " ", "marks": "\u0316\u0301", "newlines": "\n", "zeros": "0",
           "nul": "\0"}


@pytest.mark.parametrize("model", ["models/novels-5m", "models/sst2-tiny",
                                   "../shared/models/stories260K"])
@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_time_is_linear(program, tmp_path, model, kind):
    """4 MB take about 4 times the processor time of 1 MB. What is quadratic takes 16 times, so the
    bound lies between, far from the noise of a busy machine."""
    folder = ROOT / model
    if not (folder / "tokenizer.json").exists():
        pytest.skip(f"{model} is not here")

    def seconds(size):
        path = tmp_path / str(size)
        unit = HOSTILE[kind]
        path.write_text("a" + unit * (size // len(unit.encode())))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([program, folder, "--time", path], capture_output=True, check=True,
                       timeout=120)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime

    small, large = seconds(1_000_000), seconds(4_000_000)
    assert large <= 10 * max(small, 0.1), (small, large)
