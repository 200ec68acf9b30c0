"""A loss in which each lesion counts the same, whatever its size.

Lesions are the connected components of the label where it is known. They are found on the CPU,
once per batch: a GPU is waited for there, which the losses of ``losses.py`` avoid.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ssl2_bids.steps.lesions import NEIGHBOURS
from ssl2_bids.training.losses import cross_entropy_map


def lesion_weights(y: Tensor, m: Tensor) -> Tensor:
    """Weights of voxels: each lesion of a batch has the same sum, and so has the background.

    Inverse weighting of Shirokikh et al. 2020 (MICCAI, arXiv 2007.10033), pooled over the batch:
    of K lesions, a voxel of a lesion of n known voxels has the weight 1 / (n (K + 1)), one of N
    known voxels of background 1 / (N (K + 1)).

    Parameters
    ----------
    y, m : (N, 1, D, H, W), 0 or 1; the label, and where it is known.

    Returns
    -------
    Tensor like ``y``, float32 with sum 1; 0 where nothing is known, and all 0 if that is so
    everywhere.
    """
    lesion, known = (one.detach().cpu().numpy() > 0.5 for one in (y, m))
    number = np.zeros(lesion.shape, np.int64)  # 0 is the background
    count = 0
    for sample, mask in enumerate((lesion & known)[:, 0]):
        pieces, found = ndimage.label(mask, NEIGHBOURS)
        number[sample, 0] = np.where(mask, pieces + count, 0)
        count += found
    sizes = np.bincount(number[known], minlength=count + 1)
    weights = 1 / (np.maximum(sizes, 1) * max(np.count_nonzero(sizes), 1))
    return torch.from_numpy((weights[number] * known).astype(np.float32)).to(y.device)


def lesion_cross_entropy(logits: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Mean over lesions and background of their mean cross-entropy, in nats.

    Parameters
    ----------
    weights : of :func:`lesion_weights`.
    """
    return (weights * cross_entropy_map(logits, y)).sum()
