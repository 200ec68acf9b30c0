"""Tissues: relaxation times and densities at any field, and how heads and lesions differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssl2_bids.errors import UsageError
from ssl2_bids.simulation.smooth import draw_seed, smooth_noise
from ssl2_bids.tables import bundled_table

Value = float | np.ndarray

FIELD_RANGE = (0.5, 12.0)  # T
FLUIDS = ('csf', 'eye')  # water itself: what heads have in common leaves them alone


@dataclass(frozen=True)
class Tissue:
    """Relaxation and density: numbers, or one value per voxel.

    Attributes
    ----------
    t1, t2, t2star : s.
    density : proton density, CSF = 1.
    transfer : signal left in a turbo spin echo by magnetisation transfer (or, in vessels, by
        flow), 0 to 1.
    chemical_shift : parts per million from water, about -3.4 for fat; a number.
    """

    t1: Value
    t2: Value
    t2star: Value
    density: Value
    transfer: Value
    chemical_shift: float = 0.0

    def at(self, where: Any) -> Tissue:
        """The tissue at some voxels: an index or a mask of those values that are arrays."""
        return Tissue(*(v[where] if np.ndim(v) else v for v in vars(self).values()))


@dataclass(frozen=True)
class TissueJitter:
    """How heads differ from the tissue table.

    Attributes
    ----------
    t1, t2 : standard deviation of the log of T1, and of T2 and T2*.
    density : standard deviation of the log of the proton density.
    common : share of these variances that all tissues of a head have in common, 0 to 1.
    texture : standard deviation of the smooth variation of T1 and T2 inside a tissue.
    texture_scale : distance in mm between its knots.
    """

    t1: float
    t2: float
    density: float
    common: float
    texture: float
    texture_scale: float


@dataclass(frozen=True)
class IndividualDraw:
    """One head's tissues against the table.

    Attributes
    ----------
    t1, t2, density : factors by name of the tissue; that of T2 holds for T2* too.
    texture : standard deviation of the smooth variation of T1 and T2 inside tissues.
    scale : distance in mm between its knots.
    seed : of that variation.
    """

    t1: dict[str, float]
    t2: dict[str, float]
    density: dict[str, float]
    texture: float
    scale: float
    seed: int


def tissue_table() -> dict[str, Any]:
    """The content of ``resources/tissues.toml``."""
    return bundled_table('tissues.toml')


def read_tissues(field: float) -> dict[str, Tissue]:
    """All tissues at a field.

    At 1.5, 3 and 7 T the values of ``resources/tissues.toml``. Between them T1 follows power laws
    of the field through the tabulated values, as those of Rooney et al. 2007 (Magn Reson Med
    57:308), beyond them Rooney's exponents; R2 and R2* are linear in the field (R2*: Li et al.
    2009, Magn Reson Med 62:1652), and constant below 1.5 T.

    Parameters
    ----------
    field : T, 0.5 to 12.

    Raises
    ------
    UsageError : a field out of this range.
    """
    low, high = FIELD_RANGE
    if not low <= field <= high:
        raise UsageError(
            f'tissues at {field:g} T are unknown',
            advice=f'Choose a field from {low:g} to {high:g} T.',
        )
    table = tissue_table()
    fields = np.array(table['fields'])
    return {
        name: Tissue(
            t1=_power_law(fields, np.array(row['t1']), field, exponent=row['t1_exponent']),
            t2=_linear_rate(fields, np.array(row['t2']), field),
            t2star=_linear_rate(fields, np.array(row['t2star']), field),
            density=float(row['density']),
            transfer=float(row['transfer']),
            chemical_shift=float(row.get('chemical_shift', 0)),
        )
        for name, row in table['tissues'].items()
    }


def _power_law(fields: np.ndarray, times: np.ndarray, field: float, *, exponent: float) -> float:
    log = np.interp(np.log(field), np.log(fields), np.log(times))
    nearest = np.clip(field, fields[0], fields[-1])
    return float(np.exp(log) * (field / nearest) ** exponent)


def _linear_rate(fields: np.ndarray, times: np.ndarray, field: float) -> float:
    """Time from a rate that is linear in the field between and above the tabulated values."""
    rates = 1 / times
    rate = np.interp(field, fields, rates)
    if field > fields[-1]:
        slope = max((rates[-1] - rates[-2]) / (fields[-1] - fields[-2]), 0.0)
        rate += slope * (field - fields[-1])
    return float(1 / rate)


def lesion_tissue(white: Tissue, damage: Value, *, t2_factor: Value = 1.0) -> Tissue:
    """Lesion of white matter, from slight to a black hole.

    At any field the lesion lies as far on the way from white matter's R1 to that of fluid as it
    does at 3 T, where ``damage`` is the share of R1 that is lost. T2, T2*, density and the loss
    of myelin's magnetisation transfer grow with it (``[lesion]`` of ``tissues.toml``).

    Parameters
    ----------
    white : white matter of the same head; numbers or one value per voxel.
    damage : 0 (white matter) to 0.55 (black hole).
    t2_factor : scatter of T2 and T2* among lesions of equal damage.
    """
    row = tissue_table()['lesion']
    damage = np.asarray(damage)
    kind = damage.dtype if damage.dtype.kind == 'f' else np.dtype(float)

    def along(name: str) -> np.ndarray:
        return np.interp(damage, row['r1_loss'], row[name]).astype(kind)

    share = row['way_to_fluid'] * damage
    rate = 1 / white.t1 - share * (1 / white.t1 - 1 / row['fluid_t1'])
    return Tissue(
        t1=1 / rate,
        t2=white.t2 * along('t2_factor') * t2_factor,
        t2star=white.t2star * along('t2star_factor') * t2_factor,
        density=white.density + along('density_rise'),
        transfer=white.transfer + (1 - white.transfer) * along('transfer_regained'),
    )


def draw_individual(
    random: np.random.Generator, jitter: TissueJitter, names: Iterable[str]
) -> IndividualDraw:
    """Draw one head's factors: lognormal, in part common to all its tissues but fluids."""
    names = tuple(names)
    factors = []
    for spread in (jitter.t1, jitter.t2, jitter.density):
        shared, own = np.sqrt([jitter.common, 1 - jitter.common]) * spread
        common = random.normal(0, shared)
        factors.append(
            {
                name: float(np.exp(random.normal(0, own) + (name not in FLUIDS) * common))
                for name in names
            }
        )
    t1, t2, density = factors
    return IndividualDraw(t1, t2, density, jitter.texture, jitter.texture_scale, draw_seed(random))


def individual(tissues: dict[str, Tissue], draw: IndividualDraw) -> dict[str, Tissue]:
    """One head's tissues: those of a table with the factors of a draw, still numbers."""
    return {
        name: replace(
            tissue,
            t1=tissue.t1 * draw.t1[name],
            t2=tissue.t2 * draw.t2[name],
            t2star=tissue.t2star * draw.t2[name],
            density=tissue.density * draw.density[name],
        )
        for name, tissue in tissues.items()
    }


def texture_map(
    draw: IndividualDraw, shape: tuple[int, ...], affine: np.ndarray, centre: np.ndarray
) -> np.ndarray:
    """Smooth factor of T1 and T2 within tissues, float32 around 1, bound to ``centre`` (mm)."""
    noise = smooth_noise(shape, affine, centre, seed=draw.seed, scale=draw.scale)
    noise *= np.float32(draw.texture)
    noise += 1
    return np.clip(noise, 0.7, 1.3, out=noise)


def with_texture(tissue: Tissue, texture: Value) -> Tissue:
    """A tissue whose T1 and T2 vary with a texture (water moves both)."""
    return replace(tissue, t1=tissue.t1 * texture, t2=tissue.t2 * texture)
