"""What the zoo's study says, from findings that are known."""

import dataclasses

import numpy as np
import pytest

from bnn_adv import zoo
from bnn_adv.inference.robust import OFF
from experiments.zoo.config import SCALES, Config
from experiments.zoo.measure import list_subjects
from experiments.zoo.methods import METHODS, make_likelihood
from experiments.zoo.report import build_study, make_records

AREA = {"value": 0.8, "lower": 0.7, "upper": 0.9}


def shares(*numbers, count=200):
    """Booleans of images, the first so many of them true."""
    return [(np.arange(count) < number).tolist() for number in numbers]


def found(method="sgd", training="interval", standing=190, certified=188, **changes):
    clean, published, left, proved = shares(196, 192, standing, certified)
    radius = {
        **{"epsilon": 0.1, "clean": clean, "published": published, "standing": left},
        **{"certified": proved, "certified_real": proved, "fresh": None, "flags": []},
        "detection": {"num_inputs": 7, "entropy": {"auroc": AREA, "auroc_aware": AREA}},
        **{"attack_seconds": 2.0, "certify_seconds": 1.0},
    }
    record = {
        **{"dataset": "mnist", "method": method, "training": training, "network": "small"},
        **{"num_draws": 1, "num_parameters": 7, "num_train": 6000, "mixed": None},
        "diagnostics": {"training_seconds": 5.0},
        "shift": {"scores": {"entropy": {"clean": AREA, "both_attacked": AREA}}},
        **{"outside": "fashion_mnist", "radii": [radius], "means": None},
    }
    return {**record, **changes}


def study_of(*all_found):
    records = make_records(all_found, command="python", seed=3, hardware="a chip")
    return build_study(all_found, records), records


def test_every_number_is_that_of_the_images():
    one = found()
    one["radii"][0]["flags"] = ["a sign"]
    (study, (record,)) = study_of(one)
    assert record.name == "mnist_sgd_interval"
    assert record.accuracy.value == 0.98
    (radius,) = record.radii
    assert (radius.published.value, radius.attacked.value, radius.certified.value) == (
        *(0.96, 0.95, 0.94),
    )
    assert radius.fresh.value is None
    assert record.masking == ("a sign",)
    assert record.evaluation_seconds == 3.0
    assert [auroc.task for auroc in record.aurocs] == ["detection", "shift"]
    row = dict(zip(study.tables[0].header, study.tables[0].rows[0], strict=True))
    assert row["strong attack"].startswith("95.0 [")
    assert row["certified"].startswith("94.0 [")
    assert row["in real arithmetic"].startswith("94.0 [")
    assert "mnist, 0.1: SGD, interval, has most certified, 94.0 %" in study.summary


def test_goals_hold_where_some_posterior_reaches_them():
    study, _ = study_of(found(certified=100), found("vi", certified=187))
    verdicts = {verdict.claim: verdict for verdict in study.verdicts}
    certified = verdicts["mnist: some posterior has at least 93 % certified within 0.1"]
    assert certified.holds
    assert certified.measured == "VI, interval, 93.5 [89.2, 96.2] %"
    claim = "mnist: some posterior has at least 93 % certified in real arithmetic within 0.1"
    assert verdicts[claim].holds
    study, _ = study_of(found(certified=100))
    assert study.verdicts[0].holds is False


@pytest.mark.parametrize(
    ("standing", "mixed", "holds"),
    [(195, True, True), (150, True, False), (183, True, None), (195, False, None)],
)
def test_what_averaging_adds_is_told_pair_by_pair(standing, mixed, holds):
    base = found(standing=180, certified=170)
    study, _ = study_of(base, found("csgmcmc", standing=standing, certified=90, mixed=mixed))
    (verdict,) = [v for v in study.verdicts if "keeps more under attack than" in v.claim]
    assert verdict.holds is holds


def test_what_is_asked_often_needs_more_to_be_told():
    """Six images of difference: p is 2 / 2^6 of one question, and twice that of two."""
    base, one = found(standing=180, certified=170), found("vi", standing=186, certified=90)
    for others, holds in (([], True), ([found("swag", standing=181, certified=90)], None)):
        study, _ = study_of(base, one, *others)
        verdict = next(v for v in study.verdicts if "keeps more under attack than" in v.claim)
        assert verdict.holds is holds
        assert verdict.measured.endswith(
            f"p = {2 / 2**6 * (1 + len(others)):.2g} adjusted for "
            + ("2 tests" if others else "1 test")
        )


def test_trainings_are_asked_apart():
    standing = {"standard": (180, 186), "adversarial": (180, 187), "interval": (180, 188)}
    pairs = [
        found(method, training, standing=kept, certified=90)
        for training, both in standing.items()
        for method, kept in zip(("sgd", "vi"), both, strict=True)
    ]
    study, _ = study_of(*pairs)
    told = [v for v in study.verdicts if "keeps more under attack than" in v.claim]
    assert [v.claim.split(", ")[1] for v in told] == list(standing)
    assert all(v.measured.endswith("adjusted for 1 test") for v in told)


def test_other_trainings_are_no_rivals():
    same = {"num_robust_epochs": 30, "width": 16}
    base = found(standing=150, certified=90, settings={**same, "prior_kind": "fan_in"})
    for own, words in (
        (same, None),
        ({**same, "width": 64}, "not judged: trained with width 64 and 16"),
        ({**same, "prior_kind": "isotropic"}, "trained with prior_kind isotropic and fan_in"),
    ):
        study, _ = study_of(base, found("vi", standing=195, certified=90, settings=own))
        (verdict,) = [v for v in study.verdicts if "keeps more under attack than" in v.claim]
        assert verdict.holds is (True if words is None else None)
        assert words is None or words in verdict.measured


def test_what_ships_is_known_by_its_draws():
    entry = zoo.load("mnist_interval", verify=False)
    for draws_hash, name in ((entry.certificate.draws_hash, "mnist_interval"), ("other", "")):
        shift = {**found()["shift"], "draws_hash": draws_hash}
        _, (record,) = study_of(found(shift=shift))
        assert record.shipped == name


def test_both_detectors_and_their_inputs_are_told():
    one = found()
    own = {"auroc": AREA, "auroc_aware": {**AREA, "value": 0.75}}
    one["radii"][0]["detection"] |= {"mutual_information": own}
    study, (record,) = study_of(one)
    assert [(a.score, a.attacked.value) for a in record.aurocs if a.task == "detection"] == [
        ("entropy", 0.8),
        ("mutual_information", 0.75),
    ]
    assert "7 inputs" in study.tables[1].caption


def test_what_has_a_prior_is_compared_with_one_network_of_that_prior():
    methods = ("sgd", "map", "ensemble", "vi")
    kept = dict(zip(methods, (180, 184, 187, 192), strict=True))
    study, _ = study_of(*(found(m, standing=kept[m], certified=90) for m in methods))
    told = [v for v in study.verdicts if "keeps more under attack than" in v.claim]
    assert [(v.claim.split(": ")[1], v.measured.split(" ")[0]) for v in told] == [
        ("MAP keeps more under attack than SGD", "+2.0"),
        ("ensemble keeps more under attack than SGD", "+3.5"),
        ("VI keeps more under attack than MAP", "+4.0"),
    ]


def test_what_averaging_adds_without_robust_training_is_another_question():
    """Six images of difference, asked once in each of two families: p is 2 / 2^6."""
    pairs = [
        (
            found(standing=180, certified=90, training=t),
            found("vi", standing=186, certified=90, training=t),
        )
        for t in ("standard", "interval")
    ]
    study, _ = study_of(*(one for pair in pairs for one in pair))
    told = [v for v in study.verdicts if "keeps more under attack than" in v.claim]
    assert ["standard" in v.claim for v in told] == [True, False]
    for verdict in told:
        assert verdict.holds is True
        assert verdict.measured.endswith(f"p = {2 / 2**6:.2g} adjusted for 1 test")


def test_the_mean_of_the_weights_is_a_network_of_its_own():
    """Six images of difference, asked once of both: p is 2 / 2^6, whatever else is asked."""
    one = found("vi", standing=186, certified=90)
    one["means"] = [{**one["radii"][0], "standing": shares(180)[0]}]
    study, (_, record) = study_of(found(standing=100, certified=90), one)
    assert record.radii[0].mean_weights.value == 0.9
    before = {key: value for key, value in one.items() if key != "means"}
    assert study_of(before)[1][0].radii[0].mean_weights.value is None
    rows = [dict(zip(study.tables[0].header, row, strict=True)) for row in study.tables[0].rows]
    assert [row["mean of weights"][:6] for row in rows] == ["-", "90.0 ["]
    (verdict,) = [v for v in study.verdicts if v.claim.endswith("than the mean of its weights")]
    assert verdict.claim.startswith("mnist, interval, 0.1: VI keeps more under attack than")
    assert verdict.holds is True
    assert verdict.measured.startswith("+3.0 [")
    assert verdict.measured.endswith(f"p = {2 / 2**6:.2g} adjusted for 1 test")
    one["means"][0]["flags"] = ["a sign"]
    study, (record,) = study_of(one)
    assert "not judged: signs of masking" in study.verdicts[-1].measured
    assert any("mean weights raised signs of masking: a sign" in r for r in record.remarks)


def test_whose_chains_were_taken_is_said():
    one = found("hmc", training="standard", mixed=True)
    one["diagnostics"]["sampled_by"] = "python -m experiments.compare"
    study, (record,) = study_of(one)
    assert "are those of: python -m experiments.compare" in " ".join(record.remarks)
    assert study.tables[0].caption.endswith("in that time: HMC, standard, mnist.")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mixed": None}, "its chains are not shown to have mixed"),
        ({"flags": ["a sign"]}, "signs of masking"),
        ({"flags": None}, "no signs of masking were looked for"),
    ],
)
def test_chains_that_may_not_have_mixed_and_masking_are_not_judged(changes, reason):
    mixed = changes.get("mixed", True)
    one = found("csgmcmc", standing=195, certified=90, mixed=mixed)
    one["radii"][0]["flags"] = changes.get("flags", [])
    study, _ = study_of(found(), one)
    (verdict,) = [v for v in study.verdicts if "keeps more under attack than" in v.claim]
    assert verdict.holds is None
    assert f"not judged: {reason}" in verdict.measured
    assert ("not shown to have mixed)" in study.summary) == (mixed is None)


def test_nothing_is_compared_with_another_network_or_likelihood():
    study, _ = study_of(found(), found("hmc", mixed=True), found("vi", training="standard"))
    assert not [v for v in study.verdicts if "keeps more under attack than" in v.claim]


def test_what_training_warned_of_is_a_remark():
    one = found("laplace")
    one["diagnostics"]["warnings"] = ["Training ended below the mode."]
    _, (record,) = study_of(one)
    assert "Training ended below the mode." in record.remarks


def test_what_is_certified_cannot_exceed_what_attacks_leave():
    with pytest.raises(ValueError, match="contradicts itself"):
        study_of(found(standing=100, certified=101))


def test_a_remark_says_what_rounding_costs():
    one = found()
    (one["radii"][0]["certified_real"],) = shares(195)
    _, (record,) = study_of(one)
    assert any("97.5 % are certified in real arithmetic, 94.0 %" in r for r in record.remarks)


def test_map_has_the_prior_and_the_training_of_those_it_is_compared_with():
    config = Config(prior_kind="isotropic", learning_rate=0.02)
    one, vi, plain = (METHODS[n].configure(config, OFF, 3) for n in ("map", "vi", "sgd"))
    assert (one.map_prior, one.prior, one.num_members) == (True, vi.prior, 1)
    assert (plain.map_prior, plain.num_members) == (False, 1)
    assert (one.num_epochs, one.learning_rate) == (3, 0.02)


def test_chains_of_stochastic_gradients_start_where_the_others_end():
    config = Config(learning_rate=0.02, minibatch_size=50)
    plain, chains = (METHODS[n].configure(config, OFF, 3) for n in ("sgd", "csgmcmc"))
    assert chains.init == "ensemble"
    for name in ("num_epochs", "learning_rate", "minibatch_size"):
        assert getattr(chains.ensemble, name) == getattr(plain, name)


def test_likelihoods_of_trainings():
    config = Config()
    for name, method in METHODS.items():
        assert make_likelihood(config, "standard", 0.3, method) is OFF
        interval = make_likelihood(config, "interval", 0.3, method)
        assert (interval.worst, interval.epsilon, interval.weight) == ("interval", 0.3, 0.0)
        adversarial = make_likelihood(config, "adversarial", 0.3, method)
        assert (adversarial is None) == (name == "hmc")
        for robust in (OFF, interval, adversarial):
            if robust is not None:
                assert method.configure(config, robust, 3).robust == robust
        # Without a warm-up bounds are too wide to learn from; chains count the radius all along.
        chains = method.has_chains
        assert interval.warmup == (0.0 if chains else config.warmup)
        assert interval.init == ("network" if name == "hmc" else "ibp")
    starts = [
        METHODS["csgmcmc"].configure(config, robust, 3).ensemble.warmup
        for robust in (OFF, make_likelihood(config, "interval", 0.3, METHODS["csgmcmc"]))
    ]
    assert starts == [0.0, config.warmup]
    assert len(list(list_subjects(config))) == 2 * (len(METHODS) * 3 - 1)


def test_radii_follow_the_data_set():
    config = Config()
    assert [config.radii(name) for name in ("mnist", "fashion_mnist", "digits")] == [
        *((0.1, 0.3), (0.05, 0.1), (0.05, 0.1)),
    ]
    assert dataclasses.replace(config, epsilons=(0.2, 0.1)).radii("mnist") == (0.1, 0.2)
    assert config.outside("mnist") == "fashion_mnist"
    assert config.outside("digits") == "rotated"
    for scale in SCALES.values():
        Config(**scale)
