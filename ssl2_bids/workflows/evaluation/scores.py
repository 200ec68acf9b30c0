"""The results of evaluated cases: columns of tables, means, sizes, comparisons of models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl2_bids.metrics import comparison
from ssl2_bids.metrics.lesionwise import SIZE_EDGES
from ssl2_bids.wording import counted

if TYPE_CHECKING:
    from ssl2_bids.workflows.evaluation.lesion_free import FalsePositives
    from ssl2_bids.workflows.evaluation.run import ComparedCase

SEED = 0  # of the resamples: the same scores give the same intervals

# each number of a case: name in tables, heading on screen, digits, meaning
Column = tuple[str, int, dict[str, str]]
COUNTED = '; those below --min-lesion-volume do not count'
COLUMNS: dict[str, Column] = {
    'dice': ('Dice', 3, {'Description': 'voxel-wise Dice coefficient'}),
    'ppv': ('PPV', 3, {'Description': 'voxel-wise positive predictive value'}),
    'sensitivity': ('Sens', 3, {'Description': 'voxel-wise sensitivity'}),
    'volume_predicted': ('Pred mL', 2, {'Description': 'predicted lesions', 'Units': 'mL'}),
    'volume_reference': ('Ref mL', 2, {'Description': 'reference lesions', 'Units': 'mL'}),
    'lesion_f1': ('Lesion F1', 3, {'Description': 'lesion F1, any overlap counts'}),
    'lesion_sensitivity': ('Lesion sens', 3, {'Description': 'reference lesions detected'}),
    'lesion_precision': ('Lesion prec', 3, {'Description': 'predicted lesions that are true'}),
    'lesion_f1_msseg': ('MSSEG F1', 3, {'Description': 'lesion F1, rule of MSSEG (Anima)'}),
    'hd95': ('HD95 mm', 1, {'Description': '95th percentile Hausdorff distance', 'Units': 'mm'}),
}
# shown where a probability map is there
CALIBRATION_COLUMNS: dict[str, Column] = {
    'ece': (
        'ECE',
        3,
        {'Description': 'expected calibration error of brain voxels within 5 mm of lesions'},
    ),
    'brier': ('Brier', 3, {'Description': 'Brier score of the same voxels'}),
}
MORE_COLUMNS = (
    {
        'ndsc': {'Description': 'Dice normalised to lesions in 0.1 % of the brain (nDSC)'},
        'surface_dice': {'Description': 'share of both surfaces within 1 mm of the other'},
        'volume_error': {'Description': '(predicted - reference) / reference volume'},
        'absolute_volume_error': {'Description': 'absolute value of volume_error'},
        'lesions_reference': {'Description': f'lesions in the reference{COUNTED}'},
        'lesions_predicted': {'Description': f'predicted lesions{COUNTED}'},
        'false_lesions': {
            'Description': f'predicted lesions that overlap no reference lesion{COUNTED}'
        },
        'false_volume': {'Description': 'volume of these lesions', 'Units': 'mL'},
        'annotated': {
            'Description': 'share of the voxels annotated by raters; other voxels are left out'
        },
        'raters': {'Description': 'number of raters, combined by majority vote'},
    }
    | {
        f'detected_{edge:g}': {
            'Description': f'share detected from {edge:g} mm^3 to the next size'
        }
        for edge in SIZE_EDGES
    }
    | {
        f'lesions_{edge:g}': {
            'Description': f'reference lesions from {edge:g} mm^3 to the next size'
        }
        for edge in SIZE_EDGES
    }
)
UNIT_COLUMNS = {
    'participant_id': {'Description': 'participant'},
    'session_id': {'Description': 'session'},
    'model': {
        'Description': 'model of the segmentation: its label, or default for the bundled one'
    },
    'space': {'Description': 'grid on which the masks were compared'},
}
# of the comparison of models: digits
COMPARED = {
    'dice': 3,
    'ndsc': 3,
    'lesion_f1': 3,
    'lesion_f1_msseg': 3,
    'lesion_sensitivity': 3,
    'lesion_precision': 3,
    'false_volume': 2,
    'absolute_volume_error': 3,
    'hd95': 1,
    'ece': 3,
    'brier': 3,
}
COMPARISON_COLUMNS = {
    'score': {'Description': 'score, as named in the table of cases'},
    'model': {'Description': 'model that is compared'},
    'baseline': {'Description': 'model that it is compared with'},
    'mean': {'Description': 'mean of the model over participants, sessions averaged first'},
    'baseline_mean': {'Description': 'the same of the baseline'},
    'difference': {'Description': 'mean - baseline_mean'},
    'low': {'Description': 'lower end of the 95 % bootstrap interval of the difference'},
    'high': {'Description': 'upper end'},
    'p': {'Description': "two-sided p, signs of the participants' differences permuted"},
    'p_holm': {'Description': 'p adjusted by Holm for the models compared in this score'},
    'p_wilcoxon': {'Description': 'two-sided p of the signed-rank test, not adjusted'},
    'participants': {'Description': 'participants with both scores'},
    'undefined': {'Description': 'cases left out: a score of one of both is undefined'},
}
LESION_FREE_COLUMNS: dict[str, Column] = {
    'false_volume': (
        'FP mL',
        3,
        {'Description': f'volume of all predicted lesions{COUNTED}', 'Units': 'mL'},
    ),
    'false_lesions': ('FP lesions', 0, {'Description': f'number of predicted lesions{COUNTED}'}),
    'false_largest': ('Largest mL', 3, {'Description': 'the largest of them', 'Units': 'mL'}),
    'brain_volume': ('Brain mL', 0, {'Description': 'volume of the brain mask', 'Units': 'mL'}),
}


def model_name(model: str | None) -> str:
    """How a model is called in tables."""
    return model or 'default'


def shown_columns(cases: Sequence[ComparedCase]) -> dict[str, Column]:
    """The columns for the screen: those on calibration only where a case has them."""
    names = {name for case in cases for name, value in case.numbers().items() if value == value}
    return COLUMNS | {name: c for name, c in CALIBRATION_COLUMNS.items() if name in names}


def mean_numbers(cases: Sequence[ComparedCase]) -> dict[str, float]:
    """Mean of each column over the cases where it is defined; NaN where it never is."""
    means = {}
    for name in COLUMNS | CALIBRATION_COLUMNS:
        values = np.array([case.numbers().get(name, math.nan) for case in cases])
        means[name] = float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
    return means


def unit_cells(entry: ComparedCase | FalsePositives) -> dict[str, object]:
    """The first columns of a row."""
    return {
        'participant_id': f'sub-{entry.subject}',
        'session_id': f'ses-{entry.session}' if entry.session else None,
        'model': model_name(entry.model),
        'space': entry.space,
    }


def table(
    cases: Sequence[ComparedCase],
) -> tuple[list[dict[str, object]], dict[str, dict[str, str]]]:
    """One row per case for a TSV, and the description of each column."""
    described = {name: column[2] for name, column in (COLUMNS | CALIBRATION_COLUMNS).items()}
    rows = [unit_cells(case) | case.numbers() for case in cases]
    return rows, UNIT_COLUMNS | described | MORE_COLUMNS


def lesion_free_table(
    brains: Sequence[FalsePositives],
) -> tuple[list[dict[str, object]], dict[str, dict[str, str]]]:
    """The same of brains without lesions."""
    described = {name: column[2] for name, column in LESION_FREE_COLUMNS.items()}
    rows = [unit_cells(brain) | brain.numbers() for brain in brains]
    return rows, UNIT_COLUMNS | described


def lesions_in_words(cases: Sequence[ComparedCase]) -> str:
    """What was detected of each size, and what is false, of all cases together."""
    bins = [case.by_size for case in cases if case.by_size]
    parts = []
    for same in zip(*bins, strict=True):
        lower, upper = same[0].lower, same[0].upper
        size = f'from {lower:g}' if math.isinf(upper) else f'{lower:g} to {upper:g}'
        count, found = sum(b.count for b in same), sum(b.detected for b in same)
        parts.append(f'{size} mm^3 {found} of {count}')
    if not parts:
        return ''
    whole = [case.numbers() for case in cases if case.by_size]
    count = sum(numbers['false_lesions'] for numbers in whole)
    volume = sum(numbers['false_volume'] for numbers in whole)
    return f'{", ".join(parts)}; false: {counted(round(count), "lesion")}, {volume:.2f} mL in all'


def compare(cases: Sequence[ComparedCase], models: Sequence[str | None]) -> list[dict[str, Any]]:
    """Rows that compare each model with the first one, on the cases that both have."""
    baseline, *others = models
    rows = []
    for score in COMPARED:
        results = [_compare_score(cases, baseline, model, score) for model in others]
        adjusted = comparison.holm([result.p for result in results])
        for model, result, p_holm in zip(others, results, adjusted, strict=True):
            numbers = asdict(result)
            rows.append(
                {
                    'score': score,
                    'model': model_name(model),
                    'baseline': model_name(baseline),
                    'mean': numbers.pop('second'),
                    'baseline_mean': numbers.pop('first'),
                    **numbers,
                    'p_holm': p_holm,
                }
            )
    return rows


def _compare_score(
    cases: Sequence[ComparedCase], baseline: str | None, model: str | None, score: str
) -> comparison.Comparison:
    values: dict[str | None, dict[tuple[str, str], float]] = {baseline: {}, model: {}}
    for case in cases:
        if case.model in values:
            unit = case.subject, case.session or ''
            values[case.model][unit] = case.numbers().get(score, math.nan)
    common = sorted(values[baseline].keys() & values[model].keys())
    return comparison.compare_models(
        [values[baseline][unit] for unit in common],
        [values[model][unit] for unit in common],
        [subject for subject, _ in common],
        random=np.random.default_rng(SEED),
    )
