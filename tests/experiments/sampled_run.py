"""A finished run of HMC on few digits, whose chains studies take."""

from experiments.launch.compare_config import make_comparison

SETTINGS = {
    "dataset": "digits",
    "num_train": 60,
    "num_test": 5,
    "methods": ("hmc",),
    "suites": ("published",),
    "network": "mlp",
    "mlp.hidden": 4,
    "mlp.activation": "relu",
    "checkpoint_every": 0.0,
    "hmc.num_chains": 2,
    "hmc.num_samples": 4,
    "hmc.num_warmup": 2,
    "hmc.trajectory_length": 0.05,
    "hmc.adapt": "step_size",
    "hmc.init": "prior",
    "hmc.step_size": 0.02,
}


def sample(folder, **changed):
    """Fill a folder and return it."""
    from experiments.compare import compare

    compare(make_comparison(SETTINGS | changed), str(folder))
    return folder
