"""Data sets that TensorFlow Datasets prepared, read without TensorFlow.

A prepared set is a folder ``<root>/<name>/<version>`` of ``array_record`` files. Only
``download_and_prepare`` needs TensorFlow, which the ``tfds`` extra installs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from bnn_adv.data.dataset import DatasetError

FILE_FORMAT = "array_record"


def default_root() -> Path:
    """Return where TensorFlow Datasets keeps its sets: ``$TFDS_DATA_DIR`` or its default."""
    root = os.environ.get("TFDS_DATA_DIR")
    return Path(root).expanduser() if root else Path.home() / "tensorflow_datasets"


def prepared_folders(root: Path, name: str) -> dict[Path, str]:
    """Find the prepared versions of a data set, the newest first.

    Returns:
      The file format of each folder ``<root>/<name>/<version>`` that states one.
    """
    folders = sorted(
        (path.parent for path in Path(root, name).glob("*.*.*/dataset_info.json")),
        key=lambda folder: [int(part) for part in folder.name.split(".") if part.isdecimal()],
        reverse=True,
    )
    return {folder: _file_format(folder) for folder in folders}


def _file_format(folder: Path) -> str:
    try:
        info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
        return str(info.get("fileFormat", "unknown"))
    except (OSError, ValueError, AttributeError):
        return "unknown"


def files(folder: Path) -> list[Path]:
    """Return the files of a prepared set that determine what is read from it."""
    return [*folder.glob("*.json"), *folder.glob(f"*.{FILE_FORMAT}*")]


def read_split(folder: Path, split: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Decode one split of labelled images, in the order in which it is stored.

    Args:
      folder: A folder that ``prepared_folders`` found, in the format ``array_record``.
      split: ``"train"`` or ``"test"``.
      shape: Expected shape of the images, (N, H, W, C).

    Returns:
      Images uint8 [N, H, W, C] and labels uint8 [N].

    Raises:
      DatasetError: A file is missing or damaged, or there is another number of examples.
    """
    # Importing it takes seconds that users of other sources need not pay.
    import tensorflow_datasets

    images = np.empty(shape, np.uint8)
    labels = np.empty(shape[0], np.uint8)
    try:
        # Unlike tfds.data_source, this reads just this folder and never starts a download.
        source = tensorflow_datasets.builder_from_directory(folder).as_data_source(split=split)
        found = len(source)
        for index in range(min(found, shape[0])):
            example = source[index]
            images[index], labels[index] = example["image"], example["label"]
    # What a damaged file raises is up to TFDS, array_record, protobuf or the image decoder.
    except Exception as error:
        raise DatasetError(
            f"{folder} is incomplete or damaged: expected to decode {shape[0]} images of shape "
            f"{shape[1:]} from its split {split!r}, found {type(error).__name__}: {error}"
        ) from error
    if found != shape[0]:
        raise DatasetError(
            f"{folder} has the wrong size: expected {shape[0]} examples in its split {split!r}, "
            f"found {found}."
        )
    return images, labels


def published_order(split: str, count: int) -> np.ndarray:
    """Return where in a prepared split each example of the published file is stored.

    TFDS stores examples sorted by the MD5 of the split's name followed by the example's key, and
    the key of an MNIST-like set is the index in the published file. Undoing this makes "the first
    1,000 test images" the same images from every source.

    Source: ``tensorflow_datasets.core.hashing`` and ``core.shuffle``, whose order is fixed for a
    version of a data set.

    Args:
      split: Name of the split, the salt of the hash.
      count: Number of examples in the split.

    Returns:
      Index p, int64 [count], such that ``stored[p]`` is in the published order.
    """

    def stored_key(index: int) -> bytes:
        return hashlib.md5(f"{split}{index}".encode(), usedforsecurity=False).digest()

    return np.argsort(np.array(sorted(range(count), key=stored_key), dtype=np.int64))


def download_and_prepare(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Download a data set and prepare it for reading without TensorFlow.

    Args:
      name: Name in the catalogue of TFDS, for instance ``"mnist"``.
      data_dir: Root of prepared sets; ``None`` is the default of TFDS.

    Returns:
      The folder ``<data_dir>/<name>/<version>``. After a failure it does not exist.

    Raises:
      DatasetError: TensorFlow is not installed, or the set is there in another format. Errors
        of the download are those of TFDS.
    """
    root = default_root() if data_dir is None else Path(data_dir)
    existing = prepared_folders(root, name)
    for folder, file_format in existing.items():
        if file_format == FILE_FORMAT:
            return folder
    if existing:
        raise DatasetError(
            f"{next(iter(existing))} is already prepared in another format: expected "
            f"{FILE_FORMAT}, found {', '.join(existing.values())}. Choose another data_dir."
        )
    if importlib.util.find_spec("tensorflow") is None:
        raise DatasetError(
            f"Preparing {name} needs TensorFlow, which is not installed. Run "
            "`pip install '.[tfds]'` in the repository, or use the IDX files, which need nothing."
        )
    import tensorflow_datasets

    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}.") as scratch:
        builder = tensorflow_datasets.builder(name, data_dir=scratch, file_format=FILE_FORMAT)
        builder.download_and_prepare()
        prepared = Path(builder.data_dir)
        target = root / name / prepared.name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(prepared, target)
    return target
