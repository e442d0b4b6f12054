"""What the hostile corpus is made with: a case, the two models that it is derived from, and reading
and writing safetensors files by hand, damaged on purpose. Standard library only; no clock and no
random numbers, so the corpus is the same every time."""

import json
import os
import pathlib
import shutil
import struct

ROOT = pathlib.Path(__file__).resolve().parents[2]
BERT = ROOT / "models/sst2-tiny"
LLAMA = ROOT / "models/novels-5m"
INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"

# Which verbs meet the damage. Names of templates in test_hostile.py.
ALL = ("inspect", "run", "eval", "compress")  # config.json and weights
TEXT = ("run", "eval", "tokenize")            # tokenizer.json
READ = ("verify", "compress")                 # values inside of weights


class Case:
    """One model directory: `make(folder)` fills it. `code` is the exit status, `text` a part of the
    one error line; code 0 means that every verb accepts the directory. `model` replaces the path
    that is given to the program, for cases about paths."""

    def __init__(self, name, code, text, make, verbs=ALL, model=None):
        self.name, self.code, self.text, self.make = name, code, text, make
        self.verbs, self.model = verbs, model


def place(source, folder, leave=()):
    """All files of `source` but those in `leave`, as links: no bytes are copied."""
    for path in sorted(source.iterdir()):
        if path.name not in leave:
            target = folder / path.name
            try:
                os.link(path, target)
            except OSError:
                shutil.copyfile(path, target)


def put(folder, name, content):
    data = content if isinstance(content, bytes) else content.encode()
    path = folder / name
    if path.is_symlink() or path.exists():
        path.unlink()
    path.write_bytes(data)


# ---- JSON files ----

def load(path):
    return json.loads(pathlib.Path(path).read_text())


def with_json(source, name, edit):
    """make() for a copy of `source` whose JSON file `name` went through edit(object)."""
    def make(folder):
        place(source, folder, {name})
        content = load(source / name)
        edit(content)
        put(folder, name, json.dumps(content))
    return make


def with_file(source, name, content):
    """make() for a copy of `source` with another file in place of `name` (None: without it)."""
    def make(folder):
        place(source, folder, {name})
        if content is not None:
            put(folder, name, content() if callable(content) else content)
    return make


# ---- safetensors ----

class Tensors:
    """A safetensors file in pieces: header (name -> entry, metadata included) and data."""

    def __init__(self, path):
        raw = pathlib.Path(path).read_bytes()
        size = struct.unpack("<Q", raw[:8])[0]
        self.header = json.loads(raw[8:8 + size])
        self.data = bytearray(raw[8 + size:])

    def entry(self, name):
        return self.header[name]

    def first(self, suffix):
        return next(name for name in self.header if name.endswith(suffix))

    def view(self, name):
        begin, end = self.entry(name)["data_offsets"]
        return memoryview(self.data)[begin:end]

    def remove(self, name):
        """Takes a tensor out so that the rest stays valid."""
        begin, end = self.header.pop(name)["data_offsets"]
        del self.data[begin:end]
        for key, entry in self.header.items():
            if key != "__metadata__" and entry["data_offsets"][0] >= end:
                entry["data_offsets"] = [at - (end - begin) for at in entry["data_offsets"]]

    def append(self, name, dtype, shape, data):
        at = len(self.data)
        self.header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        self.data += data

    def text(self):
        return json.dumps(self.header, separators=(",", ":")).encode()

    def bytes(self, text=None, length=None):
        text = self.text() if text is None else text
        return struct.pack("<Q", len(text) if length is None else length) + text + bytes(self.data)


def with_tensors(source, edit):
    """make() for a copy of `source` whose weights went through edit(Tensors). What edit returns, if
    anything, are the bytes of the file."""
    def make(folder):
        place(source, folder, {WEIGHTS})
        tensors = Tensors(source / WEIGHTS)
        edited = edit(tensors)
        put(folder, WEIGHTS, tensors.bytes() if edited is None else edited)
    return make


def with_header(source, edit):
    """The same, edit(header text) -> header text, data untouched."""
    return with_tensors(source, lambda t: t.bytes(edit(t.text())))


def with_entry(source, suffix, **fields):
    """The same with some fields of one tensor's entry replaced, data untouched."""
    def edit(tensors):
        tensors.entry(tensors.first(suffix)).update(fields)
    return with_tensors(source, edit)
