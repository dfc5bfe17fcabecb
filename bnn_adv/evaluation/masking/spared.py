"""Images on which late attacks of a suite were not run, because earlier ones came nowhere near."""

from __future__ import annotations

from bnn_adv.evaluation.masking.base import Check, Evidence, allowance


def check_set_aside(evidence: Evidence) -> Check:
    """Judge whether attacks break images on which the suite did not run them.

    A suite may set images aside (``Entry.reach``). On the probe images its attacks are run all the
    same: those that break show what the rule has missed.
    """
    spared, broke = evidence.spared
    threshold = allowance(evidence.probe.num_images, 1, 0.01)
    if not spared:
        return Check("set_aside", False, None, threshold, {}, "Not measured: none was set aside.")
    raised = broke > threshold
    sentence = (
        f"Of {spared} standing probe images on which not every attack had been run, those that "
        f"were left out break {broke} (up to {threshold:g} are put down to chance)"
    )
    if raised:
        sentence += ": run a suite that sets none aside, as full"
    found = {"set_aside": spared, "broken": broke}
    return Check("set_aside", raised, float(broke), threshold, found, sentence + ".")
