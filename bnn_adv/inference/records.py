"""What is kept of chains draw by draw: for trace and rank plots, and for ArviZ."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bnn_adv.compute import files

MOST_POINTS = 100
"""Held-out points whose predictions are kept."""

_ENDING = "_chains"
_LOG_LIKELIHOOD = "log_likelihood"
_NAMES = {"logdensity": "lp", "is_divergent": "diverging"}
_OVER_THINNING: dict[str, Callable[..., Any]] = {
    "acceptance_rate": np.mean,
    "is_divergent": np.any,
    "num_gradients": np.sum,
}
"""How transitions that end in one draw are summarised; of all else the last one's is kept."""


class ChainRecord(NamedTuple):
    """What is kept of every draw of chains.

    sample_stats: By name as in ArviZ: ``lp`` (the log density in nats, up to a constant) and, where
      the kernel knows them, ``energy``, ``acceptance_rate`` (mean over the transitions that end in
      the draw), ``diverging`` (any of them), ``num_gradients`` (their sum), ``step_size`` and
      others, each [chains, draws].
    log_likelihood: Log probability of the labels of at most MOST_POINTS held-out points, in nats,
      [chains, draws, points]; None without held-out data.
    """

    sample_stats: dict[str, np.ndarray]
    log_likelihood: np.ndarray | None

    def to_arviz(self, weights: Mapping[str, Any] | None = None) -> Any:
        """Return what ArviZ reads, see ``InferenceResult.to_arviz``.

        Args:
          weights: More arrays for the group ``posterior`` by name, each [chains, draws, ...].

        Returns:
          A DataTree of Xarray.

        Raises:
          ImportError: ``arviz_base`` is not installed.
        """
        try:
            import arviz_base
        except ImportError as error:
            raise ImportError(
                "to_arviz needs arviz_base: pip install 'bnn_adv[arviz]', or arviz-base."
            ) from error
        groups: dict[str, dict[str, Any]] = {"posterior": dict(weights or {})}
        dims: dict[str, list[str]] = {}
        if self.log_likelihood is not None:
            # In float64, as the diagnostics: ArviZ computes in the precision that it is given.
            values = self.log_likelihood.astype(np.float64)
            # No group log_likelihood: ArviZ's loo takes what is there for the data of the fit, and
            # would leave out points that were never in it.
            groups["posterior"]["held_out_log_prob"] = values
            dims = {"held_out_log_prob": ["held_out_point"]}
        groups["sample_stats"] = {
            name: values.astype(np.float64) if values.dtype.kind == "f" else values
            for name, values in self.sample_stats.items()
        }
        return arviz_base.from_dict({k: v for k, v in groups.items() if v}, dims=dims)


def record_chains(
    info: Any,
    predictions: np.ndarray | None,
    constants: Mapping[str, Sequence[float]] | None = None,
) -> ChainRecord:
    """Return what is kept of every draw.

    Args:
      info: Record of the transitions as for ``summarise_chains``, each [draws, thinning, chains].
      predictions: Log probability of held-out labels, [chains, draws, points], or None.
      constants: What does not change while a chain samples, as its step size: one number a chain.
    """
    stats = {}
    for name, values in info._asdict().items():
        values = np.asarray(values)
        if values.ndim == 3 and values.dtype.kind in "biuf":
            reduce = _OVER_THINNING.get(name)
            draws = values[:, -1] if reduce is None else reduce(values, axis=1)
            stats[_NAMES.get(name, name)] = np.ascontiguousarray(draws.T)
    for name, each in (constants or {}).items():
        wide = np.broadcast_to(np.asarray(each, np.float32)[:, None], stats["lp"].shape)
        stats[name] = wide.copy()
    kept = None if predictions is None else predictions[..., :MOST_POINTS].astype(np.float32)
    return ChainRecord(stats, kept)


def save_chains(path: str | os.PathLike[str], chains: ChainRecord) -> None:
    """Write a record to one ``.npz`` file, atomically."""
    kept = {} if chains.log_likelihood is None else {_LOG_LIKELIHOOD: chains.log_likelihood}
    files.write_arrays(path, {**chains.sample_stats, **kept})


def name_file(model: str) -> str:
    """Return the path, within a run directory, of the record of a model's chains."""
    return f"posterior/{model}{_ENDING}.npz"


def load_chains(path: str | os.PathLike[str], model: str | None = None) -> ChainRecord:
    """Read the record of chains that a run has written.

    Args:
      path: The run directory, of ``experiments.train`` or ``experiments.compare``; or the file.
      model: Name of the model, where the run has several with chains.

    Raises:
      FileNotFoundError: There is none.
      ValueError: There are several, and no name; or the file is damaged.
    """
    found = Path(path).expanduser()
    if not found.exists():
        raise FileNotFoundError(
            f"{path} is not there: give the run directory of experiments.train or "
            f"experiments.compare, or the file *{_ENDING}.npz in its folder posterior."
        )
    if found.is_dir():
        known = sorted((found / "posterior").glob(f"*{_ENDING}.npz"))
        names = [file.name.removesuffix(f"{_ENDING}.npz") for file in known]
        if model is None and len(names) > 1:
            raise ValueError(f"{path} holds chains of {', '.join(names)}: give one as model.")
        if not names or (model is not None and model not in names):
            raise FileNotFoundError(
                f"{path} holds no chains{f' of {model}' if model else ''}"
                f"{', only of ' + ', '.join(names) if names else ''}: methods without chains, "
                "and runs of older versions, have written none."
            )
        found = found / name_file(model or names[0])
    arrays = files.read_arrays(found)
    kept = arrays.pop(_LOG_LIKELIHOOD, None)
    return ChainRecord(arrays, kept)
