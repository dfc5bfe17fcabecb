"""The hash of a value: the same in every process, another one where anything in it is changed."""

import dataclasses
import functools
import subprocess
import sys
import threading
import types
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from bnn_adv.attacks.objectives import OBJECTIVES
from bnn_adv.attacks.threat import L2, LInf
from bnn_adv.compute.canonical import digest
from bnn_adv.evaluation.suites import SUITES
from bnn_adv.networks import build_network, get_apply_fn

SOURCE = """
SCALE = {scale}
def helper(x):
    return x * SCALE
def f(x, y={default}):
    # {comment}
    return helper(x) + {constant} + y
"""


def make(scale=2, default=1, constant=3, comment=""):
    """Return a function of a module of one's own, which reads a function that reads a number."""
    module = types.ModuleType("theirs")
    exec(
        SOURCE.format(scale=scale, default=default, constant=constant, comment=comment),
        vars(module),
    )
    return module.f


class Point(NamedTuple):
    a: object
    b: object


class Pair(NamedTuple):
    a: object
    b: object


@dataclasses.dataclass
class Record:
    a: object
    b: object


class Net(nn.Module):
    width: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width)(x)


class Mine:
    def __init__(self, weights):
        self.weights = weights

    def __call__(self, x):
        return x * self.weights


def close_over(value):
    return lambda x: x + value


LONG = np.arange(5000.0)
ONE_CHANGED = np.where(np.arange(5000) == 2500, -1.0, LONG)

DIFFERENT = {
    "int, float, bool, text": [1, 1.0, True, "1", b"1", None, "None"],
    "signs and NaN": [0.0, -0.0, float("nan"), float("inf")],
    "dtype": [np.zeros(2, t) for t in ("f4", "f8", ">f4", "i4", "u4")] + [jnp.zeros(2, "bfloat16")],
    "shape": [np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(6), np.zeros((0, 6))],
    "what str leaves out": [LONG, ONE_CHANGED],
    "containers": [
        (1, 2),
        [1, 2],
        Point(1, 2),
        Pair(1, 2),
        Record(1, 2),
        {"a": 1, "b": 2},
        (1, (2,)),
    ],
    "keys": [
        jax.random.key(0),
        jax.random.key(1),
        jax.random.key(0, impl="rbg"),
        jax.random.key_data(jax.random.key(0)),
    ],
    "threats": [LInf(0.1), L2(0.1), LInf(0.2), LInf(0.1, -1.0), LInf(np.full(2, 0.1))],
    "code": [make(), make(scale=5), make(default=2), make(constant=4)],
    "closures": [close_over(1), close_over(2), close_over(LONG), close_over(ONE_CHANGED)],
    "partials": [functools.partial(close_over, 1), functools.partial(close_over, 2)],
    "jitted": [jax.jit(close_over(1)), jax.jit(close_over(2)), close_over(1)],
    "networks": [get_apply_fn(Net()), get_apply_fn(Net(4)), Net(4).apply, Net().apply],
    "names of activations": [
        get_apply_fn(build_network("fc", hidden=2, num_classes=2, activation=name))
        for name in ("relu", "tanh")
    ],
    "objects": [Mine(1), Mine(2), Mine(LONG), Mine(ONE_CHANGED)],
    "equinox": [
        eqx.nn.MLP(2, 2, 3, depth, key=jax.random.key(k)) for depth, k in ((1, 0), (1, 1), (2, 0))
    ],
    "structures": [nnx.split(nnx.Linear(2, n, rngs=nnx.Rngs(0)))[0] for n in (2, 3)],
    "libraries": [jnp.tanh, jnp.sin, np.exp, jax.nn.relu],
    "objectives": list(OBJECTIVES.values()),
    "suites": list(SUITES.values()),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_differs_has_another_hash_and_what_is_made_again_the_same(what):
    found = [digest(value) for value in DIFFERENT[what]]
    assert len(set(found)) == len(found)
    assert found == [digest(value) for value in DIFFERENT[what]]


def test_addresses_comments_and_where_an_array_lies_do_not_count():
    assert digest(make(comment="one")) == digest(make(comment="two"))
    assert digest(close_over(LONG)) == digest(close_over(LONG.copy()))
    values, strided = np.arange(3, dtype="f4"), np.arange(6, dtype="f4")[::2] / 2
    assert digest(values) == digest(jnp.asarray(values)) == digest(strided)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"x", "y", "z"}) == digest({"z", "y", "x"})
    assert digest(Net()) == digest(Net())
    assert digest(Mine(LONG)) == digest(Mine(LONG.copy()))


def test_a_function_that_calls_itself_has_a_hash():
    def make_pair(base):
        def even(n):
            return base if n == 0 else odd(n - 1)

        def odd(n):
            return even(n - 1)

        return even

    assert digest(make_pair(1)) == digest(make_pair(1)) != digest(make_pair(2))


@pytest.mark.slow
def test_another_process_finds_the_same_hash():
    # Not this process: here functions check the shapes of their arguments, which counts as code.
    program = (
        "import sys; "
        "from bnn_adv.attacks import pgd; "
        "from bnn_adv.compute.canonical import digest; "
        "from bnn_adv.evaluation.suites import SUITES; "
        "print('beartype' in sys.modules, hasattr(pgd.init, '__wrapped__')); "
        "print(digest([SUITES['fast'], {'a', 'b', 'c'}]))"
    )
    environment = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": ":".join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**environment, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("7", "8")
    ]
    checks, found = zip(*(p.communicate()[0].splitlines() for p in processes), strict=True)
    assert checks == ("False False",) * 2
    assert len(found[0]) == 32
    assert found[0] == found[1]


def test_what_has_no_hash_is_refused_by_name_and_place():
    with pytest.raises(TypeError, match=r"apply_fn .*closure.*value.* is a _thread.lock"):
        digest(close_over(threading.Lock()), "apply_fn")
    with pytest.raises(TypeError, match=r"labels is an array of Python objects"):
        digest(np.array([None]), "labels")
    with pytest.raises(TypeError, match=r"inputs\['x'\] is traced"):
        jax.jit(lambda x: digest({"x": x}, "inputs"))(1.0)


def test_an_object_may_say_what_it_is():
    class Reader:
        def __init__(self, path):
            self.path, self.lock = path, threading.Lock()

        def __identity__(self):
            return self.path

    assert digest(Reader("a")) == digest(Reader("a")) != digest(Reader("b"))
