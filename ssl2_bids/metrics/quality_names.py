"""Names of the measures of an image's quality, and what each of them is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One measure of an image.

    Attributes
    ----------
    description : what it is.
    units : empty for a number without a unit.
    title : a few words for pages; empty for those that stand in the JSON alone.
    of_mriqc : whether name and formula are MRIQC's.
    """

    description: str
    units: str = ''
    title: str = ''
    of_mriqc: bool = True


_TISSUES = {
    'bg': 'air above nasion and cerebellum, as acquired',
    'csf': 'cerebrospinal fluid',
    'gm': 'grey matter',
    'wm': 'white matter',
}
_STATISTICS = {
    'mean': 'mean',
    'median': 'median',
    'mad': 'median absolute deviation, scaled to a standard deviation,',
    'stdv': 'standard deviation',
    'k': 'excess kurtosis',
    'p05': '5th percentile',
    'p95': '95th percentile',
}
_SCALE = 'the median of white matter is 1000'


def _own(description: str, title: str = '', units: str = '') -> Metric:
    return Metric(description, units, title, of_mriqc=False)


METRICS: dict[str, Metric] = {
    **{f'size_{a}': Metric(f'number of voxels along {a} (RAS+)') for a in 'xyz'},
    **{f'spacing_{a}': Metric(f'voxel edge along {a} (RAS+)', 'mm') for a in 'xyz'},
    **{
        f'summary_{tissue}_{name}': Metric(f'{statistic} of {where}; {_SCALE}')
        for tissue, where in _TISSUES.items()
        for name, statistic in _STATISTICS.items()
    },
    **{
        f'snr_{tissue}': Metric(f'median over standard deviation of {_TISSUES[tissue]}')
        for tissue in ('csf', 'gm', 'wm')
    },
    'snr_total': Metric('mean of snr_csf, snr_gm and snr_wm'),
    **{
        f'snrd_{tissue}': Metric(
            f'median of {_TISSUES[tissue]} over the noise of air, corrected for its Rayleigh '
            'distribution (Dietrich 2007)',
            title='SNR against air' if tissue == 'wm' else '',
        )
        for tissue in ('csf', 'gm', 'wm')
    },
    'snrd_total': Metric('mean of snrd_csf, snrd_gm and snrd_wm'),
    'cnr': Metric(
        'distance of the medians of white and grey matter over the root of the summed variances '
        'of white matter, grey matter and air',
        title='CNR with air',
    ),
    'cjv': Metric(
        'sum of the deviations (MAD) of white and grey matter over the distance of their '
        'medians; lower is better',
        title='Joint variation (CJV)',
    ),
    'efc': Metric(
        'entropy focus criterion; ghosts, blur and noise raise it', title='Entropy focus (EFC)'
    ),
    'fber': Metric('median energy of the head over that of all else'),
    'wm2max': Metric('median of white matter over the 99.95th percentile of the whole image'),
    'inu_med': Metric('median in the brain of the field that N4 found'),
    'inu_range': Metric(
        '5th to 95th percentile in the brain of the field that N4 found', title='Inhomogeneity'
    ),
    'tissue_snr': _own(
        'signal of white matter over the noise within it, from differences between neighbouring '
        'voxels',
        'SNR in tissue',
    ),
    'tissue_cnr': _own(
        'distance of the medians of white and grey matter over that noise', 'CNR in tissue'
    ),
    'wm2gm': _own('contrast ratio: median of white over that of grey matter', 'WM over GM'),
    'csf2wm': _own(
        'contrast ratio: median of cerebrospinal fluid over that of white matter',
        'CSF over WM',
    ),
    'ghosts': _own(
        'surplus of the air beside the head, along one axis, over that at the corners, as a share '
        'of white matter; the largest of the three axes',
        'Ghosts',
    ),
    't1_wm': _own('median T1 of white matter, where there is a T1 map', 'T1 of WM', 's'),
    'coverage': _own(
        'share of the brain in the field of view; the brain is that of the template fitted to '
        'the reference, or the brain mask of the session, whichever is cut more',
        'Coverage',
    ),
    'brain_mask_dice': _own(
        "Dice of the image's own brain mask and that of the session, where the image has a view",
        'Mask agreement',
    ),
    'template_dice': _own(
        'of the reference: Dice of its brain and that of the template after the affine transform'
    ),
    'registration_nmi': _own(
        'normalised mutual information with the reference, 1 (unrelated) to 2, after the '
        'registration',
        'Registration (NMI)',
    ),
    'registration_nmi_before': _own('the same by the coordinates of the scanner'),
    'registration_shift': _own(
        'how far the registration moves the centre of the brain', units='mm'
    ),
    'registration_rotation': _own('angle of the rotation of the registration', units='degrees'),
    'distortion_median': _own(
        'from 5 T on: length of the smooth displacement that the rigid registration leaves over, '
        'median of the brain; 0.3 where there is none',
        units='mm',
    ),
    'distortion_high': _own('the same, 95th percentile of the brain', 'Distortion', 'mm'),
}
SHOWN = {name: metric for name, metric in METRICS.items() if metric.title}
