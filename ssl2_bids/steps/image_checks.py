"""Whether an image fits its name and its sidecar, and whether it is good enough."""

from __future__ import annotations

from collections.abc import Mapping

from ssl2_bids.steps.brain_check import MAX_CUT, MIN_AGREEMENT, Flag
from ssl2_bids.steps.inhomogeneity import is_strong

# ``python benchmarks/image_quality.py`` prints the numbers of good and spoiled images; each
# threshold lies between both on simulated heads (3 and 7 T) and on real ones (1.5 and 3 T).
# "That noise" is a fourth of the median of the brain
MIN_SNR = 7.0  # good from 16.9 (2D, 1.5 T); with that noise 2.9 to 5.7
MIN_CNR = 2.5  # of T1w and UNIT1; good from 5.9 (1.5 T); with that noise 1.5
MAX_GHOSTS = 0.05  # good up to 0.03; where a ghost of 15 % lies beside the head 0.1 to 0.16
MIN_COVERAGE = 1 - MAX_CUT  # as for the brain mask
MAX_DISTORTION = 1.5  # mm; benchmarks/distortion.py
MIN_NMI = 1.02  # good from 1.03 (UNIT1 and T2starw of 7 T); 16 mm off 1.007 to 1.021
# fluid over white matter: T1w and UNIT1 up to 0.52, FLAIR 0.25 to 0.59, T2w from 2.0
DARK_FLUID, BRIGHT_FLUID = 0.8, 1.3
# white over grey matter where fluid is dark: T1w and UNIT1 from 1.13 (1.5 T), FLAIR 0.73 to 0.88,
# with thick slices up to 1.04
GREY_OVER_WHITE, WHITE_OVER_GREY = 0.97, 1.07
MAX_CJV = 2.0  # from which white and grey matter are not separated; good 0.17 to 1.73
SAME_WHITE, SAME_FLUID = 0.03, 0.05  # of the signal of white matter: no tissue is seen
MEGAHERTZ = 42.577  # per tesla, of protons
MAX_FIELD_ERROR = 0.1  # share; scanners of nominal 3 T have 2.89 T
# s, of white matter: 0.65 at 1.5 T, 0.84 at 3 T, 1.13 at 7 T (Wright 2008, MAGMA 21:121); 1.13 in
# MP2RAGE simulated at 7 T, without B1+. From 5 T on a T1 below the first is flagged; at lower
# fields one above the second
T1_OF_WHITE = (0.95, 1.1)

DARK = 'T1w or FLAIR'
LIKE = {  # contrasts that may look so
    'T1w': ('T1w', 'UNIT1'),
    'FLAIR': ('FLAIR', 'T2starw'),
    'T2w': ('T2w', 'T2starw'),
    DARK: ('T1w', 'UNIT1', 'FLAIR', 'T2starw'),
}
CHECKED = {contrast for names in LIKE.values() for contrast in names}
METHODS = (
    'The quality of each image was measured with metrics of MRIQC [@esteban2017] and with the '
    'noise of neighbouring voxels [@coupe2008], in tissue classes that were fitted with the atlas '
    'as spatial prior.'
)


def looks_like(metrics: Mapping[str, float | None]) -> str:
    """T1w, FLAIR, T2w, or one of the first two, by the order of the tissues; empty if unclear.

    Parameters
    ----------
    metrics : with ``wm2gm``, ``csf2wm``, ``cjv`` and ``tissue_snr``.
    """
    white, fluid, signal = (metrics.get(name) for name in ('wm2gm', 'csf2wm', 'tissue_snr'))
    noisy = signal is not None and signal < MIN_SNR  # then magnitudes are mostly noise
    if white is None or fluid is None or noisy:
        return ''
    if fluid > DARK_FLUID:
        return 'T2w' if fluid >= BRIGHT_FLUID else ''
    overlap = metrics.get('cjv')
    if overlap is None or overlap > MAX_CJV or GREY_OVER_WHITE < white < WHITE_OVER_GREY:
        return DARK
    return 'T1w' if white >= WHITE_OVER_GREY else 'FLAIR'


def check_image(
    metrics: Mapping[str, float | None],
    contrast: str,
    *,
    field_strength: float | None = None,
    frequency: float | None = None,
    is_reference: bool = False,
) -> list[Flag]:
    """Reasons to doubt an image; a metric that is not available gives none.

    Parameters
    ----------
    metrics : of :func:`image_quality.measure_image`, with coverage, mask and registration.
    contrast : BIDS suffix.
    field_strength, frequency : T and MHz of the sidecar; None if unknown.
    is_reference : the field of view of the reference is checked with its brain mask.
    """
    flags = _check_noise(metrics, contrast)
    like = looks_like(metrics)
    if like and contrast in CHECKED and contrast not in LIKE[like]:
        white, fluid = metrics['wm2gm'] or 0, metrics['csf2wm'] or 0
        text = (
            f'the contrast is that of a {like} image: white over grey matter {white:.2f}, fluid '
            f'over white matter {fluid:.2f}'
        )
        seen = {
            'T2w': (fluid, BRIGHT_FLUID),
            DARK: (fluid, DARK_FLUID),
            'T1w': (white, WHITE_OVER_GREY),
            'FLAIR': (white, GREY_OVER_WHITE),
        }
        flags.append(Flag('contrast', *seen[like], text))
    flags += _check_tissues(metrics)
    flags += _check_place(metrics, is_reference)
    return flags + _check_field(metrics, field_strength, frequency)


def _check_tissues(metrics: Mapping[str, float | None]) -> list[Flag]:
    """Whether all tissues have one signal, as in an image that shows none.

    Fluid with the signal of the others is often not found at all.
    """
    white, fluid, signal = (metrics.get(name) for name in ('wm2gm', 'csf2wm', 'tissue_snr'))
    if white is None or (signal is not None and signal < MIN_SNR):
        return []
    if abs(white - 1) > SAME_WHITE or (fluid is not None and abs(fluid - 1) > SAME_FLUID):
        return []
    text = (
        f'white matter has {white:.2f} times the signal of grey matter, and '
        + (
            'no fluid was found'
            if fluid is None
            else f'fluid {fluid:.2f} times that of the former'
        )
        + ': the image shows no tissue, or no brain'
    )
    return [Flag('contrast', abs(white - 1), SAME_WHITE, text)]


def _check_noise(metrics: Mapping[str, float | None], contrast: str) -> list[Flag]:
    flags = []
    signal, ghosts = metrics.get('tissue_snr'), metrics.get('ghosts')
    if signal is not None and signal < MIN_SNR:
        text = f'noise: the signal of white matter is only {signal:.1f} times the noise'
        flags.append(Flag('noise', signal, MIN_SNR, text))
    contrasted = metrics.get('tissue_cnr')
    if contrasted is not None and contrasted < MIN_CNR and contrast in LIKE['T1w']:
        text = f'noise: white and grey matter differ by only {contrasted:.1f} times the noise'
        flags.append(Flag('contrast-to-noise', contrasted, MIN_CNR, text))
    if ghosts is not None and ghosts > MAX_GHOSTS:
        text = f'ghosts: beside the head is {ghosts:.0%} of the signal of white matter'
        flags.append(Flag('ghosts', ghosts, MAX_GHOSTS, text))
    return flags


def _check_place(metrics: Mapping[str, float | None], is_reference: bool) -> list[Flag]:
    """Field of view, mask and registration."""
    flags = []
    coverage, dice = metrics.get('coverage'), metrics.get('brain_mask_dice')
    if coverage is not None and coverage < MIN_COVERAGE and not is_reference:
        text = f'the field of view shows only {coverage:.0%} of the brain'
        flags.append(Flag('coverage', coverage, MIN_COVERAGE, text))
    if dice is not None and dice < MIN_AGREEMENT:
        text = f'its own brain mask differs from that of the session: Dice {dice:.2f}'
        flags.append(Flag('brain-mask', dice, MIN_AGREEMENT, text))
    similarity = metrics.get('registration_nmi')
    if similarity is not None and similarity < MIN_NMI:
        text = f'after the registration it is unlike the reference: NMI {similarity:.3f}'
        flags.append(Flag('registration', similarity, MIN_NMI, text))
    distortion = metrics.get('distortion_high')
    if distortion is not None and distortion > MAX_DISTORTION:
        text = (
            f'its shape differs from that of the reference by up to {distortion:.1f} mm: was only '
            'one of them corrected for distortion by the scanner?'
        )
        flags.append(Flag('distortion', distortion, MAX_DISTORTION, text))
    return flags


def _check_field(
    metrics: Mapping[str, float | None], field_strength: float | None, frequency: float | None
) -> list[Flag]:
    """Field strength of the sidecar against the frequency, and against T1 of white matter."""
    if field_strength is None:
        return []
    flags = []
    if frequency is not None:
        real = frequency / MEGAHERTZ
        if abs(real - field_strength) > MAX_FIELD_ERROR * field_strength:
            text = (
                f'the sidecar gives {field_strength:g} T, but an imaging frequency of '
                f'{frequency:g} MHz, that of {real:.2g} T'
            )
            flags.append(Flag('field', real, field_strength, text))
    t1 = metrics.get('t1_wm')
    high = is_strong(field_strength)
    if t1 is not None:
        limit = T1_OF_WHITE[0 if high else 1]
        if t1 < limit if high else t1 > limit:
            text = (
                f'T1 of white matter is {t1:.2f} s, which is not that of {field_strength:g} T: '
                'check field strength and inversion times of the sidecar'
            )
            flags.append(Flag('field', t1, limit, text))
    return flags
