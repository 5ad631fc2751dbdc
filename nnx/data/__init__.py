"""Data: what a training loop is fed with.

* data sets, each an `ImageData`: `digits` (shipped), `mnist`, `fashion_mnist`, `cifar10`,
  `cifar100`, `image_folder`
* `ArrayDataset` and `Subset` over arrays and memory maps, and a `DataLoader` for their batches
* augmentation, batch by batch: `RandomHorizontalFlip`, `RandomCrop`, `RandomRotation`,
  `RandomScale`, `GaussianNoise`, joined by `Compose`
* preprocessing: `to_float`, `Normalize`, `Standardize`, `Center`, `PCA`, `channel_stats`,
  `mean_image`, `one_hot`; `FILTERS` and `filter_image`, the fixed filters of image processing
* splits, seeded and stratified: `split`, `split_indices`, `k_fold`

Everything takes and returns NumPy arrays; images are ``(N, C, H, W)``.
"""

from nnx.data._download import cache_dir
from nnx.data.augment import (
    Compose,
    GaussianNoise,
    RandomCrop,
    RandomHorizontalFlip,
    RandomRotation,
    RandomScale,
)
from nnx.data.builtin import digits
from nnx.data.cifar import cifar10, cifar100
from nnx.data.dataset import ArrayDataset, ImageData, Subset, TensorDataset
from nnx.data.filters import FILTERS, filter_image
from nnx.data.folder import image_folder, read_images
from nnx.data.idx import fashion_mnist, mnist, read_idx
from nnx.data.loader import DataLoader
from nnx.data.preprocess import (
    PCA,
    Center,
    Normalize,
    Standardize,
    channel_stats,
    mean_image,
    one_hot,
    to_float,
)
from nnx.data.split import k_fold, split, split_indices

__all__ = [
    "FILTERS",
    "PCA",
    "ArrayDataset",
    "Center",
    "Compose",
    "DataLoader",
    "GaussianNoise",
    "ImageData",
    "Normalize",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomRotation",
    "RandomScale",
    "Standardize",
    "Subset",
    "TensorDataset",
    "cache_dir",
    "channel_stats",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "filter_image",
    "image_folder",
    "k_fold",
    "mean_image",
    "mnist",
    "one_hot",
    "read_idx",
    "read_images",
    "split",
    "split_indices",
    "to_float",
]
