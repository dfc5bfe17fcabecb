"""Chains that a finished run has sampled: one sampling serves several studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from bnn_adv.compute import files
from bnn_adv.compute.settings import setting
from bnn_adv.data import Dataset, load_dataset
from bnn_adv.inference import InferenceResult
from bnn_adv.networks import get_apply_fn, init_params
from bnn_adv.posteriors.posterior import hash_draws, load_posterior
from experiments.launch.methods import Row, make_rows

_MODEL = "hmc"
_DENSITY = ("prior", "likelihood", "temperature", "robust")
"""Settings that say what is sampled; all others say how."""


def sampled_runs() -> Any:
    """Return the setting of the runs whose chains are taken in place of sampling."""
    return setting(
        (),
        "Finished runs of experiments.compare or experiments.train, at most one a data set, whose "
        "draws of hmc are taken where HMC of long trajectories would be sampled; they must be of "
        "the same network, training images and posterior. Other settings of those chains then say "
        "nothing.",
        is_distinct=True,
    )


class SampledRun(NamedTuple):
    """A run that has sampled HMC.

    path: Its folder.
    row: The method and its network, with all settings.
    known: Every setting of the run.
    """

    path: Path
    row: Row
    known: dict[str, Any]

    @property
    def dataset(self) -> str:
        """Name of the data."""
        return str(self.known["dataset"])

    def check(self, network: nn.Module, dataset: Dataset, settings: Any, data_dir: str) -> None:
        """Raise unless its draws are what a study would have sampled itself, but for their keys.

        Args:
          network: The study's.
          dataset: The study's; test images do not matter.
          settings: What the study would sample with; its posterior counts, not its chains.
          data_dir: Where the data are.

        Raises:
          ValueError: The message names what differs.
        """
        own = self.row.build(dataset.num_classes)
        if own != network:
            raise ValueError(f"{self._flag}: its network is {own}, the study's is {network}.")
        for name in _DENSITY:
            there, here = (getattr(config, name) for config in (self.row.config, settings))
            if there != here:
                raise ValueError(
                    f"{self._flag}: it was sampled with {name} {there}, the study asks for {here}."
                )
        theirs = load_dataset(
            self.dataset,
            data_dir or None,
            num_train=self.known["num_train"] or None,
            num_test=1,
            seed=self.known["seed"],
        )
        pairs = ((theirs.x_train, dataset.x_train), (theirs.y_train, dataset.y_train))
        if not all(np.array_equal(there, here) for there, here in pairs):
            raise ValueError(
                f"{self._flag}: it was trained on other images ({len(theirs.y_train):,} with seed "
                f"{self.known['seed']}; the study has {len(dataset.y_train):,})."
            )

    def read(self, network: nn.Module, input_shape: tuple[int, ...]) -> InferenceResult:
        """Return its draws and their diagnostics, with the command that sampled them.

        Args:
          network: See ``check``.
          input_shape: Shape of one input.

        Raises:
          ValueError: The draws do not fit the network, or were replaced since.
        """
        folder = self.path / "posterior"
        expected = jax.eval_shape(lambda: init_params(jax.random.key(0), network, input_shape))
        posterior = load_posterior(folder / f"{_MODEL}.npz", get_apply_fn(network), expected)
        record = files.read_json(folder / f"{_MODEL}.json")
        trained, found = record.pop("draws_hash", {}).get(_MODEL), hash_draws(posterior)
        if trained != found:
            raise ValueError(
                f"{self._flag}: its draws were replaced: its training wrote draws of the hash "
                f"{trained}, they have {found}."
            )
        record.pop("sources", None)
        command = (self.path / "command.txt").read_text("utf-8").strip()
        diagnostics = {**record, "sampled_by": command, "sampled_hash": found}
        return InferenceResult(posterior, diagnostics, None)

    @property
    def _flag(self) -> str:
        return f"--mixed_runs={self.path}"


def find_runs(paths: Sequence[str], datasets: Sequence[str]) -> Mapping[str, SampledRun]:
    """Return runs by their data.

    Args:
      paths: Their folders.
      datasets: Names of the data on which the study would sample.

    Raises:
      ValueError: A folder holds no run with draws of HMC, two are of the same data, or the study
        samples on other data.
    """
    found: dict[str, SampledRun] = {}
    for text in paths:
        path = Path(text).expanduser()
        run = _open(path)
        if run.dataset not in datasets:
            raise ValueError(
                f"--mixed_runs={path} is of {run.dataset}, on which this study samples no such "
                f"chains; it does on: {', '.join(datasets) or 'none'}."
            )
        if run.dataset in found:
            raise ValueError(
                f"--mixed_runs: {found[run.dataset].path} and {path} are both of {run.dataset}: "
                "leave one of them out."
            )
        found[run.dataset] = run
    return found


def _open(path: Path) -> SampledRun:
    folder = path / "posterior"
    names = [path / "config.json", path / "command.txt"]
    names += [folder / f"{_MODEL}.json", folder / f"{_MODEL}.npz"]
    if missing := [str(name) for name in names if not name.exists()]:
        raise ValueError(
            f"--mixed_runs={path} is no run directory with finished draws of {_MODEL} in one file: "
            f"{', '.join(missing)} is missing."
        )
    known = files.read_json(path / "config.json")
    try:
        (row,) = make_rows(known, (_MODEL,), known["network"])
        return SampledRun(path, row, {**known, "dataset": known["dataset"]})
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"--mixed_runs={path} is no run of experiments.compare or experiments.train: {error} "
            "is not among its settings."
        ) from None
