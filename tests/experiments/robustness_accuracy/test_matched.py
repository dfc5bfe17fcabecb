"""Methods on equal terms: what is trained, a tiny run of all, and verdicts of known rows."""

import dataclasses
import zlib

import jax
import numpy as np
import pytest

from bnn_adv.evaluation import SuiteResult
from bnn_adv.inference import METHODS as METHODS_OF_THE_LIBRARY
from experiments.robustness_accuracy import __main__ as robustness_accuracy
from experiments.robustness_accuracy import measure
from experiments.robustness_accuracy.config import SCALES, Config, list_tasks, method_config
from experiments.robustness_accuracy.matched import METHODS
from experiments.robustness_accuracy.matched_report import (
    judge_matched,
    matched_sentence,
    matched_table,
)
from experiments.robustness_accuracy.passes_figure import passes_figure
from experiments.robustness_accuracy.report import build_study
from tests.experiments.robustness_accuracy.test_figures import MIXED, ROWS, UNMIXED, row

TINY = Config(
    datasets=("digits",),
    sources=("table7",),
    grid_filter=("source=matched",),
    num_test=10,
    batch_size=10,
    checkpoint_every=0.0,
    matched=("hmc", "ensemble"),
    matched_hidden=(4,),
    matched_num_train=60,
    matched_num_draws=4,
    matched_repeats=1,
    matched_members=2,
    matched_epochs=(2,),
    matched_vi_epochs=2,
    mixed_num_samples=4,
    mixed_num_chains=2,
    mixed_num_warmup=10,
    mixed_thinning=1,
    mixed_step_size=0.02,
    mixed_max_steps=100,
)


def test_the_grids_are_as_before_and_equal_terms_follow():
    with_them = list_tasks(Config(**SCALES["cpu"]))
    without = list_tasks(dataclasses.replace(Config(**SCALES["cpu"]), matched=()))
    assert with_them[: len(without)] == without
    matched = with_them[len(without) :]
    assert all(task.is_matched for task in matched)
    counts = {
        (data, method): sum(
            len(t.members) for t in matched if (t.dataset, t.members[0].method) == (data, method)
        )
        for data in ("mnist", "fashion_mnist")
        for method in METHODS
    }
    assert set(counts.values()) == {1, 3}
    assert counts["mnist", "hmc"] == 1
    # Mixed HMC takes longest: whoever stops there has the others.
    assert [task.members[0].method for task in matched[-2:]] == ["hmc", "hmc"]
    assert matched[-1].data == "fashion_mnist, matched"
    assert matched[-1].stage(matched[-1].members[0]) == ("fashion_mnist-hmc-matched-fc-h32-relu-r0")
    chains = method_config(Config(), matched[-1].members, 6000)
    assert (chains.trajectory_length, chains.num_chains, chains.init) == (1.3, 4, "prior")


def test_keys_come_from_names():
    name = "mnist-hmc-matched-fc-h32-relu-r0"
    expected = jax.random.fold_in(jax.random.key(0), zlib.crc32(name.encode()))
    found = measure._key(Config(), name, 0)
    assert (
        jax.random.key_data(found) == jax.random.key_data(jax.random.fold_in(expected, 0))
    ).all()


@pytest.mark.parametrize("method", METHODS)
def test_settings_are_those_of_the_librarys_method(method):
    """Each is one of the library's, with settings of its class."""
    tasks = list_tasks(dataclasses.replace(TINY, matched=METHODS))
    (task,) = (t for t in tasks if t.members[0].method == method)
    module = METHODS_OF_THE_LIBRARY[measure._METHODS.get(method, method)]
    found = method_config(TINY, task.members, 60)
    assert type(found) is module.Config
    if method == "hmc":
        return
    assert found.minibatch_size == 60
    epochs = found.num_swag_epochs if method == "swag" else found.num_epochs
    assert epochs == 2
    assert found.num_draws == {"sgd": 1, "ensemble": 2}.get(method, 4)


@pytest.mark.slow
def test_methods_are_trained_on_the_same_images(tmp_path, monkeypatch):
    """A tiny run; attacks are noise, for the suites compile for seconds."""

    def attack(rng_key, suite, posterior, x, y, *, threat, **_):
        noisy = np.clip(x + threat.epsilon * np.sign(x - 0.5), 0, 1).astype(np.float32)
        names = ["worst"] if suite.worst_case else [e.name for e in suite.entries]
        shares = dict.fromkeys(names, 0.5)
        return SuiteResult(dict.fromkeys(names, noisy), shares, 0.5, 0.25, None)

    monkeypatch.setattr(measure, "run_suite", attack)
    results = robustness_accuracy.run(TINY, str(tmp_path / "run"))
    rows = results["data"]["networks"]
    assert {row["method"]: row["status"] for row in rows} == {"ensemble": "done", "hmc": "done"}
    draws = {row["method"]: row["num_attacked"] for row in rows}
    assert draws == {"ensemble": 2, "hmc": 4}
    for each in rows:
        assert np.mean(each["standing"]) == each["protocols"]["strong"]["worst"]["accuracy"]
    assert {each["num_params"] for each in rows} == {64 * 4 + 4 + 4 * 10 + 10}
    assert set(results["sources"]) >= {"data digits", "data digits, matched"}
    assert [figure["file"] for figure in results["figures"]] == ["figures/clouds_matched.png"]
    # Two chains of four draws are no posterior, and nothing is said of one.
    assert [verdict["holds"] for verdict in results["verdicts"]] == [None]


def test_networks_train_for_each_of_several_numbers_of_passes():
    both = dataclasses.replace(TINY, matched=METHODS, matched_epochs=(2, 3))
    tasks = list_tasks(both)
    found = {(t.members[0].method, t.members[0].get("num_epochs")): t for t in tasks}
    assert len(found) == len(tasks)
    assert set(found) == {
        *((m, passes) for m in ("sgd", "ensemble", "laplace", "swag") for passes in (2, 3)),
        *(("hmc", None), ("vi", None)),
    }
    assert method_config(both, found["ensemble", 3].members, 60).num_epochs == 3
    assert method_config(both, found["swag", 3].members, 60).num_swag_epochs == 3
    assert found["sgd", 3].members[0].name == "sgd-matched-fc-h4-relu-e3-r0"
    # One number alone changes no name, and so no key.
    (alone,) = list_tasks(dataclasses.replace(TINY, matched=("sgd",)))
    assert alone.members[0].name == "sgd-matched-fc-h4-relu-r0"


def test_what_is_kept_is_drawn_against_passes():
    assert passes_figure([*OTHERS, POSTERIOR]) is None
    trained = [
        matched("sgd", repeat, [1] * kept + [0] * (20 - kept), passes=passes)
        for passes, both in ((5, (12, 14)), (20, (2, 4)))
        for repeat, kept in enumerate(both)
    ]
    figure = passes_figure([*trained, POSTERIOR])
    (ax,) = figure.axes
    lines = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert list(lines["SGD"].get_xdata()) == [5, 20]
    assert lines["SGD"].get_ydata() == pytest.approx([65, 15])
    assert lines["HMC"].get_ydata() == pytest.approx([75, 75])
    verdicts = judge_matched([*trained, POSTERIOR])
    assert [v.claim.split("than ")[1].split(" on ")[0] for v in verdicts] == [
        "SGD of 5 passes",
        "SGD of 20 passes",
    ]
    assert [v.holds for v in verdicts] == [None, True]
    table = matched_table([*trained, POSTERIOR])
    place = table.header.index("passes")
    assert [line[place] for line in table.rows] == [5, 20, None]


def matched(method, repeat, standing, diagnostics=(), passes=None):
    return row(method, repeat, 0.9, 2 * float(np.mean(standing))) | {
        "source": "matched",
        "settings": {"hidden": 32, "repeat": repeat}
        | ({} if passes is None else {"num_epochs": passes}),
        "standing": standing,
        "diagnostics": {"training_seconds": 1.0, **dict(diagnostics)},
    }


# Of 20 images HMC keeps 15, SGD two and four, SWAG those of HMC but one.
KEPT = [1] * 15 + [0] * 5
POSTERIOR = matched("hmc", 0, KEPT, MIXED)
OTHERS = [
    matched("sgd", 0, [1] * 2 + [0] * 18),
    matched("sgd", 1, [1] * 4 + [0] * 16),
    matched("swag", 0, [0, *KEPT[1:]]),
]


def judge(*rows):
    return {v.claim.split("than ")[1].split(" on ")[0]: v for v in judge_matched(rows)}


def test_mixed_hmc_is_held_against_each_other_method_on_the_same_images():
    found = judge(*OTHERS, POSTERIOR)
    assert found["SGD"].holds is True
    words = found["SGD"].measured
    assert words.startswith(
        "75.0 % of 1 against 15.0 % of 2 (means over repetitions), 20 images; chains: mixed "
        "(maximum R-hat 1.02, smallest ESS 180): +60.0 ["
    )
    # 13 images on which HMC keeps more, none on which SGD does: 2 / 2^13, twice for two tests.
    assert words.endswith(f"p = {2 * 2 / 2**13:.2g} adjusted for 2 tests")
    # One image of difference tells nothing.
    assert found["SWAG"].holds is None
    assert "p = 1 adjusted for 2 tests" in found["SWAG"].measured
    losing = judge(*OTHERS, matched("hmc", 0, [0] * 20, MIXED))
    assert losing["SWAG"].holds is False
    equal = judge(OTHERS[2], matched("hmc", 0, OTHERS[2]["standing"], MIXED))
    assert equal["SWAG"].holds is None


@pytest.mark.parametrize(
    ("diagnostics", "words"),
    [
        (UNMIXED, "unmixed: not judged (maximum R-hat 2.31, smallest ESS 3)"),
        (MIXED | {"num_chains": 1}, "not judged (one chain)"),
    ],
)
def test_nothing_is_said_of_chains_that_have_not_mixed(diagnostics, words):
    late = matched("hmc", 1, KEPT, diagnostics)
    for verdict in judge(*OTHERS, POSTERIOR, late).values():
        assert (verdict.holds, verdict.measured) == (None, words)
    assert f"(chains: {words})" in matched_sentence([late])
    assert matched_table([late]).rows[0][-2] == words


def test_the_grids_verdicts_do_not_see_them():
    options = {"epsilon": 0.1, "suite": "fast", "least_accuracy": 0.8, "seed": 0}
    before = build_study(ROWS, **options)
    after = build_study([*ROWS, *OTHERS, POSTERIOR], **options)
    assert after.verdicts[: len(before.verdicts)] == before.verdicts
    assert len(after.verdicts) == len(before.verdicts) + 2
    assert after.claims == before.claims
    assert [plot.name for plot in after.plots] == ["clouds", "sizes", "clouds_matched"]
    assert "HMC of long trajectories on mnist 75.0 % (chains: mixed (" in after.summary
    table = next(t for t in after.tables if t.title == "Methods on equal terms")
    assert [line[1] for line in table.rows] == ["SGD", "SWAG", "HMC of long trajectories"]
    assert table.rows[0][9:11] == (pytest.approx(15.0), "10.0 to 20.0")
