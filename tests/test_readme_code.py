"""All code in the READMEs runs, and every command in them has flags that exist."""

import dataclasses
import importlib
import re
import shlex
import sys
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from bnn_adv.attacks import pgd, run_attack
from bnn_adv.attacks.objectives import OBJECTIVES, get_objective
from bnn_adv.attacks.threat import LInf
from bnn_adv.attacks.validation import check_problem
from bnn_adv.evaluation.suites import get_suite
from experiments import attack, certify, compare, reproduce, train
from experiments.autoattack.config import Config as AutoAttackConfig
from experiments.autoattack.config import ProcessConfig
from experiments.benchmark.__main__ import Config
from experiments.launch import entry
from experiments.launch.attack_config import AttackConfig
from experiments.launch.certify_config import CertifyConfig
from experiments.launch.compare_config import make_comparison
from experiments.launch.config import choose_preset, define_flags, make, read_flags
from experiments.launch.methods import make_rows
from experiments.launch.presets import PRESETS
from experiments.launch.runtime import CacheConfig, RuntimeConfig
from experiments.readme.__main__ import ROOT, list_readmes

READMES = [path.relative_to(ROOT).as_posix() for path in list_readmes()]
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(python -m experiments\.[^`]*)`")


def blocks(name, language):
    """Return (file name or "", text) of the blocks of a README."""
    found = BLOCK.findall((ROOT / name).read_text("utf-8"))
    return [(file, text) for kind, file, text in found if kind == language]


def commands(name):
    text = (ROOT / name).read_text("utf-8")
    lines = [line for _, block in blocks(name, "sh") for line in block.splitlines()]
    return [line for line in [*lines, *INLINE.findall(text)] if shlex.split(line, comments=True)]


@pytest.fixture
def fork(tmp_path, monkeypatch):
    """Write the files that READMEs show where a fork would have them, and work there."""
    for name in READMES:
        for file, text in blocks(name, "python"):
            if file:
                path = tmp_path / file
                path.parent.mkdir(exist_ok=True)
                (path.parent / "__init__.py").touch()
                path.write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(OBJECTIVES)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "my_fork"]:
        del sys.modules[name]
    for name in set(OBJECTIVES) - known:
        del OBJECTIVES[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in READMES if blocks(name, "python")])
def test_python_examples_run(name, fork):
    rng = np.random.default_rng(0)
    names = {
        "apply_fn": lambda params, x: x.reshape(len(x), -1) @ params,
        "samples": jnp.asarray(rng.normal(size=(5, 64, 10)), jnp.float32),
        "x": jnp.asarray(rng.uniform(size=(6, 8, 8, 1)), jnp.float32),
    }
    names["y"] = names["apply_fn"](names["samples"].mean(0), names["x"]).argmax(-1)
    for file, text in blocks(name, "python"):
        if not file:
            exec(compile(text, name, "exec"), names)
    if "evaluation" in names:
        assert 0 <= names["evaluation"].adversarial_accuracy <= 1
    if "fresh" in names:
        assert 0 <= names["fresh"].accuracy <= 1
    if "x_adv" in names:
        assert 0 < np.abs(names["x_adv"] - names["x"]).max() <= 0.1 + 1e-6
    for kind in ("of_linen", "of_nnx", "of_equinox"):
        if kind in names:
            x, y, threat = names["x"], names["y"], LInf(0.1)
            assert check_problem(names[kind], x, y, threat) == 10
            objective, walk = get_objective("dlr"), pgd.build(num_steps=2)
            x_adv = run_attack(jax.random.key(0), walk, objective, names[kind], x, y, threat=threat)
            assert 0 < np.abs(x_adv - x).max() <= 0.1 + 1e-6


def test_python_examples_are_still_there():
    assert sum(len(blocks(name, "python")) for name in READMES) >= 15
    assert {file for name in READMES for file, _ in blocks(name, "python") if file} == {
        f"my_fork/my_{kind}.py"
        for kind in ("attack", "data", "network", "objective", "sampler", "suite")
    }


def scales_of(module):
    """Return the settings of a study by name of scale."""
    found = getattr(module, "SCALES", {})
    return found if isinstance(found, dict) else {}


def define(module, argv, values):
    """Define the flags of an entry point as it does; a study has those of its settings."""
    if module in (attack, certify, compare, train):
        module.define_all_flags(argv, values)
        return ()
    own = {
        "experiments.autoattack.__main__": (AutoAttackConfig, ProcessConfig),
        "experiments.benchmark.__main__": (Config,),
    }.get(module.__name__, ())
    own = own or (module.Config, CacheConfig)
    flags.DEFINE_string("workdir", "", "", flag_values=values)
    if scales_of(module):
        flags.DEFINE_string("scale", "", "", flag_values=values)
    for config_class in own:
        define_flags(config_class, flag_values=values)
    return own


def check_command(module_name, argv):
    """Parse a command line, and make its settings, which checks them."""
    if module_name == "experiments.readme":
        assert not argv
        return
    name = module_name.removeprefix("experiments.")
    is_study = name in (
        *reproduce.ITEMS,
        "autoattack",
        "benchmark",
        "certifiers",
        "samplers",
        "zoo",
    )
    module = importlib.import_module(module_name + (".__main__" if is_study else ""))
    values = flags.FlagValues()
    argv = [word for word in argv if word != "--help"]
    own = define(module, argv, values)
    values(["test", *argv])
    given = read_flags(values)
    if module is compare:
        make_comparison({**choose_preset(PRESETS, given.get("preset", "")), **given})
        make(RuntimeConfig, given)
    elif module is train:
        config = make(train.TrainConfig, given)
        make_rows(given, (config.method,), config.network)
        make(RuntimeConfig, given)
    elif module in (attack, certify):
        suite = make(AttackConfig if module is attack else CertifyConfig, given).suite
        assert suite == "none" or get_suite(suite)
        make(RuntimeConfig, given)
    else:
        scales = scales_of(module)
        chosen = choose_preset(scales, given.get("scale", ""), flag="scale") if scales else {}
        for config_class in own:
            names = {field.name for field in dataclasses.fields(config_class)}
            make(config_class, {k: v for k, v in {**chosen, **given}.items() if k in names})


def check(line):
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert words[1] in targets
    elif words[:2] == ["pip", "install"]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        extra = re.fullmatch(r"\.\[(\w+)\]", words[2])
        assert extra[1] in project["optional-dependencies"]
    elif words[:2] == ["python", "-c"]:
        compile(words[2], line, "exec")
    else:
        words = words[words.index("python") :] if words[0] == "srun" else words
        assert words[:2] == ["python", "-m"], line
        check_command(words[2], words[3:])


@pytest.mark.parametrize("name", [name for name in READMES if commands(name)])
def test_flags_of_commands_exist(name, fork):
    for line in commands(name):
        try:
            check(line)
        except (flags.Error, ValueError) as error:
            pytest.fail(f"{line}\n{error}")


@pytest.mark.parametrize(
    "line",
    [
        "python -m experiments.compare --models=vi",
        "python -m experiments.half_moons --scale=cpu --data_dir=data --nonsense=1",
        "python -m experiments.train --method=nothing",
        "python -m experiments.reproduce --scale=huge",
        "python -m experiments.attack --posterior=runs/a --suite=nothing",
    ],
)
def test_commands_that_would_not_run_are_found(line):
    with pytest.raises((flags.Error, ValueError)):
        check(line)


@pytest.mark.slow
def test_the_sampler_of_the_readme_is_trained_and_attacked(fork):
    lines = [line for line in commands("bnn_adv/inference/README.md") if "runs/mine" in line]
    assert len(lines) == 2
    results = []
    for line, module in zip(lines, (train, attack), strict=True):
        argv = [*shlex.split(line)[3:], "--compilation_cache=off"]
        values = flags.FlagValues()
        with entry.errors_in_one_line():
            module.define_all_flags(argv, values)
            values(["test", *argv])
            results.append(module.main(values))
    trained, attacked = results
    assert trained["method"] == "my_sampler"
    assert trained["config"]["my_sampler.num_samples"] == 20
    assert trained["num_samples"] == attacked["num_samples"] == 40
    # Langevin steps as short as these are mostly accepted.
    assert trained["diagnostics"]["acceptance_rate"] > 0.5
    assert Path("runs/mine_attack/adversarial.npz").exists()
