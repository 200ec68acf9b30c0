"""Quality of an image in numbers: ratios of signal, contrast and noise, sharpness, background.

Names and formulas are those of MRIQC (``mriqc/qc/anatomical.py`` of version 22; Esteban et al.
2017, doi 10.1371/journal.pone.0184661), but for :func:`noise_of_residuals`. A function returns
None where its quantity does not exist; MRIQC writes -1 there.
"""

from __future__ import annotations

import math

import numpy as np

DIETRICH = math.sqrt((4 - math.pi) / 2)  # standard deviation of Rayleigh noise over that of one
# channel (Dietrich 2007, eq. A.12)
MAD = 0.6744898  # median absolute deviation over standard deviation, of normal values
MIN_MAD = 1.0  # where white matter is 1000; below it MRIQC takes the standard deviation
STATISTICS = ('mean', 'median', 'mad', 'stdv', 'k', 'p05', 'p95')
NEIGHBOURS = 6


def summarise(values: np.ndarray) -> dict[str, float]:
    """Statistics of a tissue or of the background, by MRIQC's names; none without values.

    Parameters
    ----------
    values : (N,).

    Returns
    -------
    ``mad`` is scaled to a standard deviation, ``k`` is the excess kurtosis (0 of normal values;
    missing where all values are equal).
    """
    if values.size == 0:
        return {}
    data = values.astype(np.float64)
    low, median, high = np.percentile(data, (5, 50, 95))
    offset = data - data.mean()
    spread = float(data.std())
    found = {
        'mean': float(data.mean()),
        'median': float(median),
        'mad': float(np.median(np.abs(data - median))) / MAD,
        'stdv': spread,
        'p05': float(low),
        'p95': float(high),
    }
    if spread > 0:
        found['k'] = float((offset**4).mean()) / spread**4 - 3
    return found


def ratio(over: float, under: float) -> float | None:
    """A quotient; None where it is not finite."""
    return over / under if under and math.isfinite(over / under) else None


def snr(median: float, stdv: float, count: int) -> float | None:
    """Signal over the spread of its tissue: ``median / (stdv sqrt(n / (n - 1)))``."""
    return ratio(median, stdv * math.sqrt(count / (count - 1))) if count > 1 else None


def snr_dietrich(median: float, background: dict[str, float]) -> float | None:
    """Signal over the noise of air (Dietrich 2007, doi 10.1002/jmri.20969).

    Parameters
    ----------
    median : of a tissue, where that of white matter is 1000.
    background : of :func:`summarise`, in the same unit.
    """
    mad = background['mad']
    return ratio(DIETRICH * median, mad if mad > MIN_MAD else background['stdv'])


def cnr(white: dict[str, float], grey: dict[str, float], background: float) -> float | None:
    """Contrast of white and grey matter over the noise (Magnotta 2006).

    ``|wm - gm| / sqrt(bg^2 + wm_stdv^2 + gm_stdv^2)``, doi 10.1007/s10278-006-0264-x.

    Parameters
    ----------
    white, grey : of :func:`summarise`.
    background : standard deviation of air, in the same unit.
    """
    noise = math.sqrt(background**2 + white['stdv'] ** 2 + grey['stdv'] ** 2)
    return ratio(abs(white['median'] - grey['median']), noise)


def cjv(white: dict[str, float], grey: dict[str, float]) -> float | None:
    """Coefficient of joint variation, lower is better (Ganzetti 2016, 10.3389/fninf.2016.00010).

    ``(wm_mad + gm_mad) / |wm - gm|``: neither an offset nor a factor changes it.
    """
    return ratio(white['mad'] + grey['mad'], abs(white['median'] - grey['median']))


def efc(sample: np.ndarray, count: int) -> float | None:
    """Entropy focus criterion, lower is sharper (Atkinson 1997, doi 10.1109/42.650886).

    ``sum(p ln p) / (sqrt(N) ln(1 / sqrt(N)))`` with ``p = x / sqrt(sum(x^2))``.

    Parameters
    ----------
    sample : intensities, negative ones count as 0; all of an image, or a regular part of them.
    count : voxels of the whole image: the three sums of a part are extrapolated to it.
    """
    data = np.maximum(sample, 0).astype(np.float64).ravel()
    share = data.size / count if count else 0.0
    energy = math.sqrt(float((data**2).sum()) / share) if share else 0.0
    if energy == 0 or count < 2:
        return None
    positive = data[data > 0]
    entropy = float((positive * np.log(positive / energy)).sum()) / energy / share
    return entropy / (math.sqrt(count) * math.log(1 / math.sqrt(count)))


def fber(head: np.ndarray, outside: np.ndarray) -> float | None:
    """Median energy in the head over that outside (Shehzad 2015), higher is better."""
    if head.size == 0 or outside.size == 0:
        return None
    square = (float(np.median(values.astype(np.float64) ** 2)) for values in (head, outside))
    return ratio(*square)


def noise_of_residuals(image: np.ndarray, inside: np.ndarray) -> float | None:
    """Standard deviation of the noise, from differences between neighbours within one tissue.

    A voxel less the mean of its six neighbours, times sqrt(6 / 7), has the deviation of the noise
    (Gasser 1986, doi 10.1093/biomet/73.3.625; Coupe 2008, doi 10.1109/TMI.2007.906087). Works
    without any air. Interpolation and filters of the scanner hide a part of the noise.

    Parameters
    ----------
    image : (..., I, J, K).
    inside : bool, the same shape: voxels whose neighbours all lie in the tissue.

    Returns
    -------
    The robust deviation (of the median absolute residual); None where all residuals are 0.
    """
    middle = image[..., 1:-1, 1:-1, 1:-1].astype(np.float32)
    around = (
        image[..., 2:, 1:-1, 1:-1] + image[..., :-2, 1:-1, 1:-1]
        + image[..., 1:-1, 2:, 1:-1] + image[..., 1:-1, :-2, 1:-1]
        + image[..., 1:-1, 1:-1, 2:] + image[..., 1:-1, 1:-1, :-2]
    )  # fmt: skip
    residual = (middle - around / NEIGHBOURS)[inside[..., 1:-1, 1:-1, 1:-1]]
    if residual.size == 0:
        return None
    level = float(np.median(np.abs(residual))) * math.sqrt(NEIGHBOURS / (NEIGHBOURS + 1)) / MAD
    return level or None
