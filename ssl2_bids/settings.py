"""Everything tunable: one frozen dataclass per level, made once by the command line.

A default stands here with its unit and its reason, and nowhere else. What a model decides
(threshold, overlap, minimum volume) is ``None`` here and read from the model's card.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# mm^3; papers use 3 to 10. What is scored, and what cards of new models say: results themselves
# have the minimum of their model's card.
MINIMUM_LESION_VOLUME = 3.0
ATLAS_SPACE = 'MNI152NLin2009aSym'  # nilearn's template: brain only and always at hand
ATLAS_URI = 'https://www.bic.mni.mcgill.ca/ServicesAtlases/ICBM152NLin2009'  # as BIDS names it


@dataclass(frozen=True)
class RunSettings:
    """What both levels share."""

    bids_dir: Path
    output_dir: Path
    work_dir: Path
    participants: tuple[str, ...] | None = None  # labels without sub-; None is everybody
    excluded: tuple[str, ...] = ()
    sessions: tuple[str, ...] | None = None  # labels without ses-
    filters: dict[str, dict[str, Any]] = field(default_factory=dict)
    check_dataset: bool = True
    clean_workdir: bool = False
    nprocs: int = 1
    omp_nthreads: int = 1
    memory_gb: float = 8.0
    random_seed: int = 0
    verbose: int = 0
    resource_monitor: bool = False
    debug: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class ParticipantSettings(RunSettings):
    """The participant level."""

    contrasts: tuple[str, ...] | None = (
        None  # contrast keys (unit1, t1w, ...); None is the best set
    )
    reference: str | None = None  # contrast key
    field_strength: float | None = None  # tesla, where the sidecars say nothing
    skull_strip: str = 'auto'  # auto, skip, force
    model: str | None = None  # None is the default bundled model
    device: str = 'auto'  # auto, cpu, cuda, cuda:N
    threshold: float | None = None  # None is the model's own
    min_lesion_volume: float | None = None  # mm^3; None is the model's own
    tta: bool = False  # mirror left-right and average: twice the time
    uncertainty: bool = False
    overlap: float | None = None  # share of a window; None is the model's own
    low_mem: bool = False
    output_spaces: tuple[str, ...] = ()
    overwrite: bool = False
    reports_only: bool = False
    stop_on_first_crash: bool = False
    plugin: dict[str, Any] | None = None  # nipype plugin and its arguments


@dataclass(frozen=True)
class AdaptationPreset:
    """How a model is adapted on a kind of device.

    Attributes
    ----------
    steps : of the optimiser, for each fold and for the model that is shipped.
    patch : edge in voxels; smaller where the model's window is.
    labelled, unlabelled : patches of a step.
    """

    steps: int
    patch: int
    labelled: int
    unlabelled: int


# Few steps: with two labelled people 1500 were worse than 200 (docs/evidence/adaptation.md). A GPU
# makes a step of six larger patches in a fraction of a second. The time is measured and told
# beforehand.
ADAPTATION = {
    'cpu': AdaptationPreset(steps=200, patch=64, labelled=2, unlabelled=2),
    'cuda': AdaptationPreset(steps=400, patch=80, labelled=4, unlabelled=2),
}


@dataclass(frozen=True)
class GroupSettings(RunSettings):
    """The group level: tables of a cohort, and the adaptation of a model to its site."""

    labels: tuple[Path, ...] = ()  # folders of manual masks; empty: the usual ones in bids_dir
    strategy: str | None = None  # None: by the number of labels; none: tables only
    label: str = 'adapted'  # of the model: its folder, and desc- of its results
    folds: int | str | None = None  # None: 5, or the labelled participants if fewer; slices
    steps: int | None = None  # None: the preset of the device
    max_minutes: float | None = None  # fewer steps where all would take longer
    empty_labels: str = 'ignore'  # ignore, negative
    holdout: tuple[str, ...] = ()  # labelled participants that are never trained on
    resegment: bool = True
    accept: str = 'auto'  # auto, always
    model: str | None = None  # what to start from; None is the default bundled model
    device: str = 'auto'  # auto, cpu, cuda, cuda:N
    learning_rate: float = 3e-4  # a third of that from noise: what is known shall not be lost
    suggestions: int = 20  # slices named as worth labelling next
