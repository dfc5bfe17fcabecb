"""Read what finished runs of this study found, alone or joined before, as far as they say so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bnn_adv.compute.canonical import digest
from bnn_adv.data import DATASETS
from experiments.zoo.config import TRAININGS
from experiments.zoo.methods import METHODS
from experiments.zoo.record import PosteriorRecord
from experiments.zoo.report import make_records

_JUDGED_BY = (
    *("seed", "num_train", "num_train_hmc", "num_test", "suite", "certify"),
    *("num_probe", "num_curve", "num_shift"),
)
"""Settings that have to agree, so that rows of one table are of the same images and attacks."""

_TRAINED_BY = ("width", "hidden", "minibatch_size")
"""Settings of a training that a rival has to share, beside those of its likelihood."""

_WITHOUT_PRIOR = ("sgd", "ensemble")
_WITH_OWN_RATE = ("swag",)

SUITE, DATA = "suite ", "data "
"""What hashes of the code of attacks, and of inputs, are named by."""


class State(NamedTuple):
    """What ran one state of the code of attacks.

    suites: Hashes of that code, by suite.
    commits: Those at which it ran, by their first characters, and whether there were changes.
    posteriors: Names of what it attacked.
    """

    suites: dict[str, str]
    commits: tuple[str, ...]
    posteriors: tuple[str, ...]


class Part(NamedTuple):
    """What one run took, or several of which no more is known.

    posteriors: Names of what it has trained and judged.
    runs: How many.
    seconds: Of all of them.
    environment: Of the one that took most.
    states: Of the code of attacks; one of one run.
    """

    posteriors: tuple[str, ...]
    runs: int
    seconds: float
    environment: dict[str, Any]
    states: tuple[State, ...]

    def keep(self, names: set[str]) -> Part:
        """Return the part without posteriors that others replace."""
        states = [
            state._replace(posteriors=tuple(name for name in state.posteriors if name in names))
            for state in self.states
        ]
        return self._replace(
            posteriors=tuple(name for name in self.posteriors if name in names),
            states=tuple(state for state in states if state.posteriors),
        )

    def to_json(self) -> dict[str, Any]:
        """Return every field as JSON values."""
        states = [
            {**state._asdict(), "commits": [*state.commits], "posteriors": [*state.posteriors]}
            for state in self.states
        ]
        return {**self._asdict(), "posteriors": [*self.posteriors], "states": states}


class Finished(NamedTuple):
    """What a folder holds: a run, or several that were joined before.

    folder: Where it is.
    is_joined: Whether it is several.
    found: By name of the posterior, see ``measure_all``, with ``settings`` of its training.
    records: By name, with the command that trained it.
    judged: Settings by which all were judged.
    data: Hashes of the inputs.
    parts: What it took; one of a run.
    """

    folder: str
    is_joined: bool
    found: dict[str, dict[str, Any]]
    records: dict[str, PosteriorRecord]
    judged: dict[str, Any]
    data: dict[str, str]
    parts: list[Part]


def find_runs(folders: Sequence[str]) -> list[str]:
    """Return run directories: those that are named, and all that folders of them hold, by name."""
    return [run for folder in folders for run in _find_in(folder)]


def _find_in(folder: str) -> list[str]:
    path = Path(folder).expanduser()
    names = ("config.json", "results.json")
    if any((path / name).exists() for name in names):
        return [folder]
    # Links to runs count where they lie in the folder itself; deeper ones might lead in circles.
    files = {file for name in names for file in (*path.glob(f"*/{name}"), *path.rglob(name))}
    inside = sorted({file.parent for file in files})
    # Runs that were joined are taken where they are named, not where they lie among their own; what
    # holds no runs is refused where it is read.
    runs = [str(own) for own in inside if not _is_joined(own)]
    if inside and not runs:
        raise ValueError(
            f"--join: {folder} holds nothing but runs that were joined before: name one of them, "
            f"{', '.join(map(str, inside))}."
        )
    return runs or [folder]


def _is_joined(folder: Path) -> bool:
    for name in ("config.json", "results.json"):
        try:
            found = json.loads((folder / name).read_text("utf-8"))
            if found.get("join") or found["data"].get("joined"):
                return True
        except (OSError, ValueError, KeyError, AttributeError):
            continue
    return False


def hash_runs(folders: Sequence[str]) -> dict[str, str]:
    """Return the hashes of what a table of these folders follows from, by folder.

    Raises:
      ValueError: A folder holds no finished run of this study.
    """
    return {f"joined {run}": digest(read_json(run, "results.json")) for run in find_runs(folders)}


def read_finished(folder: str) -> Finished:
    """Return what a run directory, or a folder with the results of one alone, holds.

    Raises:
      ValueError: It is none, or does not say what a table has to know; the message names it.
    """
    results = read_json(folder, "results.json")
    has_settings = (Path(folder).expanduser() / "config.json").exists()
    config = read_json(folder, "config.json") if has_settings else results.get("config")
    try:
        return _read_results(folder, results, config)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"--join: {folder} does not say what a table has to know: {what}. Make it again with "
            "the command in its records, or leave it out."
        ) from error


def _read_results(folder: str, results: Mapping[str, Any], config: Any) -> Finished:
    data = results["data"]
    found = [dict(one) for one in data["posteriors"]]
    names = list(map(name_of_record, found))
    stored = [PosteriorRecord.from_json(record) for record in data["records"]]
    if [record.name for record in stored] != names or not names:
        raise ValueError("its records are not those of its posteriors")
    # What is derived from what was found is derived anew.
    records = {
        record.name: make_records(
            [one], command=record.command, seed=record.seed, hardware=record.hardware
        )[0]
        for record, one in zip(stored, found, strict=True)
    }
    if "joined" in data:
        about = data["joined"]
        parts = [_read_part(part) for part in about["parts"]]
        judged, hashes = dict(about["judged"]), dict(about["data"])
    else:
        noted, environments = results["sources"], results.get("environments")
        suites = {key: value for key, value in noted.items() if key.startswith(SUITE)}
        hashes = {key: value for key, value in noted.items() if key.startswith(DATA)}
        environment = results["environment"]
        commits = sorted({shorten(own["commit"]) for own in environments or [environment]})
        state = State(suites, tuple(commits), tuple(names))
        parts = [Part(tuple(names), 1, float(results["seconds"]), environment, (state,))]
        judged = {key: config[key] for key in _JUDGED_BY}
        found = [{**one, "settings": dict(_list_settings(config, one))} for one in found]
    for part in parts:
        if part.runs < 1:
            raise ValueError("a part of it is of no run")
        if not all(state.suites for state in part.states):
            raise ValueError("it has no hashes of the code of its suites")
    told = sorted(name for part in parts for state in part.states for name in state.posteriors)
    if told != sorted(names) or sorted(n for part in parts for n in part.posteriors) != told:
        raise ValueError("not each of its posteriors is in one part and one state of the code")
    radii: dict[str, list[float]] = {}
    for one in found:
        own = [radius["epsilon"] for radius in one["radii"]]
        if radii.setdefault(one["dataset"], own) != own:
            raise ValueError(f"its posteriors of {one['dataset']} have other radii each")
    missing = {f"{DATA}{one['dataset']}" for one in found} - hashes.keys()
    if missing:
        raise ValueError(f"it has no hash of its {', '.join(sorted(missing))}")
    by_name = dict(zip(names, found, strict=True))
    return Finished(folder, "joined" in data, by_name, records, judged, hashes, parts)


def name_of_record(one: Mapping[str, Any]) -> str:
    """Return the name of a posterior's record.

    Raises:
      ValueError: Its data set, method or training is unknown.
    """
    for key, known in (("dataset", DATASETS), ("method", METHODS), ("training", TRAININGS)):
        if one[key] not in known:
            raise ValueError(f"its {key} {one[key]!r} is none of {', '.join(known)}")
    return "_".join((one["dataset"], one["method"], one["training"]))


def _list_settings(config: Mapping[str, Any], one: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what a posterior was trained by, as far as its rival has to be trained by it too."""
    if METHODS[one["method"]].is_small:
        return
    names = list(_TRAINED_BY)
    if one["training"] == "standard":
        names += ["num_epochs"]
    else:
        names += ["num_robust_epochs", "warmup", "weight"]
    if one["training"] == "adversarial":
        names += ["num_pgd"]
    if one["method"] not in _WITHOUT_PRIOR:
        names += ["prior_kind"]
    if one["method"] not in _WITH_OWN_RATE:
        names += ["learning_rate"]
    for name in names:
        yield name, config[name]


def shorten(commit: str) -> str:
    """Return the first characters of a commit, and whether there were changes."""
    head, *changes = str(commit).split(" ", 1)
    return " ".join([head[:7], *changes])


def _read_part(part: Mapping[str, Any]) -> Part:
    states = [
        State(dict(own["suites"]), tuple(own["commits"]), tuple(own["posteriors"]))
        for own in part["states"]
    ]
    return Part(
        tuple(part["posteriors"]),
        int(part["runs"]),
        float(part["seconds"]),
        dict(part["environment"]),
        tuple(states),
    )


def read_json(folder: str, name: str, *, flag: str = "join") -> dict[str, Any]:
    """Return what a file of a finished run of this study holds.

    Raises:
      ValueError: There is none, or it is of another study.
    """
    path = Path(folder).expanduser() / name
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--{flag}: {folder} is no finished run directory of experiments.zoo: {error}."
        ) from None
    if not isinstance(found, dict) or found.get("experiment") != "zoo":
        raise ValueError(f"--{flag}: {path} is of no run of experiments.zoo.")
    return found
