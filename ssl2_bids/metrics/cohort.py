"""Which results of a cohort stand out, and which stand for the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

OUTLIER = 3.5  # robust z, Iglewicz and Hoaglin 1993
MIN_RESULTS = 5  # results below which a spread has no meaning


def robust_z(values: Sequence[float]) -> np.ndarray:
    """Distance from the median in robust standard deviations; zeros where there is no spread.

    0.6745 (x - median) / MAD; where more than half of the values are equal, so that the MAD is
    0, (x - median) / (1.2533 mean absolute deviation) (Iglewicz and Hoaglin 1993).
    """
    data = np.asarray(values, np.float64)
    if data.size < MIN_RESULTS:
        return np.zeros(data.shape)
    offset = data - np.median(data)
    spread = float(np.median(np.abs(offset))) / 0.6745
    if spread == 0:
        spread = 1.253314 * float(np.abs(offset).mean())
    return offset / spread if spread > 0 else np.zeros(data.shape)


def outliers(volumes: Sequence[float | None]) -> dict[int, float]:
    """Positions of volumes that stand out, with the robust z of their logarithm.

    Zero and missing volumes are left out: zero has no logarithm, and no lesion is a result.
    """
    known = [(place, volume) for place, volume in enumerate(volumes) if volume and volume > 0]
    scores = robust_z([float(np.log(volume)) for _, volume in known])
    pairs = zip(known, scores, strict=True)
    return {place: float(score) for (place, _), score in pairs if abs(score) > OUTLIER}


def representatives(volumes: Mapping[str, float], count: int) -> list[str]:
    """Those in the middle of equal parts of a cohort in the order of their volumes.

    Parameters
    ----------
    volumes : by name.
    count : of the parts, at most as many as there are names.

    Returns
    -------
    Names, the smallest volume first; of equal volumes the name decides.
    """
    if not 0 < count <= len(volumes):
        raise ValueError(f'{count} of {len(volumes)} cannot be selected')
    ordered = sorted(volumes, key=lambda name: (volumes[name], name))
    return [ordered[(2 * part + 1) * len(ordered) // (2 * count)] for part in range(count)]
