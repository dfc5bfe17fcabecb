"""Data sets as numpy arrays: ``load_dataset(name)`` reads or makes every one of them."""

from bnn_adv.data.dataset import Dataset, DatasetError, hash_data
from bnn_adv.data.ood import OOD_SETS, load_ood
from bnn_adv.data.registry import DATASETS, load_dataset

__all__ = [
    "DATASETS",
    "OOD_SETS",
    "Dataset",
    "DatasetError",
    "hash_data",
    "load_dataset",
    "load_ood",
]
