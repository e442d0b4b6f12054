"""Tokenizers in the style of known model families, trained on the spot: each function returns the
text of a tokenizer.json. Used by test_tokenizers.py (large vocabularies) and
make_tokenizer_vectors.py (tiny ones)."""

import io
import json
import tempfile

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
          r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
         r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
         r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"


def finish(tokenizer, edit=None):
    data = json.loads(tokenizer.to_str())
    if edit:
        edit(data)
    return json.dumps(data, ensure_ascii=False)


def special(*contents):
    return [AddedToken(c, special=True, normalized=False) for c in contents]


def train_bpe(tokenizer, text, size, alphabet=(), tokens=()):
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                  initial_alphabet=list(alphabet), special_tokens=list(tokens))
    tokenizer.train_from_iterator(text, trainer)


def byte_level(text, size, pre, normalizer=None, ignore_merges=False, prefix=False, tokens=()):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    train_bpe(tokenizer, text, size, pre_tokenizers.ByteLevel.alphabet(), tokens)
    return tokenizer


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def split_bytes(*patterns):
    steps = [split(p) for p in patterns]
    return pre_tokenizers.Sequence(steps + [pre_tokenizers.ByteLevel(False, use_regex=False)])


def gpt2(text, size):
    tokenizer = byte_level(text, size, pre_tokenizers.ByteLevel(False), tokens=["<|endoftext|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return finish(tokenizer)


def roberta(text, size):
    tokens = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = byte_level(text, size, pre_tokenizers.ByteLevel(True), tokens=tokens)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return finish(tokenizer)


def llama3(text, size):
    tokens = ["<|begin_of_text|>", "<|end_of_text|>"]
    tokenizer = byte_level(text, size, split_bytes(LLAMA3), ignore_merges=True)
    tokenizer.add_special_tokens(special(*tokens))
    begin = (tokens[0], tokenizer.token_to_id(tokens[0]))
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"{tokens[0]} $A",
                                      pair=f"{tokens[0]} $A {tokens[0]}:1 $B:1",
                                      special_tokens=[begin])])
    return finish(tokenizer)


def qwen2(text, size):
    tokenizer = byte_level(text, size, split_bytes(QWEN2), normalizers.NFC())
    tokenizer.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False, special=False)])
    return finish(tokenizer)


def qwen35(text, size):
    return finish(byte_level(text, size, split_bytes(QWEN35), normalizers.NFC()))


def o200k(text, size):
    return finish(byte_level(text, size, split_bytes(O200K)))


def deepseek(text, size):
    patterns = [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", DEEPSEEK]
    return finish(byte_level(text, size, split_bytes(*patterns)))


def bloom(text, size):
    return finish(byte_level(text, size, split_bytes(BLOOM)))


def smollm2(text, size):
    pre = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    return finish(byte_level(text, size, pre, tokens=["<|endoftext|>", "<|im_start|>"]))


def byte_level_normalizer(text, size):
    """ByteLevel as a normalizer (as some ModernBERT and Phi files have it), a gap in the alphabet."""
    tokenizer = Tokenizer(models.BPE(unk_token="?"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.ByteLevel()])
    tokenizer.pre_tokenizer = split("[^\u0120]+\u0120?")
    tokenizer.decoder = decoders.ByteLevel()
    train_bpe(tokenizer, text, size, (), ["?"])
    tokenizer.add_tokens([AddedToken("na\u00efve", normalized=True)])
    return finish(tokenizer)


def with_bytes(data):
    """Adds <0x00>..<0xFF> and the flags of SentencePiece's BPE."""
    vocab = data["model"]["vocab"]
    for byte in range(256):
        vocab.setdefault(f"<0x{byte:02X}>", len(vocab))
    data["model"].update(byte_fallback=True, fuse_unk=True, unk_token="<unk>")


def sentencepiece_bpe(text, size, normalizer, pre, decoder, train_pre=None):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = train_pre or pre_tokenizers.Split("\u2581", "merged_with_next")
    tokenizer.decoder = decoder
    train_bpe(tokenizer, text, size, (), ["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])

    def edit(data):
        with_bytes(data)
        data["pre_tokenizer"] = json.loads(pre.__getstate__()) if pre else None

    return finish(tokenizer, edit)


def llama_decoder():
    return decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(),
                              decoders.Fuse(), decoders.Strip(" ", 1, 0)])


def llama2(text, size):
    norm = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    return sentencepiece_bpe(text, size, norm, None, llama_decoder())


def llama2_metaspace(text, size):
    pre = pre_tokenizers.Metaspace("\u2581", prepend_scheme="first", split=False)
    train = pre_tokenizers.Metaspace("\u2581", prepend_scheme="first")
    return sentencepiece_bpe(text, size, None, pre, llama_decoder(), train)


def mistral_strip(text, size):
    norm = normalizers.Sequence([normalizers.Strip(), normalizers.Lowercase()])
    pre = pre_tokenizers.Metaspace("\u2581", prepend_scheme="first")
    return sentencepiece_bpe(text, size, norm, pre, decoders.Metaspace(prepend_scheme="first"), pre)


def gemma(text, size):
    decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(),
                                 decoders.Fuse()])
    pre = pre_tokenizers.Split(" ", "merged_with_previous")
    return sentencepiece_bpe(text, size, normalizers.Replace(" ", "\u2581"), pre, decoder)


def charsmap(rule="nmt_nfkc"):
    """SentencePiece's compiled character map, from a model trained for the purpose. A dict makes a
    small map of its own."""
    import sentencepiece

    model = io.BytesIO()
    lines = iter(["abcdefgh ijklmn opqrst uvwxyz"] * 20)
    options = {"normalization_rule_name": rule}
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as tsv:
        if isinstance(rule, dict):
            for old, new in rule.items():
                print(" ".join(f"{ord(c):X}" for c in old), " ".join(f"{ord(c):X}" for c in new),
                      sep="\t", file=tsv, flush=True)
            options = {"normalization_rule_tsv": tsv.name}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines, model_writer=model, vocab_size=32, model_type="char",
            minloglevel=2, **options)
    return proto_charsmap(model.getvalue())


def proto_charsmap(blob):
    """ModelProto.normalizer_spec (field 3) . precompiled_charsmap (field 2)."""
    def fields(data):
        at = 0
        def varint():
            nonlocal at
            value = shift = 0
            while True:
                byte = data[at]
                at += 1
                value |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    return value
        while at < len(data):
            key = varint()
            if key & 7 == 0:
                varint()
            elif key & 7 == 5:
                at += 4
            elif key & 7 == 1:
                at += 8
            else:
                size = varint()
                yield key >> 3, data[at:at + size]
                at += size
    spec = next(v for k, v in fields(blob) if k == 3)
    return next(v for k, v in fields(spec) if k == 2)


def unigram(text, size, normalizer, pre, decoder, byte_fallback=False):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoder
    trainer = trainers.UnigramTrainer(vocab_size=size, show_progress=False, unk_token="<unk>",
                                      special_tokens=["<pad>", "</s>", "<unk>"])
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.add_special_tokens(special("<extra_id_0>", "<extra_id_1>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])

    def edit(data):
        if byte_fallback:
            vocab = data["model"]["vocab"]
            have = {t for t, _ in vocab}
            vocab += [[f"<0x{b:02X}>", -20.0] for b in range(256) if f"<0x{b:02X}>" not in have]
            data["model"]["byte_fallback"] = True
            base = len(vocab)
            for i, token in enumerate(t for t in data["added_tokens"] if t["id"] > 2):
                token["id"] = base + i

    return finish(tokenizer, edit)


def t5(text, size, rule="nmt_nfkc"):
    norm = normalizers.Sequence([normalizers.Precompiled(charsmap(rule)),
                                 normalizers.Replace(Regex(" {2,}"), "\u2581")])
    pre = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return unigram(text, size, norm, pre, decoders.Metaspace())


def xlmr(text, size):
    pre = pre_tokenizers.Metaspace(prepend_scheme="always")
    return unigram(text, size, normalizers.Precompiled(charsmap("nmt_nfkc_cf")), pre,
                   decoders.Metaspace(), byte_fallback=True)


def albert(text, size):
    norm = normalizers.Sequence([normalizers.Replace("``", '"'), normalizers.Replace("''", '"'),
                                 normalizers.NFKD(), normalizers.StripAccents(),
                                 normalizers.Lowercase(), normalizers.Nmt()])
    pre = pre_tokenizers.Metaspace(prepend_scheme="never")
    return unigram(text, size, norm, pre, decoders.Metaspace(prepend_scheme="never"))


def bert(text, size, **options):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**options)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, show_progress=False,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return finish(tokenizer)


def bert_cased(text, size):
    return bert(text, size, lowercase=False, handle_chinese_chars=False)


def wordlevel(text, size):
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=size, show_progress=False,
                                        special_tokens=["[UNK]"])
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.add_tokens([AddedToken("cat", single_word=True, normalized=False),
                          AddedToken("New York", lstrip=True, rstrip=True, normalized=False),
                          AddedToken("  ", rstrip=True, normalized=False),
                          AddedToken("caf\u00e9", normalized=True),
                          AddedToken("[a]", special=True, normalized=True)])
    return finish(tokenizer)


def clip(text, size):
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(),
                                                 normalizers.Replace(Regex(r"\s+"), " "),
                                                 normalizers.Lowercase()])
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split(pattern, "removed", True), pre_tokenizers.ByteLevel(False, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, end_of_word_suffix="</w>",
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  special_tokens=["<|startoftext|>", "<|endoftext|>"])
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.decoder = decoders.BPEDecoder("</w>")
    return finish(tokenizer)


def bpe_prefix(text, size):
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", continuing_subword_prefix="##"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.CharDelimiterSplit(" "),
                                                       pre_tokenizers.Punctuation("contiguous")])
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                  continuing_subword_prefix="##", special_tokens=["[UNK]"],
                                  limit_alphabet=60)
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.decoder = decoders.WordPiece("##", False)
    return finish(tokenizer)


def fixed(text, size):
    """Odds and ends: FixedLength, unk without fusing, every behavior of Split, no decoder."""
    tokenizer = Tokenizer(models.BPE(unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        split(r"[aeiou]+", "merged_with_previous"), split(r"[st]", "merged_with_next"),
        split(r"[.,!]", "contiguous"), pre_tokenizers.Split("on", "isolated"),
        pre_tokenizers.Split("the", "removed"), pre_tokenizers.Digits(False),
        pre_tokenizers.FixedLength(7)])
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=["?"],
                                  limit_alphabet=50)
    tokenizer.train_from_iterator(text, trainer)
    return finish(tokenizer)


def ctc(text, size):
    letters = {c: i + 3 for i, c in enumerate("abcdefghijklmnopqrstuvwxyz'")}
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "|": 1, "<unk>": 2, **letters},
                                           unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(),
                                                 normalizers.Replace(Regex(" "), "|")])
    tokenizer.pre_tokenizer = pre_tokenizers.FixedLength(1)
    tokenizer.decoder = decoders.CTC()
    return finish(tokenizer)


FAMILIES = {f.__name__: f for f in (
    gpt2, roberta, llama3, qwen2, qwen35, o200k, deepseek, bloom, smollm2, byte_level_normalizer,
    llama2, llama2_metaspace, mistral_strip, gemma, t5, xlmr, albert, bert, bert_cased, wordlevel,
    clip, bpe_prefix, fixed, ctc)}
