"""Tiny image sets with known bytes, written in every form that the package reads."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from bnn_adv.data import idx, images

SHAPES = {"x_train": (40, 5, 4), "y_train": (40,), "x_test": (17, 5, 4), "y_test": (17,)}
STEMS = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


class Tiny(NamedTuple):
    image_set: images.ImageSet
    arrays: dict[str, np.ndarray]

    def write_idx(self, folder: Path, *, gzipped: bool = True) -> Path:
        folder.mkdir(parents=True)
        for key, array in self.arrays.items():
            content = idx.encode(array)
            name = STEMS[key] + (".gz" if gzipped else "")
            (folder / name).write_bytes(gzip.compress(content) if gzipped else content)
        return folder

    def write_tfds(self, root: Path, *, file_format: str = "array_record") -> Path:
        """Write what TFDS writes, in its order, without TensorFlow."""
        from array_record.python.array_record_module import ArrayRecordWriter
        from tensorflow_datasets.core.hashing import Hasher

        name = self.image_set.name
        folder = root / name / "3.0.1"
        folder.mkdir(parents=True)
        height, width = self.arrays["x_train"].shape[1:]
        splits = []
        for split in ("train", "test"):
            x, y = self.arrays[f"x_{split}"], self.arrays[f"y_{split}"]
            order = sorted(range(len(x)), key=Hasher(split).hash_key)
            file = folder / f"{name}-{split}.array_record-00000-of-00001"
            writer = ArrayRecordWriter(str(file), "group_size:1")
            for index in order:
                writer.write(_example(x[index], int(y[index])))
            writer.close()
            splits.append(
                {
                    "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                    "name": split,
                    "numBytes": str(x.size),
                    "shardLengths": [str(len(x))],
                }
            )
        info = {"name": name, "version": "3.0.1", "fileFormat": file_format, "splits": splits}
        (folder / "dataset_info.json").write_text(json.dumps(info))
        (folder / "features.json").write_text(json.dumps(_features(height, width)))
        return folder


def _example(image: np.ndarray, label: int) -> bytes:
    from PIL import Image
    from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

    png = io.BytesIO()
    Image.fromarray(image).save(png, format="PNG")
    image_feature = tf_feature_pb2.Feature(
        bytes_list=tf_feature_pb2.BytesList(value=[png.getvalue()])
    )
    label_feature = tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=[label]))
    features = tf_feature_pb2.Features(feature={"image": image_feature, "label": label_feature})
    return tf_example_pb2.Example(features=features).SerializeToString()


def _features(height: int, width: int) -> dict[str, object]:
    prefix = "tensorflow_datasets.core.features"
    dimensions = [str(height), str(width), "1"]
    return {
        "pythonClassName": f"{prefix}.features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                "image": {
                    "pythonClassName": f"{prefix}.image_feature.Image",
                    "image": {"dtype": "uint8", "shape": {"dimensions": dimensions}},
                },
                "label": {
                    "pythonClassName": f"{prefix}.class_label_feature.ClassLabel",
                    "classLabel": {"numClasses": "10"},
                },
            }
        },
    }


def make_tiny(name: str = "tiny") -> Tiny:
    rng = np.random.default_rng(3)
    arrays = {
        key: rng.integers(0, 256 if key.startswith("x") else 10, shape, dtype=np.uint8)
        for key, shape in SHAPES.items()
    }
    arrays["x_train"][0, 0, :2] = 0, 255
    files = {
        key: images.IdxFile(STEMS[key], array.shape, idx.checksum(array))
        for key, array in arrays.items()
    }
    return Tiny(images.ImageSet(name=name, num_classes=10, **files), arrays)


@pytest.fixture
def tiny() -> Tiny:
    return make_tiny()


@pytest.fixture
def tiny_named() -> Callable[[str], Tiny]:
    return make_tiny


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's caches and data sets out of every test in this folder."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    return folder
