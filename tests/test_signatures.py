"""No public function takes so many arguments that a reader has to count them."""

import importlib
import inspect
import pkgutil

import bnn_adv

MOST = 8


def public_functions():
    """Yield public functions and methods, each where it is defined."""
    for info in pkgutil.walk_packages(bnn_adv.__path__, "bnn_adv."):
        module = importlib.import_module(info.name)
        for name, member in vars(module).items():
            if name.startswith("_") or getattr(member, "__module__", None) != info.name:
                continue
            if inspect.isclass(member):
                for own, method in vars(member).items():
                    function = getattr(method, "__func__", method)
                    if not own.startswith("_") and inspect.isfunction(function):
                        yield f"{info.name}.{name}.{own}", function
            elif callable(member):
                yield f"{info.name}.{name}", member


def test_no_public_function_takes_more_than_eight_arguments():
    counts = {}
    for name, function in public_functions():
        names = [name for name in inspect.signature(function).parameters if name != "self"]
        counts[name] = len(names)
    assert len(counts) > 300
    assert {name: count for name, count in counts.items() if count > MOST} == {}
