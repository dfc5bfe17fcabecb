"""An interrupted suite of attacks ends with the images of an uninterrupted one."""

import jax
import numpy as np
import pytest

from bnn_adv.attacks import fgsm, pgd, run_attack
from bnn_adv.checkpoint import Checkpoints
from bnn_adv.evaluation import Settings, run_protocol
from bnn_adv.objectives import OBJECTIVES
from bnn_adv.pacing import Pacer
from bnn_adv.protocols import Entry, Protocol
from bnn_adv.threat import LInf

KEY = jax.random.key(0)
ATTACK = pgd.build(num_steps=17, stop_on_success=True)
ENTRIES = (
    Entry("fgsm", fgsm.build(), "expected_loss"),
    Entry("margin", ATTACK, "mean_logit_margin"),
    Entry("loss", ATTACK, "expected_loss"),
)
SUITES = {
    "each": Protocol("each", "", ENTRIES),
    "worst": Protocol("worst", "", ENTRIES[1:], restarts=2, worst_case=True),
}


class Unplugged(Exception):
    """Stands for a process that is gone: nothing is saved on the way out."""


class Unreliable(Checkpoints):
    """Checkpoints of a process that dies after some ticks."""

    def __init__(self, folder, *, ticks, **options):
        super().__init__(folder, every_seconds=None, log=lambda message: None, **options)
        self.left = ticks

    def tick(self, step, tree, meta=None):
        super().tick(step, tree, meta)
        self.left -= 1
        if not self.left:
            raise Unplugged


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_resumes_within_and_between_attacks(name, posterior, batch, tmp_path, monkeypatch):
    def run(checkpoints=None):
        return run_protocol(
            KEY,
            SUITES[name],
            posterior,
            *map(np.asarray, batch),
            threat=LInf(0.03),
            settings=Settings(batch_size=4),
            checkpoints=checkpoints,
        )

    whole = run()
    random = np.random.default_rng(2)
    monkeypatch.setattr(Pacer, "next", lambda self, most: min(most, int(random.integers(5, 11))))
    resumed = []
    for ticks in range(1, 100):
        checkpoints = Unreliable(tmp_path, ticks=ticks, every_steps=1)
        with checkpoints.session("suite") as saved:
            resumed.append("start" if saved is None else saved.meta.get("part", "between"))
            try:
                result = run(checkpoints)
                break
            except Unplugged:
                continue
    # Some starts found an attack half way, others one that had just ended.
    assert "between" in resumed
    assert any("/" in part for part in resumed)
    assert result.accuracies == whole.accuracies
    assert result.softmax_robustness == whole.softmax_robustness
    for attack, images in whole.adversarial.items():
        np.testing.assert_array_equal(result.adversarial[attack], images)
    if whole.attack_of is not None:
        np.testing.assert_array_equal(result.attack_of, whole.attack_of)


def test_a_single_attack_resumes_and_refuses_another(posterior, batch, tmp_path):
    x, y = map(np.asarray, batch)

    def run(checkpoints=None, epsilon=0.1):
        return run_attack(
            KEY,
            pgd.build(num_steps=30),
            OBJECTIVES["expected_loss"],
            posterior,
            x,
            y,
            threat=LInf(epsilon),
            checkpoints=checkpoints,
        )

    with pytest.raises(Unplugged):
        run(Unreliable(tmp_path, ticks=3, every_steps=1))
    with pytest.raises(ValueError, match=r"something else.*epsilon=0.1.*epsilon=0.2"):
        run(Unreliable(tmp_path, ticks=99), epsilon=0.2)
    np.testing.assert_array_equal(run(Unreliable(tmp_path, ticks=99)), run())
