"""A small entry of the zoo, and its parts."""

import dataclasses

import jax
import numpy as np

import bnn_adv
from bnn_adv import networks, zoo
from bnn_adv.certification import Certificate
from bnn_adv.compute import files
from bnn_adv.data import Dataset
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from bnn_adv.zoo.folder import HASHES, hash_files

NETWORK = networks.MLP((3,), 3, "tanh")

BRACKET = zoo.RecordedBracket(
    norm="linf",
    epsilon=0.02,
    num_test=360,
    accuracy=0.975,
    certified_accuracy=0.9,
    adversarial_accuracy=None,
    suite="",
    command="python -m experiments.certify",
    seed=3,
    hardware="2 CPU cores",
)

RECORD = zoo.EntryRecord(
    network="mlp",
    settings={"hidden": 3, "activation": "tanh"},
    dataset="points",
    num_classes=3,
    indices=(1, 0, 4, 5),
    method="a few draws",
    training={"likelihood": "categorical", "command": "none", "seed": 0, "hardware": "any"},
    brackets=(BRACKET,),
)


def make_posterior(seed=0, scale=1.0, activation="tanh"):
    network = networks.MLP((3,), 3, activation)
    keys = jax.random.split(jax.random.key(seed), 2)
    samples = jax.vmap(lambda key: networks.init_params(key, network, (4,)))(keys)
    # Draws that differ little, so that most inputs are certified.
    samples = jax.tree.map(lambda w: scale * (w[:1] + 0.05 * (w - w[:1])), samples)
    return zoo.round_draws(Posterior(networks.get_apply_fn(network), samples))


@dataclasses.dataclass
class Parts:
    """What ``write`` is given."""

    posterior: Posterior
    certificate: Certificate
    dataset: Dataset
    record: zoo.EntryRecord = RECORD

    def write(self, folder, **changes):
        own = dataclasses.replace(self, **changes)
        return zoo.write(folder, own.posterior, own.certificate, own.record, dataset=own.dataset)


def make_parts():
    posterior = make_posterior()
    x = np.random.default_rng(0).uniform(0.1, 0.9, (8, 4)).astype(np.float32)
    y = np.asarray(predict_log_probs(posterior, x)).argmax(1).astype(np.int32)
    y[4] = (y[4] + 1) % 3
    dataset = Dataset("points", x, y, x, y, 3)
    rows = list(RECORD.indices)
    certificate = bnn_adv.certify(posterior, x[rows], y[rows], threat=bnn_adv.LInf(0.01))
    assert certificate.certified.tolist() == [True, True, False, True]
    return Parts(posterior, certificate, dataset)


def rehash(folder):
    """Make hashes say what a forger wants them to say."""
    files.write_json(folder / HASHES, hash_files(folder))


def change_arrays(path, **changes):
    arrays = files.read_arrays(path)
    for name, change in changes.items():
        arrays[name] = change(np.array(arrays[name]))
    files.write_arrays(path, arrays)


def change_record(folder, **changes):
    path = folder / "entry.json"
    files.write_json(path, {**files.read_json(path), **changes})
