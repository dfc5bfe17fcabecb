"""Labelled images that are published as four IDX files, from those files or from TFDS."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bnn_adv.compute import files
from bnn_adv.data import cache, idx, tfds
from bnn_adv.data.dataset import Dataset, DatasetError


class IdxFile(NamedTuple):
    """Describe one published file.

    stem: File name without ``.gz``.
    shape: Shape that its header states.
    md5: Hexadecimal MD5 of the uncompressed file.
    """

    stem: str
    shape: tuple[int, ...]
    md5: str


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Describe a data set of grey images, published as four IDX files.

    Args:
      name: Name in the registry and in the catalogue of TFDS.
      num_classes: Number of classes.
      x_train, y_train: Training images [N, H, W] and labels [N].
      x_test, y_test: Test images [M, H, W] and labels [M].
    """

    name: str
    num_classes: int
    x_train: IdxFile
    y_train: IdxFile
    x_test: IdxFile
    y_test: IdxFile

    @property
    def files(self) -> dict[str, IdxFile]:
        """Return the four files by the name of their array."""
        return {key: getattr(self, key) for key in ("x_train", "y_train", "x_test", "y_test")}


class _Source(NamedTuple):
    folder: Path
    files: list[Path]
    decode: Callable[[], cache.Arrays]


def load(
    image_set: ImageSet, data_dir: str | os.PathLike[str] | None = None, *, seed: int = 0
) -> Dataset:
    """Load a data set, from a cache of its decoded arrays where there is one.

    Examples are in the order of the published files whatever the source, and every source, also
    the cache, is verified against the published checksums whenever it is read.

    Args:
      image_set: Description of the published files.
      data_dir: A root of TFDS (with ``<name>/<version>/``), a folder with ``<name>/`` that holds
        the IDX files, or a folder that holds them itself; the first that is there is taken, in
        this order. ``None`` looks in the default root of TFDS, then in ``files.user_folder()``.
      seed: Ignored: the split is the published one.

    Returns:
      Images float32 [N, H, W, 1], the published bytes divided by 255, with their labels.

    Raises:
      DatasetError: There is no source, or it is incomplete, damaged, or another data set. The
        message says what was expected and found, and how to get the data set.
    """
    del seed
    roots = (
        [tfds.default_root(), files.user_folder()]
        if data_dir is None
        else [Path(data_dir).expanduser()]
    )
    try:
        source = _find(image_set, roots)
        arrays = cache.cached(
            source.decode,
            name=image_set.name,
            digest=cache.files_digest(source.files),
            folders=[source.folder, files.user_folder()],
            expected={key: file.shape for key, file in image_set.files.items()},
            check=partial(_find_other, image_set),
        )
    except (DatasetError, OSError) as error:
        raise DatasetError(f"{error}\n{how_to_get(image_set)}") from error
    return Dataset(
        image_set.name,
        _unit(arrays["x_train"]),
        arrays["y_train"].astype(np.int32),
        _unit(arrays["x_test"]),
        arrays["y_test"].astype(np.int32),
        image_set.num_classes,
    )


def how_to_get(image_set: ImageSet) -> str:
    """Say the two ways to get a data set."""
    stems = ", ".join(file.stem for file in image_set.files.values())
    return (
        f"Two ways to get {image_set.name}:\n"
        "(1) As TensorFlow Datasets prepares it. In the repository, run `pip install '.[tfds]'`, "
        'then `python -c "from bnn_adv.data import tfds; '
        f"tfds.download_and_prepare('{image_set.name}', data_dir='DIR')\"`, and load it with "
        "data_dir='DIR'.\n"
        f"(2) As published. Put the four files {stems} (gzipped, with .gz at the end, or not) "
        "into one folder and load it with data_dir set to that folder."
    )


def _find(image_set: ImageSet, roots: list[Path]) -> _Source:
    unreadable: list[str] = []
    for root in roots:
        for folder, file_format in tfds.prepared_folders(root, image_set.name).items():
            if file_format == tfds.FILE_FORMAT:
                return _Source(folder, tfds.files(folder), partial(_decode_tfds, image_set, folder))
            unreadable.append(
                f" {folder} is in the format {file_format}; only {tfds.FILE_FORMAT} can be read."
            )
        for folder in (root / image_set.name, root):
            paths = {key: idx.find(folder, file.stem) for key, file in image_set.files.items()}
            found = {key: path for key, path in paths.items() if path is not None}
            if len(found) == len(paths):
                return _Source(folder, list(found.values()), partial(_decode_idx, image_set, found))
            if found:
                missing = [image_set.files[key].stem for key in paths if key not in found]
                raise DatasetError(
                    f"{folder} is incomplete: expected four IDX files, "
                    f"found {len(found)}; missing: {', '.join(missing)}."
                )
    raise DatasetError(
        f"{image_set.name} was not found in {' or '.join(map(str, roots))}: "
        f"expected {image_set.name}/<version>/ as TFDS prepares it, "
        f"or the four IDX files in it or in {image_set.name}/." + "".join(unreadable)
    )


def _decode_idx(image_set: ImageSet, paths: dict[str, Path]) -> cache.Arrays:
    pairs = ((key, paths[key], file) for key, file in image_set.files.items())
    return {key: idx.read(path, shape=file.shape, md5=file.md5) for key, path, file in pairs}


def _decode_tfds(image_set: ImageSet, folder: Path) -> cache.Arrays:
    arrays: cache.Arrays = {}
    for split in ("train", "test"):
        x_file, y_file = image_set.files[f"x_{split}"], image_set.files[f"y_{split}"]
        images, labels = tfds.read_split(folder, split, (*x_file.shape, 1))
        order = tfds.published_order(split, len(labels))
        x, y = images[order][..., 0], labels[order]
        for array, file in ((x, x_file), (y, y_file)):
            if (found := idx.checksum(array)) != file.md5:
                raise DatasetError(
                    f"{folder} holds other data than published: its split {split!r}, in the order "
                    f"of {file.stem}, should have the MD5 {file.md5}, but has {found}."
                )
        arrays |= {f"x_{split}": x, f"y_{split}": y}
    return arrays


def _find_other(image_set: ImageSet, arrays: cache.Arrays) -> str:
    """Return which arrays are not those that were published; empty where all are."""
    other = [key for key, file in image_set.files.items() if idx.checksum(arrays[key]) != file.md5]
    return f"holds other data than published: {', '.join(other)}." if other else ""


def _unit(images: np.ndarray) -> np.ndarray:
    return images[..., None].astype(np.float32) / np.float32(255)
