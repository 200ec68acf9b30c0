"""Everything tunable: one frozen dataclass per level, made once by the command line.

Defaults are defined only here, with unit and reason; the help of an option quotes them. Values of
the model (threshold, overlap, minimum volume) are ``None`` here and come from the model's card.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

# mm^3; papers use 3 to 10. Minimum of the scores and of cards of new models; results have the
# minimum of their model's card.
MINIMUM_LESION_VOLUME = 3.0
ATLAS_SPACE = 'MNI152NLin2009aSym'  # nilearn's template: brain only, always available
ATLAS_URI = 'https://www.bic.mni.mcgill.ca/ServicesAtlases/ICBM152NLin2009'  # as BIDS names it


PREPROCESSING, SEGMENTATION = 'preprocessing', 'segmentation'  # what a setting decides


def _setting(
    default: Any,
    *,
    option: str = '',
    decides: str = '',
    lasting: bool = True,
    exceptional: bool = False,
) -> Any:
    """A field that an option sets.

    Parameters
    ----------
    option : the option as ``argparse`` names it, where that is not the name of the field.
    decides : part of a participant's results that changes with it; that part's hash has it.
    lasting : a later run may take it from the settings file of this one.
    exceptional : the hash has it only where it is not the default.
    """
    metadata = {
        'option': option,
        'decides': decides,
        'lasting': lasting,
        'exceptional': exceptional,
    }
    if default is dict:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class RunSettings:
    """Settings of both levels."""

    bids_dir: Path
    output_dir: Path
    work_dir: Path
    # labels without sub-; None: all
    participants: tuple[str, ...] | None = _setting(None, option='participant_label')
    excluded: tuple[str, ...] = _setting((), option='exclude_participant_label')
    # labels without ses-
    sessions: tuple[str, ...] | None = _setting(None, option='session_label')
    # by contrast key (and "labels"): entities and their values
    filters: dict[str, dict[str, Any]] = _setting(dict, option='bids_filter_file')
    check_dataset: bool = _setting(True, option='skip_bids_validation')
    # results of other programs by the names of their datasets; their content decides
    derivatives: dict[str, Path] = _setting(dict)
    clean_workdir: bool = _setting(False, lasting=False)
    nprocs: int = 1
    omp_nthreads: int = 1
    memory_gb: float = _setting(8.0, option='mem')
    random_seed: int = _setting(0, decides=PREPROCESSING)
    verbose: int = 0
    debug: bool = _setting(False, lasting=False)
    dry_run: bool = _setting(False, lasting=False)

    @property
    def datasets(self) -> tuple[Path, ...]:
        """The folders that images are taken from: the raw dataset first, then those of ``-d``."""
        return (self.bids_dir, *self.derivatives.values())


@dataclass(frozen=True)
class ParticipantSettings(RunSettings):
    """The participant level."""

    # contrast keys (unit1, t1w, ...); None is the best set
    contrasts: tuple[str, ...] | None = None
    reference: str | None = None  # contrast key
    # contrast keys without which a session fails
    require: tuple[str, ...] = ()
    # tesla, used if the sidecars have none
    field_strength: float | None = None
    skull_strip: str = _setting('auto', decides=PREPROCESSING)  # auto, skip, force
    bids_database_dir: Path | None = None  # names of images, in a database of pybids
    brain_mask: Path | None = None  # folder of brain masks; their content decides
    model: str | None = None  # None is the default bundled model
    device: str = 'auto'  # auto, cpu, cuda, cuda:N
    # None: that of the model
    threshold: float | None = _setting(None, decides=SEGMENTATION)
    # mm^3; None: that of the model
    min_lesion_volume: float | None = _setting(None, decides=SEGMENTATION)
    # average with the left-right mirrored brain; doubles the time
    tta: bool = _setting(False, decides=SEGMENTATION)
    uncertainty: bool = _setting(False, decides=SEGMENTATION)
    # folders of manual masks on which the model is recalibrated
    calibrate_from: tuple[Path, ...] = ()
    # share of a window; None is the model's own
    overlap: float | None = _setting(None, decides=SEGMENTATION)
    # low quality, for tests of an installation: workflows/participant/sloppy.py
    sloppy: bool = _setting(False, decides=PREPROCESSING, exceptional=True)
    low_mem: bool = _setting(False, decides=SEGMENTATION)
    output_spaces: tuple[str, ...] = ()
    longitudinal: bool = False  # several sessions of a participant together
    overwrite: bool = _setting(False, lasting=False)
    reports_only: bool = _setting(False, lasting=False)
    boilerplate_only: bool = _setting(False, lasting=False)
    stop_on_first_crash: bool = False
    resource_monitor: bool = False
    # nipype plugin and its arguments
    plugin: dict[str, Any] | None = _setting(None, option='use_plugin')


@dataclass(frozen=True)
class AdaptationPreset:
    """How a model is adapted on a kind of device.

    Attributes
    ----------
    steps : of the optimiser, for each fold and for the final model.
    patch : edge in voxels; smaller where the model's window is.
    labelled, unlabelled : patches of a step.
    """

    steps: int
    patch: int
    labelled: int
    unlabelled: int


# Few steps: with two labelled people 1500 were worse than 200 (docs/evidence/strategies.md). A GPU
# makes a step of six larger patches in a fraction of a second. The time is measured and printed
# first.
ADAPTATION = {
    'cpu': AdaptationPreset(steps=200, patch=64, labelled=2, unlabelled=2),
    'cuda': AdaptationPreset(steps=400, patch=80, labelled=4, unlabelled=2),
}


@dataclass(frozen=True)
class GroupSettings(RunSettings):
    """The group level: tables of a cohort, and the adaptation of a model to its site."""

    labels: tuple[Path, ...] = ()  # folders of manual masks; empty: the usual ones in bids_dir
    strategy: str | None = None  # None: by the number of labels; none: tables only
    twin_heads: Path | None = None  # folder of label maps; None: the MNI152 tissue maps
    label: str = 'adapted'  # of the model: its folder, and desc- of its results
    folds: int | str | None = None  # None: 5, or the labelled participants if fewer; slices
    steps: int | None = None  # None: the preset of the device
    # fewer steps where all would take longer
    max_minutes: float | None = _setting(None, option='max_time')
    empty_labels: str = 'ignore'  # ignore, negative
    # labelled participants in no training
    holdout: tuple[str, ...] = _setting((), option='holdout_label')
    resegment: bool = _setting(True, option='no_resegment')
    accept: str = 'auto'  # auto, always
    rung: str | None = None  # one of RUNGS; None: all are tested
    model: str | None = None  # start model; None is the default bundled model
    device: str = 'auto'  # auto, cpu, cuda, cuda:N
    learning_rate: float = 3e-4  # a third of that from scratch, to keep what was learned
    suggestions: int = 20  # slices to label next


# how much of a model is changed, from the change that is easiest to trust
BUNDLED, RECALIBRATED, LAST_LAYERS, HALF_WAY, WHOLE = RUNGS = (
    'bundled', 'recalibrated', 'last-layers', 'half-way', 'whole',
)  # fmt: skip
UNTRAINED = (BUNDLED, RECALIBRATED)
CALIBRATED = 'calibrated'  # the model of --calibrate-from

LEVELS: dict[str, type[RunSettings]] = {
    'participant': ParticipantSettings,
    'group': GroupSettings,
}


def option_of(setting: Field[Any]) -> str:
    """The option that sets a field, as ``argparse`` names it."""
    return setting.metadata.get('option') or setting.name


def options_of(level: str) -> set[str]:
    """The options of a level."""
    return {option_of(setting) for setting in fields(LEVELS[level])}


def foreign_options(level: str) -> set[str]:
    """The options that another level has, and this one has not."""
    return set().union(*(options_of(other) for other in LEVELS)) - options_of(level)


def defaults_of_options() -> dict[str, Any]:
    """The value of each option that is not given, of those that have a default."""
    return {
        option_of(setting): setting.default
        for level in LEVELS.values()
        for setting in fields(level)
        if setting.default is not MISSING
    }


def lasting_options() -> set[str]:
    """The options that a later run may take from the settings file of an earlier one."""
    return {
        option_of(setting)
        for level in LEVELS.values()
        for setting in fields(level)
        if setting.metadata.get('lasting', True) and setting.name not in ('bids_dir', 'output_dir')
    }


def deciding(settings: RunSettings, part: str) -> dict[str, Any]:
    """The settings that decide a part of a participant's results, by name.

    Parameters
    ----------
    part : ``PREPROCESSING`` or ``SEGMENTATION``.
    """
    return {
        setting.name: getattr(settings, setting.name)
        for setting in fields(settings)
        if setting.metadata.get('decides') == part
        and not (
            setting.metadata['exceptional'] and getattr(settings, setting.name) == setting.default
        )
    }
