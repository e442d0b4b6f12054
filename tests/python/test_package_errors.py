"""Every argument of every public call of `sfq` with what it is not: the answer is a result or an
`sfq.Error` that names the argument, never another exception, and the models work on afterwards."""

import inspect
import re

import numpy as np
import pytest

from package import DATA, sfq

VALUES = [None, True, 3, -1, 2.5, float("nan"), 10**30, "x", "a\0b", "\ud800", b"x", [], [1], ["x"],
          [None], {"a": 1}, {1: 2}, ("a",), object(), np.float32(2), np.zeros((2, 2, 2)),
          np.array(["a"]), [[1], []], [("a", "b"), "c"], [1 << 40], range(3), 5j]
CALLS = ["plan", "compress", "export", "inspect", "evaluate", "Model", "logits", "hidden",
         "classify", "embed", "tokenize", "detokenize", "generate", "stream"]


@pytest.fixture(scope="module")
def calls(models, tmp_path_factory):
    """By name: a call and arguments that it takes. Nothing compresses: the output is there."""
    there = tmp_path_factory.mktemp("there")
    with sfq.Model(models("novels-5m"), threads=1) as novels, \
            sfq.Model(models("sst2-tiny"), threads=1) as reviews:
        quiet = {"prune": 0, "steps": 0, "progress": False}
        yield {
            "plan": (sfq.plan, {"model": models("sst2-tiny"), **quiet}),
            "compress": (sfq.compress, {"model": models("sst2-tiny"), "output": there, **quiet}),
            "export": (sfq.export, {"model": "nowhere", "output": there, "progress": False}),
            "inspect": (sfq.inspect, {"model": models("sst2-tiny")}),
            "evaluate": (sfq.evaluate, {"model": reviews, "task": "sst2", "data": DATA / "reviews",
                                        "progress": False}),
            "Model": (sfq.Model, {"model": models("sst2-tiny")}),
            "tokenize": (reviews.tokenize, {"text": "a film"}),
            "detokenize": (reviews.detokenize, {"ids": [5, 6]}),
            "logits": (novels.logits, {"inputs": [1, 2]}),
            "hidden": (novels.hidden, {"inputs": "a"}),
            "classify": (reviews.classify, {"inputs": ["a", "b"]}),
            "embed": (reviews.embed, {"inputs": ["a"]}),
            "generate": (novels.generate, {"prompt": "a", "max_tokens": 2}),
            "stream": (novels.stream, {"prompt": "a", "max_tokens": 2}),
        }
        assert novels.logits([1]).shape == (1, novels.info.vocab)
        assert reviews.classify("a film").shape == (2,)


@pytest.mark.parametrize("name", CALLS)
def test_hostile_argument(calls, name):
    function, good = calls[name]
    for argument in inspect.signature(function).parameters:
        if (name, argument) in {("compress", "output"), ("compress", "force"),
                                ("export", "output")}:
            continue  # would write somewhere
        for value in VALUES:
            if argument == "progress" and (value is True or value is None):  # bars
                continue
            try:
                function(**{**good, argument: value})
            except sfq.Error as error:
                assert error.code.startswith("E_") and str(error)


@pytest.mark.parametrize("name, arguments, words", [
    ("plan", {"bits_for": 3}, "bits_for is 3; expected a dict"),
    ("plan", {"bits_for": ["x"]}, "bits_for"),
    ("plan", {"keep": 3}, "keep is 3; expected a list of str"),
    ("plan", {"keep": [b"x", 3]}, "keep is 3; expected a str"),
    ("plan", {"model": None}, "model is None; expected a path"),
    ("plan", {"text": [None]}, "text is None; expected a path"),
    ("plan", {"task": 5, "data": "x"}, "task is 5; expected a str"),
    ("plan", {"bits": "8"}, "bits is '8'"),
    ("plan", {"bits": 2**40}, "bits is 1099511627776"),
    ("export", {"force": 1}, "force is 1; expected True or False"),
    ("evaluate", {"split": "a\0b"}, "split: .* holds a NUL"),
    ("inspect", {"progress": "yes"}, "progress is 'yes'"),
    ("tokenize", {"text": b"x"}, "text is b'x'; expected a str"),
    ("tokenize", {"text": "a\ud800"}, "text is no Unicode text: a lone surrogate at 1"),
    ("detokenize", {"ids": [[1], []]}, "ids is uneven"),
    ("logits", {"inputs": {"a": 1}}, "inputs is {'a': 1}; expected a text"),
    ("logits", {"inputs": 3}, "inputs is 3; expected a text"),
    ("logits", {"inputs": [1, 2], "last": 2}, "last is 2"),
    ("classify", {"inputs": ["a", 1]}, "input 2 is a int"),
    ("generate", {"stop": 3}, "stop is 3"),
])
def test_says_what(calls, name, arguments, words):
    function, good = calls[name]
    with pytest.raises(sfq.Error, match=words) as raised:
        function(**{**good, **arguments})
    assert isinstance(raised.value, (ValueError, sfq.UnsupportedError))
    assert re.match("E_(ARGUMENT|DATA)$", raised.value.code)
