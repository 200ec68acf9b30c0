"""Sheets of axial slices, real beside simulated, as PNG or WebP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from ssl2_bids.files import whole_file
from ssl2_bids.voxel_grid import spacing_of

SIZE = (230, 276)  # pixels of a panel: 184 x 221 mm
PIXEL = 0.8  # mm
BAR = 18  # pixels above a panel for its title
Panel = tuple[str, np.ndarray]


def axial(
    image: np.ndarray, brain: np.ndarray, affine: np.ndarray, *, height: float
) -> np.ndarray:
    """An axial slice as grey values, front up and the person's left on the right.

    Parameters
    ----------
    image : axes towards right, front, top.
    height : share of the brain's extent from its bottom.
    """
    filled = np.flatnonzero(brain.any(axis=(0, 1)))
    index = int(round(filled[0] + height * (filled[-1] - filled[0])))
    spacing = spacing_of(affine)[:2]
    plane = image[..., index].astype(np.float32)
    inside = image[brain]
    low, high = 0.0, float(np.percentile(inside, 99.5))
    plane = ndimage.zoom(np.clip((plane - low) / (high - low), 0, 1), spacing / PIXEL, order=1)
    where = np.argwhere(brain.any(axis=2)) * spacing / PIXEL
    middle = (where.min(axis=0) + where.max(axis=0)) / 2
    at = [np.arange(n) - n / 2 + m for n, m in zip(SIZE, middle, strict=True)]
    cut = ndimage.map_coordinates(plane, np.meshgrid(*at, indexing='ij'), order=1, cval=0)
    return (255 * cut[::-1, ::-1].T).astype(np.uint8)


def sheet(rows: Sequence[Sequence[Panel]], path: Path) -> None:
    """Write rows of titled panels as one grey picture, PNG or WebP by the ending of its name."""
    width = SIZE[0] * max(len(row) for row in rows)
    height = (SIZE[1] + BAR) * len(rows)
    page = Image.new('L', (width, height), 0)
    draw = ImageDraw.Draw(page)
    for i, row in enumerate(rows):
        for j, (title, values) in enumerate(row):
            corner = j * SIZE[0], i * (SIZE[1] + BAR)
            draw.text((corner[0] + 6, corner[1] + 4), title, fill=255)
            page.paste(Image.fromarray(values), (corner[0], corner[1] + BAR))
    with whole_file(path) as temporary:
        if path.suffix == '.webp':
            page.save(temporary, format='WEBP', quality=80, method=6)
        else:
            page.save(temporary, format='PNG', optimize=True)
