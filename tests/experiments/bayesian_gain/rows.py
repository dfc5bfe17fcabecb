"""Rows whose numbers are known."""

from experiments.bayesian_gain.config import Config

EPSILONS = (0.05, 0.1)
NUM_IMAGES = 100
MIXED = {
    "num_chains": 4,
    "num_still_chains": 0,
    "num_equal_chains": 0,
    "acceptance_rate": 0.8,
    "num_undefined_rhats": 0,
    "rhat": "rank-normalised split",
    "max_rhat": 1.02,
    "median_rhat": 1.0,
    "log_density_rhat": 1.01,
    "min_ess": 150.0,
    "median_ess": 300.0,
    "log_density_ess": 200.0,
}
CONFIG = Config(
    datasets=("digits",),
    num_test=NUM_IMAGES,
    hidden=(32,),
    num_repeats=2,
    methods=("sgd", "map", "vi", "hmc", "hmc_cold"),
    epsilons=EPSILONS,
    close_epsilons=(0.1,),
    num_draws=20,
    hmc_draws=40,
    cold_draws=20,
    members=4,
    sizes=(1, 4, 20, 40),
    num_fresh=4,
    num_probe=5,
)


def known(training, draws, left, *, repeat=0, mixed=True, raised=(), looked=True):
    """Return a posterior that leaves so many of 100 images within each radius; 95 are right."""
    withstood = [sum(place < count for count in left) for place in range(NUM_IMAGES)]
    withstood = [count if place < 95 else -1 for place, count in enumerate(withstood)]
    names = ("zero_gradients", "whole_box")
    checks = [{"name": n, "raised": n in raised, "sentence": ""} for n in names]
    chains = MIXED if mixed else MIXED | {"max_rhat": 2.3}
    return {
        "dataset": "digits",
        "network": "fc",
        "hidden": 32,
        "repeat": repeat,
        "training": training,
        "diagnostics": chains if training.startswith("hmc") else {},
        "kind": "known",
        "draws": draws,
        "epsilons": list(EPSILONS[-len(left) :]),
        "withstood": withstood,
        "signs": [{"epsilon": 0.1, "checks": checks}] if looked else [],
    }


def fresh(training, draws, share, *, repeat=0):
    """Return a predictor of fresh draws that is right of this share of images, always."""
    row = known(training, draws, (0,), repeat=repeat, looked=False)
    del row["withstood"], row["signs"]
    right = [float(place < share * NUM_IMAGES) for place in range(NUM_IMAGES)]
    rates = {"right": right, "clean_right": [0.95] * NUM_IMAGES}
    return row | {"kind": "fresh", "num_predictions": 10, **rates}


def all_rows(**changes):
    """Return what the study measures, where HMC leaves more than all others.

    Args:
      changes: Options of ``known`` by training.
    """
    rows = []
    for repeat in range(2):
        for training, sizes, left in (
            ("sgd", (1, 4, 20), (40, 2)),
            ("map", (1, 4), (50, 20)),
            ("vi", (20,), (60, 20)),
            ("hmc", (20,), (70, 30)),
            ("hmc_cold", (20,), (70, 28)),
        ):
            own = {"repeat": repeat, **changes.get(training, {})}
            rows += [known(training, size, left, **own) for size in sizes]
        own = {"repeat": repeat, "looked": False, **changes.get("hmc", {})}
        rows += [known("hmc", size, (left,), **own) for size, left in ((1, 5), (4, 15), (40, 31))]
        rows.append(known("vi", 4, (18,), repeat=repeat, looked=False))
        rows += [fresh("vi", 4, 0.5, repeat=repeat), fresh("hmc", 4, 0.16, repeat=repeat)]
        rows.append(fresh("sgd", 4, 0.02, repeat=repeat))
    return rows
