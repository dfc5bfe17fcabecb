"""Chains that a finished run has sampled: one sampling serves several studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from bnn_adv.compute import files
from bnn_adv.compute.identity import OtherWorkError
from bnn_adv.compute.settings import setting
from bnn_adv.data import Dataset, hash_data, load_dataset
from bnn_adv.inference import InferenceResult
from bnn_adv.inference.base import summarise_held_out
from bnn_adv.inference.densities import Data
from bnn_adv.inference.diagnostics import predict_held_out, summarise_draws
from bnn_adv.inference.records import load_chains
from bnn_adv.networks import get_apply_fn, init_params
from bnn_adv.posteriors.posterior import hash_draws, load_posterior
from experiments.launch.methods import Row, make_rows

_MODEL = "hmc"
_SAME = ("prior", "likelihood", "temperature", "robust", "precision", "init")
"""Settings on which it depends what draws are of, and what their diagnostics can see."""
_OF_RUN = ("sampled_by", "sampled_hash", "training_seconds")
_STATS = ("lp", "acceptance_rate")
_NEEDED = ("dataset", "network", "num_train", "num_test", "seed", "data_hash")


def sampled_runs() -> Any:
    """Return the setting of the runs whose chains are taken in place of sampling."""
    return setting(
        (),
        "Finished runs of experiments.compare or experiments.train, at most one a data set, whose "
        "draws of hmc are taken where HMC of long trajectories would be sampled. They must be of "
        "the same network, training images and posterior, and stay where they are until the study "
        "is finished. The other settings of those chains are then ignored.",
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

    @property
    def draws_hash(self) -> str:
        """What its training says that its draws are, see ``posterior.hash_draws``."""
        record = files.read_json(self.path / "posterior" / f"{_MODEL}.json")
        return str(record.get("draws_hash", {}).get(_MODEL))

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
        if self.row.config.trajectory_length is None:
            raise ValueError(
                f"{self._flag}: its trajectories have a number of steps and no length; the study "
                f"takes long ones: sample with --{_MODEL}.trajectory_length."
            )
        for name in _SAME:
            there, here = (getattr(config, name) for config in (self.row.config, settings))
            if there != here:
                raise ValueError(
                    f"{self._flag}: it was sampled with {name} {there}, the study asks for {here}."
                )
        theirs = load_dataset(
            self.dataset,
            data_dir or None,
            num_train=self.known["num_train"] or None,
            num_test=self.known["num_test"] or None,
            seed=self.known["seed"],
        )
        if hash_data(theirs) != self.known["data_hash"]:
            raise ValueError(
                f"{self._flag}: it was trained on other files than those of {self.dataset} in "
                f"{data_dir or 'the usual places'}."
            )
        pairs = ((theirs.x_train, dataset.x_train), (theirs.y_train, dataset.y_train))
        if not all(np.array_equal(there, here) for there, here in pairs):
            raise ValueError(
                f"{self._flag}: it was trained on other images ({len(theirs.y_train):,} with seed "
                f"{self.known['seed']}; the study has {len(dataset.y_train):,})."
            )
        self.read(network, dataset.input_shape)

    def read(self, network: nn.Module, input_shape: tuple[int, ...]) -> InferenceResult:
        """Return its draws and their diagnostics, with the command that sampled them.

        Args:
          network: See ``check``.
          input_shape: Shape of one input.

        Raises:
          OtherWorkError: The draws do not fit the network or the run, or were replaced since.
        """
        folder = self.path / "posterior"
        expected = jax.eval_shape(lambda: init_params(jax.random.key(0), network, input_shape))
        try:
            posterior = load_posterior(folder / f"{_MODEL}.npz", get_apply_fn(network), expected)
            record = files.read_json(folder / f"{_MODEL}.json")
        except ValueError as error:
            raise OtherWorkError(f"{self._flag}: {error}") from None
        said = (self.row.config.num_chains, self.row.config.num_draws)
        if said != (there := (record.get("num_chains"), posterior.num_samples)):
            raise OtherWorkError(
                f"{self._flag}: its settings say {said[0]} chains and {said[1]} draws, its draws "
                f"are {there[1]} of {there[0]} chains."
            )
        trained, found = record.pop("draws_hash", {}).get(_MODEL), hash_draws(posterior)
        if trained != found:
            raise OtherWorkError(
                f"{self._flag}: its draws were replaced: its training wrote draws of the hash "
                f"{trained}, they have {found}."
            )
        record.pop("sources", None)
        command = (self.path / "command.txt").read_text("utf-8").strip()
        diagnostics = {**record, "sampled_by": command, "sampled_hash": found}
        return InferenceResult(posterior, diagnostics, None)

    def check_shares(self, count: int, num_draws: int, *, flag: str) -> None:
        """Raise unless repetitions can have chains of their own, and as many draws as they ask for.

        Args:
          count: Repetitions.
          num_draws: Draws that the study takes for each.
          flag: The setting that says so.

        Raises:
          ValueError: The message says which setting to change.
          OtherWorkError: The run has no record of its chains, by draw.
        """
        chains = self.row.config.num_chains
        if chains % count or chains < 2 * count:
            raise ValueError(
                f"{self._flag}: its {chains} chains cannot be shared by {count} repetitions, two "
                "or more and as many for each: change --num_repeats."
            )
        if num_draws != (there := self.row.config.num_draws // count):
            raise ValueError(
                f"{self._flag}: each of {count} repetitions has {there} of its draws, the study "
                f"asks for {num_draws}: give {flag}={there}."
            )
        self._read_stats()

    def read_share(
        self,
        network: nn.Module,
        input_shape: tuple[int, ...],
        held_out: Data,
        *,
        number: int,
        count: int,
    ) -> InferenceResult:
        """Return every so many of its chains, with diagnostics of these draws alone.

        Args:
          network: See ``check``.
          input_shape: Shape of one input.
          held_out: Points on which R-hat and ESS of predictions are taken.
          number: Which share.
          count: Shares, see ``check_shares``.

        Raises:
          OtherWorkError: See ``read``.
        """
        whole = self.read(network, input_shape)
        posterior, num_chains = whole.posterior, self.row.config.num_chains
        chains = np.arange(num_chains)[number::count]
        draws = np.arange(posterior.num_samples).reshape(num_chains, -1)
        share = posterior.take(draws[chains].ravel())
        stats = self._read_stats()
        predictions = predict_held_out(share, held_out, len(chains))
        diagnostics = {
            **{name: whole.diagnostics[name] for name in _OF_RUN if name in whole.diagnostics},
            **summarise_draws(share, stats["lp"][chains], predictions),
            "acceptance_rate": float(stats["acceptance_rate"][chains].mean()),
            **summarise_held_out(share, held_out),
        }
        return InferenceResult(share, diagnostics, None)

    def _read_stats(self) -> dict[str, np.ndarray]:
        """Return what is recorded of every draw, each [chains, draws]."""
        try:
            stats = load_chains(self.path, _MODEL).sample_stats
        except (FileNotFoundError, ValueError) as error:
            raise OtherWorkError(f"{self._flag}: {error}") from None
        config = self.row.config
        shape = config.num_chains, config.num_draws // config.num_chains
        for name in _STATS:
            found = stats[name].shape if name in stats else ()
            if found != shape:
                raise OtherWorkError(
                    f"{self._flag}: the record of its chains has {name} of shape {found}, its "
                    f"draws ask for {shape}: it is of another sampling, or of an older version."
                )
        return stats

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
    folder, flag = path / "posterior", f"--mixed_runs={path}"
    if (folder / _MODEL).is_dir():
        raise ValueError(f"{flag} was run with --draws_on_disk: such draws cannot be taken.")
    names = [path / "config.json", path / "command.txt"]
    names += [folder / f"{_MODEL}.json", folder / f"{_MODEL}.npz"]
    if missing := [str(name) for name in names if not name.exists()]:
        raise ValueError(
            f"{flag} is no run directory with finished draws of {_MODEL}: "
            f"{', '.join(missing)} is missing."
        )
    try:
        known = files.read_json(path / "config.json")
        if lacking := [name for name in _NEEDED if name not in known]:
            raise ValueError(f"its settings lack {', '.join(lacking)}")
        (row,) = make_rows(known, (_MODEL,), known["network"])
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{flag} is no run of experiments.compare or experiments.train: {error}"
        ) from None
    return SampledRun(path, row, known)
