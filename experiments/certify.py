"""Certify a trained posterior: what no attack can break, beside what attacks have broken.

  python -m experiments.certify --posterior=runs/demo --model=vi --epsilon=0.02
  python -m experiments.certify --posterior=runs/hmc --method=alpha-crown --suite=strong
  python -m experiments.certify --posterior=draws.npz --dataset=mnist --network=mlp --epsilon=0.01

An image is certified where a proof shows that no input in the ball around it is classified wrongly,
whatever the attack. The share of them is a lower bound of the accuracy under attack; the attacks of
--suite give an upper bound. What is neither certified nor broken is not known.

The posterior is a run directory of ``experiments.train`` or ``experiments.compare``, which knows
its network and data, or a file that ``posteriors.posterior.save_posterior`` wrote. The run
directory gets certificate.npz, results.json, a figure and report.html. Running the same command
again resumes a run that was stopped; on a finished one it prints the table.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh

import bnn_adv
from bnn_adv.attacks.threat import THREATS
from bnn_adv.certification import Certificate
from bnn_adv.certification.bracket import describe_certificate
from bnn_adv.certification.referee_primitives import UNREAD
from bnn_adv.compute import files, parallel
from bnn_adv.compute.progress import progress
from bnn_adv.evaluation.records import Evaluation
from bnn_adv.evaluation.verification_arrays import VerificationError
from bnn_adv.report.certification import format_certificate, render_certificate
from bnn_adv.report.certified_curve import certified_figure
from bnn_adv.report.style import to_png
from bnn_adv.report.write import write_figures
from experiments.launch import runtime
from experiments.launch.attack_config import Opened, open_target
from experiments.launch.certify_config import (
    NO_SUITE,
    CertifyTarget,
    define_certify_flags,
    make_certify_target,
)
from experiments.launch.config import define_flags, make, read_flags
from experiments.launch.entry import start
from experiments.launch.run_directory import RunDirectory, describe_command
from experiments.launch.runtime import RuntimeConfig

FLAGS = flags.FLAGS


def define_all_flags(argv: Sequence[str], flag_values: flags.FlagValues = FLAGS) -> None:
    """Define the flags that a command line may use."""
    flags.DEFINE_string(
        "workdir",
        "runs/certify",
        "Run directory; made, resumed or reprinted.",
        flag_values=flag_values,
    )
    define_certify_flags(argv, flag_values)
    define_flags(RuntimeConfig, flag_values=flag_values)


def main(flag_values: flags.FlagValues = FLAGS) -> dict[str, Any]:
    """Certify what the flags describe."""
    given = read_flags(flag_values)
    target = make_certify_target(given)
    mesh = runtime.start(make(RuntimeConfig, given))
    return certify(target, str(flag_values["workdir"].value), mesh=mesh)


def certify(target: CertifyTarget, workdir: str, *, mesh: Mesh | None = None) -> dict[str, Any]:
    """Fill a run directory and return its results.

    Args:
      target: Every setting.
      workdir: The run directory.
      mesh: Devices to split the work over.

    Raises:
      ValueError: A setting is out of range, the posterior does not fit or cannot be certified, or
        the folder holds another run.
      OSError: A file cannot be read or written.
    """
    opened = open_target(target.attack, mesh)
    record = {**target.to_json(), **opened.hashes}
    run = RunDirectory(workdir, "certify", record, describe_command("experiments.certify"))
    results = run.read_results()
    if results is not None:
        print(f"{run.path} holds a finished run of this command.\n")
    else:
        certificate = _certify(target, opened, run, mesh)
        evaluation = None
        if target.config.suite != NO_SUITE:
            evaluation = _attack(target, opened, run, mesh)
        referee = _verify(opened, run) if target.config.referee else None
        results = _finish(target, (certificate, evaluation, referee), run, mesh)
    if parallel.is_writer():
        print(format_certificate(results))
        print(f"Report: {run.path / 'report.html'}")
    return results


def _certify(
    target: CertifyTarget, opened: Opened, run: RunDirectory, mesh: Mesh | None
) -> Certificate:
    config: Any = target.config
    dataset = opened.dataset
    settings = bnn_adv.CertificationSettings(
        method=config.method,
        rule=config.rule,
        arithmetic=config.arithmetic,
        num_rounds=config.num_rounds,
        num_halvings=config.num_halvings,
        most_rows=config.most_rows,
        batch_size=config.batch_size,
        mesh=mesh,
        checkpoints=run.checkpoints("certify", config.checkpoint_every),
    )
    with progress("certify", "inputs") as report:
        certificate = bnn_adv.certify(
            opened.posterior,
            dataset.x_test,
            dataset.y_test,
            threat=_threat(target),
            settings=settings,
            progress=report if parallel.is_writer() else None,
        )
    run.write(lambda path, value: value.save(path), "certificate.npz", certificate)
    run.log(stage="certified", seconds=round(certificate.seconds, 1))
    return certificate


def _attack(
    target: CertifyTarget, opened: Opened, run: RunDirectory, mesh: Mesh | None
) -> Evaluation:
    config, (posterior, diagnostics, dataset, _) = target.config, opened
    evaluation = bnn_adv.evaluate(
        posterior,
        dataset.x_test,
        dataset.y_test,
        threat=_threat(target),
        rng_key=jax.random.key(config.seed),
        suite=target.attack.suite,
        settings=bnn_adv.EvaluationSettings(
            config.batch_size,
            None,
            mesh,
            run.checkpoints("attacks", config.checkpoint_every),
            num_probe=0,
            num_curve=config.num_curve,
            min_ess=diagnostics.get("min_ess"),
        ),
    )
    run.write(lambda path, value: value.save_adversarial(path), "adversarial.npz", evaluation)
    return evaluation


def _verify(opened: Opened, run: RunDirectory) -> dict[str, Any]:
    """Return what the referee says of the certificate that was written.

    Raises:
      VerificationError: It refuses a claim.
    """
    started = time.monotonic()
    try:
        found = bnn_adv.verify_certificate(
            run.path / "certificate.npz",
            opened.posterior,
            x=opened.dataset.x_test,
            y=opened.dataset.y_test,
        )
    except VerificationError as error:
        # A network that the referee cannot read is no false claim.
        if not str(error).startswith(UNREAD):
            raise
        return {"num_confirmed": None, "words": str(error)}
    # A largest radius is found where margin and rounding are nearly equal, and the referee, which
    # counts rounding in its own way, may then need more: said, and no false claim.
    dataclasses.replace(found, radius_proved=np.ones_like(found.radius_proved)).check()
    return {
        "num_claimed": int(found.claimed.sum()),
        "num_confirmed": int(found.confirmed.sum()),
        "num_radii_unconfirmed": int((~found.radius_proved).sum()),
        "words": str(found),
        "seconds": round(time.monotonic() - started, 1),
    }


def _threat(target: CertifyTarget) -> Any:
    return THREATS[target.config.norm](float(target.config.epsilon or 0.0))


def _finish(
    target: CertifyTarget,
    found_by: tuple[Certificate, Evaluation | None, dict[str, Any] | None],
    run: RunDirectory,
    mesh: Mesh | None,
) -> dict[str, Any]:
    config, (certificate, evaluation, referee) = target.config, found_by
    found = (
        describe_certificate(certificate)
        if evaluation is None
        else bnn_adv.bracket(evaluation, certificate).record
    )
    results = {
        **found,
        "referee": referee,
        "dataset": config.dataset,
        "model": config.model or None,
        "seed": config.seed,
        "mesh": None if mesh is None else dict(mesh.shape),
        "command": run.command,
        "environment": run.environment,
        "environments": run.environments,
        "config": {
            key: value
            for key, value in target.to_json().items()
            if key not in ("data_dir", "posterior")
        },
    }
    figure = certified_figure(results)
    if figure is not None:
        run.write(write_figures, ".", {"certified": to_png(figure)})
    run.write(files.write_text, "report.html", render_certificate(results))
    run.finish(results)
    return results


if __name__ == "__main__":
    start(define_all_flags, main, __doc__)
