"""Columns of the tables in the results, as their JSON files describe them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ssl2_bids.contrasts import SUFFIXES
from ssl2_bids.metrics.quality_names import SHOWN
from ssl2_bids.metrics.score_names import SCORES
from ssl2_bids.steps.lesions import REGIONS

LESION_COLUMNS: dict[str, dict[str, Any]] = {
    'index': {
        'Description': 'value in the image; lesions are numbered by descending volume',
        'Format': 'integer',
    },
    'name': {'Description': 'name of the lesion'},
    'mapping': {
        'Description': 'index in the list of labels that BIDS names: 7, lesion',
        'Format': 'integer',
    },
    'volume_mm3': {'Description': 'volume', 'Units': 'mm^3'},
    'voxel_count': {'Description': 'number of voxels'},
    'x': {'Description': 'world coordinate of the centroid, to the right', 'Units': 'mm'},
    'y': {'Description': 'world coordinate of the centroid, to the front', 'Units': 'mm'},
    'z': {'Description': 'world coordinate of the centroid, upwards', 'Units': 'mm'},
    'probability_mean': {'Description': 'mean lesion probability in the lesion'},
    'probability_max': {'Description': 'highest lesion probability in the lesion'},
    'region': {
        'Description': 'region, from an affinely registered atlas and the ventricles of the image '
        '(approximate)',
        'Levels': {
            'periventricular': 'within 3 mm of the ventricles',
            'juxtacortical': 'within 3 mm of the cerebral cortex',
            'infratentorial': 'in brain stem or cerebellum',
            'deep-white-matter': 'elsewhere',
        },
    },
}

TEMPLATE_LESION_COLUMNS = LESION_COLUMNS | {
    'volume_mm3': {
        'Description': 'volume in the template, not the true one',
        'Units': 'mm^3',
    },
    'voxel_count': {
        'Description': 'number of voxels in the template; 0 where the lesion fills none by half'
    },
    **{
        axis: {
            'Description': f'coordinate in the template of the centroid of the lesion, {where}',
            'Units': 'mm',
        }
        for axis, where in (('x', 'to the right'), ('y', 'to the front'), ('z', 'upwards'))
    },
}

CHANGE_LEVELS = {
    'new': 'absent at the session before',
    'enlarging': 'has grown by more than the noise bound',
    'shrinking': 'has shrunk by more than the noise bound',
    'resolved': 'is no longer there',
    'stable': 'has changed by no more than the noise bound',
}

LONGITUDINAL_COLUMNS: dict[str, dict[str, Any]] = {
    'index': {
        'Description': 'value of the lesion in the instance maps of all sessions',
        'Format': 'integer',
    },
    'session_id': {'Description': 'session, in order of time'},
    'acq_time': {'Description': 'time of the scan, from sessions.tsv or scans.tsv'},
    'volume_mm3': {'Description': 'volume; 0 where the lesion is absent', 'Units': 'mm^3'},
    'parts': {'Description': 'pieces that the lesion falls into; 0 where it is absent'},
    'state': {
        'Description': 'change since the session before; n/a at the first session, and where the '
        'lesion is at neither',
        'Levels': CHANGE_LEVELS,
    },
    'change_mm3': {
        'Description': 'volume less that at the session before',
        'Units': 'mm^3',
    },
    'noise_bound_mm3': {
        'Description': 'change of volume between two scans of an unchanged brain, from '
        'simulated rescans (NoiseBound in this JSON); only more is a change',
        'Units': 'mm^3',
    },
    **{
        axis: {
            'Description': f'centroid over all sessions in the space between them, {where}',
            'Units': 'mm',
        }
        for axis, where in (('x', 'to the right'), ('y', 'to the front'), ('z', 'upwards'))
    },
    'region': LESION_COLUMNS['region'],
}

WITHIN_LESION_COLUMNS = LESION_COLUMNS | {
    'index': {
        'Description': 'value in the image; a lesion has the same at all sessions',
        'Format': 'integer',
    },
}

CHANGE_COLUMNS: dict[str, dict[str, Any]] = {
    'index': {'Description': 'value in the image', 'Format': 'integer'},
    'name': {'Description': 'state of the lesions', 'Levels': CHANGE_LEVELS},
    'lesion_count': {'Description': 'number of lesions in this state'},
    'volume_before_mm3': {'Description': 'their volume at the earlier session', 'Units': 'mm^3'},
    'volume_after_mm3': {'Description': 'their volume at the later session', 'Units': 'mm^3'},
}

MANIFEST_COLUMNS: dict[str, dict[str, Any]] = {
    'subject': {'Description': 'participant'},
    'session': {'Description': 'session'},
    'visit': {'Description': 'place of the session in time, from 1', 'Format': 'integer'},
    'time': {'Description': 'time since the first session; for msdataqc', 'Units': 'year'},
    'time_years': {'Description': 'time since the first session', 'Units': 'year'},
    'date': {'Description': 'date of the session'},
    't1': {'Description': 'T1w or UNIT1 image, in the space between the sessions'},
    'flair': {'Description': 'FLAIR image, in the space between the sessions'},
    'mask': {'Description': 'lesion mask, decided with all sessions together'},
    'brainmask': {'Description': 'brain at all sessions'},
}

SIMULATED_LESION_COLUMNS: dict[str, dict[str, Any]] = {
    name: LESION_COLUMNS[name] for name in ('index', 'name', 'mapping')
} | {
    'volume_mm3': {'Description': 'volume as painted', 'Units': 'mm^3'},
    'voxel_count': {'Description': 'number of voxels of the image', 'Format': 'integer'},
    'place': {
        'Description': 'region of the lesion',
        'Levels': {
            'periventricular': 'touches the ventricles',
            'juxtacortical': 'touches the cortex from the white matter',
            'deep': 'elsewhere in the white matter of the cerebrum',
            'infratentorial': 'in brain stem or cerebellum',
            'deep_grey': 'in deep grey matter',
            'cortical': 'in the cortex',
        },
    },
    'damage': {'Description': 'loss of R1 against white matter, 0 to 1'},
    'change': {
        'Description': 'since the visit before',
        'Levels': {
            'stable': 'unchanged',
            'new': 'is new',
            'enlarging': 'has grown',
            'shrinking': 'has shrunk',
            'vanished': 'has disappeared',
        },
    },
}

SIMULATED_PARTICIPANT_COLUMNS: dict[str, dict[str, Any]] = {
    'participant_id': {'Description': 'label of the participant'},
    'group': {
        'Description': 'kind of participant',
        'Levels': {'simulated': 'simulated head with lesions of known truth'},
    },
    'anatomy': {
        'Description': 'the template that was deformed; heads of one template are relatives'
    },
}

LABEL_COLUMNS: dict[str, dict[str, Any]] = {
    name: LESION_COLUMNS[name] for name in ('index', 'name')
} | {
    'mapping': {
        'Description': 'index in the list of labels that BIDS names',
        'Format': 'integer',
    }
}

VOLUME_COLUMNS: dict[str, dict[str, Any]] = {
    'index': {'Description': 'row number; 0 is the whole brain'},
    'name': {'Description': 'region, or all'},
    'volume_mm3': {'Description': 'volume of the lesions', 'Units': 'mm^3'},
    'lesion_count': {'Description': 'number of lesions (26-connected)'},
    'volume_largest_mm3': {'Description': 'volume of the largest lesion', 'Units': 'mm^3'},
    'brain_volume_mm3': {'Description': 'volume of the brain mask', 'Units': 'mm^3'},
    'lesion_load': {'Description': 'lesion volume divided by brain volume', 'Units': '1'},
}

COHORT_COLUMNS: dict[str, dict[str, Any]] = (
    {
        'participant_id': {'Description': 'participant'},
        'session_id': {'Description': 'session'},
        'model': {'Description': 'model of the segmentation'},
        'model_version': {'Description': 'version of that model'},
        'reference': {'Description': 'image that defines the grid of the mask'},
        'channels': {'Description': 'input channels of the model'},
        'magnetic_field_strength': {'Description': 'field strength', 'Units': 'T'},
        'lesion_count': VOLUME_COLUMNS['lesion_count'],
        'volume_mm3': {'Description': 'volume of all lesions', 'Units': 'mm^3'},
        'volume_largest_mm3': VOLUME_COLUMNS['volume_largest_mm3'],
        'lesion_load': VOLUME_COLUMNS['lesion_load'],
        'brain_volume_mm3': VOLUME_COLUMNS['brain_volume_mm3'],
    }
    | {
        f'{region}_{what}': {'Description': f'{text} of the {region} lesions'} | units
        for region in REGIONS
        for what, text, units in (
            ('count', 'number', {}),
            ('volume_mm3', 'volume', {'Units': 'mm^3'}),
        )
    }
    | {
        'quality': {
            'Description': 'remarks on quality, separated by "; ": a run with --sloppy, a brain '
            'volume outside 600 to 2200 mL, other reasons to doubt the brain mask '
            '(BrainMaskFlags in its JSON) or an image (Flags in the JSON of its quality), or a '
            'robust z score above 3.5 of lesion or brain volume in this cohort; an implausible '
            'lesion load; a comparison of sessions that failed, does not fit or is out of date'
        },
        'new_lesions': {
            'Description': 'with --longitudinal: lesions that are new since the session before'
        },
        'new_lesions_per_year': {
            'Description': 'the same divided by the time between both sessions; n/a where a date '
            'is unknown, or both are of one day',
            'Units': '1/year',
        },
        'enlarging_lesions': {
            'Description': 'with --longitudinal: lesions that have grown by more than the noise '
            'bound since the session before'
        },
        'lesion_change_mm3': {
            'Description': 'with --longitudinal: change of the volume of all lesions since the '
            'session before',
            'Units': 'mm^3',
        },
        'acq_time': {'Description': 'time of the scan, from sessions.tsv or scans.tsv'},
        'age': {'Description': 'from participants.tsv or sessions.tsv'},
        'sex': {'Description': 'from participants.tsv'},
        'group': {'Description': 'from participants.tsv'},
    }
)


def cohort_columns(contrasts: Collection[str]) -> dict[str, dict[str, Any]]:
    """Columns of the table of a cohort: with those on the quality of images of these contrasts."""
    return COHORT_COLUMNS | {
        f'{contrast}_{name}': {'Description': f'{contrast}: {metric.description}'}
        | ({'Units': metric.units} if metric.units else {})
        for contrast in sorted(contrasts, key=_place)
        for name, metric in SHOWN.items()
    }


def _place(contrast: str) -> int:
    return SUFFIXES.index(contrast) if contrast in SUFFIXES else len(SUFFIXES)


_LABELLED_CASE: dict[str, dict[str, Any]] = {
    'participant_id': {'Description': 'labelled participant'},
    'session_id': {'Description': 'session'},
    'fold': {
        'Description': 'training without any data of this participant',
        'Levels': {
            'slices': 'combined from trainings without these slices',
            'holdout': 'in no training; tested with the model of all other participants',
        },
    },
    'annotated': {'Description': 'annotated share of the brain', 'Units': '1'},
    'volume_reference_mm3': {'Description': 'volume of the label', 'Units': 'mm^3'},
}

PERFORMANCE_COLUMNS: dict[str, dict[str, Any]] = _LABELLED_CASE | {
    f'{name}_{when}': {'Description': f'{score.description}; by {which}'}
    for name, score in SCORES.items()
    for when, which in (
        ('before', 'the start model'),
        ('after', 'the model adapted without this participant'),
    )
}

ANNOTATE_COLUMNS: dict[str, dict[str, Any]] = {
    'participant_id': {'Description': 'participant; the best slice to label next comes first'},
    'session_id': {'Description': 'session'},
    'axis': {'Description': 'voxel axis along which the slices are counted'},
    'slice': {'Description': 'number of the slice, the first is 0', 'Format': 'integer'},
    'expected_gain_mm3': {
        'Description': 'expected volume of errors of several adapted models in the slice; halved '
        'for each better slice of the same participant',
        'Units': 'mm^3',
    },
    'image': {'Description': 'image to draw on, relative to this folder'},
}

SPLIT_COLUMNS: dict[str, dict[str, Any]] = {
    'participant_id': {'Description': 'participant'},
    'session_id': {'Description': 'session'},
    'role': {'Description': 'labelled or unlabelled'},
    'fold': {
        'Description': 'training without the participant; slices: some slices were left out; '
        'holdout: in no training; n/a: in all trainings'
    },
}

HISTORY_COLUMNS: dict[str, dict[str, Any]] = {
    'training': {
        'Description': 'number of the fold or slices that were left out, or final; last-: of '
        'the last layers alone'
    },
    'step': {'Description': 'steps done'},
    'rate': {'Description': 'learning rate'},
    'loss': {'Description': 'mean loss since the last row'},
    'labelled': {'Description': 'labelled part of the loss'},
    'unlabelled': {'Description': 'unlabelled part of the loss, before its weight'},
    'weight': {'Description': 'weight of the unlabelled part'},
    'gradient': {'Description': 'norm of the gradient'},
    'dice_left_out': {
        'Description': 'Dice on labelled participants left out of the training, of the teacher '
        'that makes pseudo-labels or, without a teacher, of the student; used for no decision'
    },
    'seconds': {'Description': 'time since the start of the training', 'Units': 's'},
    'waited': {'Description': 'time per step spent waiting for data', 'Units': 's'},
}

RESOURCE_COLUMNS: dict[str, dict[str, Any]] = {
    'session': {'Description': 'participant and session'},
    'stage': {'Description': 'step of the processing'},
    'seconds': {'Description': 'time that the step took', 'Units': 's'},
    'cpu_seconds': {
        'Description': 'processor time of the step, user and system, all threads',
        'Units': 's',
    },
    'peak_memory_MB': {'Description': 'highest memory of the process', 'Units': 'MB'},
    'gpu_memory_MB': {'Description': 'highest memory on the GPU', 'Units': 'MB'},
}
