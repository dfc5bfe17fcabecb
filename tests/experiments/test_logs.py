"""What libraries say in passing stays out of a user's terminal; warnings do not."""

import os
import subprocess
import sys

import pytest

# TPUs are probed as JAX starts; where there are none, JAX says so at the level of information.
PROGRAM = """
import logging
import sys
from absl import logging as absl_logging
from experiments.launch import entry

def work():
    logging.getLogger("jax._src.xla_bridge").info("Unable to initialize backend")
    absl_logging.info("Saving checkpoint")
    logging.getLogger("my_fork").warning("the step size is large")

entry.start(lambda argv: None, work, "Text.")
"""


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["", "--verbosity=0"])
def test_an_entry_point_shows_warnings_alone_unless_asked(flag):
    command = [sys.executable, "-c", PROGRAM, *filter(None, [flag])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
    assert "the step size is large" in done.stderr
    for text in ("Unable to initialize backend", "Saving checkpoint"):
        assert (text in done.stderr) == bool(flag)


SCRIPT = """
import logging
import warnings
import numpy as np
import jax
import bnn_adv
CONFIG
posterior = bnn_adv.Posterior(lambda w, x: x @ w, np.random.default_rng(0).normal(size=(2, 3, 2)))
entry = bnn_adv.Entry("fgsm", bnn_adv.attacks.fgsm.build(), "expected_loss")
found = bnn_adv.evaluate(
    posterior, np.full((2, 3), 0.5, np.float32), np.zeros(2, int), threat=bnn_adv.LInf(0.1),
    rng_key=jax.random.key(0), suite=bnn_adv.Suite((entry,)),
    settings=bnn_adv.EvaluationSettings(num_probe=0, num_curve=0),
)
logging.getLogger("my_fork").warning("my own warning")
"""


@pytest.mark.slow
@pytest.mark.parametrize("config", ["", "logging.basicConfig(level=logging.INFO)"])
def test_a_script_shows_nothing_of_them_unless_it_configures_logging(config):
    # Without a choice of platforms JAX probes all.
    env = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    command = [sys.executable, "-c", SCRIPT.replace("CONFIG", config)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert "my own warning" in done.stderr
    assert ("INFO:" in done.stderr) == bool(config)
    if not config:
        assert done.stderr.strip() == "my own warning"
