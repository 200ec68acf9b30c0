"""A twin that cannot be made: with labels the training continues, without any the run ends."""

from dataclasses import replace

import pytest
from site_phantom import CARD, head, make_site, put_label

from ssl2_bids.bids.outputs import UnitNames, find_qualities, find_results
from ssl2_bids.errors import DataError
from ssl2_bids.files import write_json
from ssl2_bids.networks.architectures.fast_unet import FastUNet
from ssl2_bids.networks.weights import write_model
from ssl2_bids.settings import GroupSettings
from ssl2_bids.workflows.adaptation.cases import find_cases
from ssl2_bids.workflows.adaptation.outputs import typical_first
from ssl2_bids.workflows.adaptation.plan import plan_adaptation
from ssl2_bids.workflows.adaptation.state import begin


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> GroupSettings:
    root = tmp_path_factory.mktemp('site')
    model = root / 'phantom-3t'  # it is not trained: nothing here looks at what it finds
    write_model(model, FastUNet(inputs=2, channels=(4, 8), full=2), CARD)
    make_site(root, model, 3)
    for number in (1, 2):
        put_label(root / 'labels', f'{number:02d}', head(number).lesion)
    return GroupSettings(
        root / 'data', root / 'out', root / 'work', model=str(model), device='cpu', folds=2,
        steps=10, strategy='twin', labels=(root / 'labels',),
    )  # fmt: skip


def started(settings):
    shown = []
    work = begin(plan_adaptation(settings, find_results(settings.output_dir)), shown.append)
    return work, '\n'.join(shown)


def put_qualities(site, **metrics):
    for number in (1, 2, 3):
        names = UnitNames(site.output_dir, f'{number:02d}', None, 'T1w')
        for contrast in ('T1w', 'FLAIR'):
            path = names.path('anat.quality', contrast=contrast, entities='acq-a')
            raw = f'bids:raw:sub-{number:02d}/anat/sub-{number:02d}_{contrast}.nii.gz'
            write_json(path, {'Sources': [raw], 'Contrast': contrast, **metrics})
        assert set(find_qualities(names)) == {'T1w', 'FLAIR'}


def test_without_measures_the_training_continues_without_a_twin(site):
    work, shown = started(site)
    assert work.twin is None
    assert work.training.strategy == 'mean_teacher'
    assert 'no scanner twin can be made: no scan of the site can be measured' in shown
    assert 'The run continues without it.' in shown


def test_a_recalibration_continues_without_a_twin_too(site):
    work, shown = started(replace(site, rung='recalibrated', steps=None))
    assert work.twin is None
    assert len(work.labelled) == 2
    assert 'no scanner twin can be made' in shown


def test_the_start_model_needs_no_twin(site):
    work, shown = started(replace(site, rung='bundled', steps=None))
    assert work.twin is None
    assert 'no scanner twin is drawn' in shown


def test_constant_images_are_named_and_without_labels_this_is_the_end(site):
    put_qualities(site, wm2gm=None, csf2wm=None, tissue_snr=None, MagneticFieldStrength=None)
    bare = replace(site, labels=(), accept='always', folds=None)
    with pytest.raises(DataError, match=r'any image \(FLAIR, T1w\).*constant') as caught:
        started(bare)
    assert 'Label a few participants' in caught.value.advice
    _, shown = started(site)
    assert 'constant' in shown
    assert 'models/adapted exists' not in shown
    write_json(site.output_dir / 'models' / 'adapted' / 'model.json', {'Accepted': True})
    _, shown = started(site)
    assert shown.index('models/adapted exists: with the same') < shown.index('constant')


def test_label_maps_that_are_missing(site, tmp_path, caplog):
    put_qualities(site, wm2gm=0.85, csf2wm=0.1, tissue_snr=20.0, inu_range=0.4)
    work, shown = started(replace(site, twin_heads=tmp_path))
    assert work.twin is None
    assert 'has no images' in shown
    assert 'MagneticFieldStrength; 3 T is assumed' in caplog.text


def test_a_typical_person_is_shown_first(site):
    cases = find_cases(site, find_results(site.output_dir))
    for case, ratio in zip(cases, (0.9, 1.3, 1.2), strict=True):
        path = case.result.names.path('anat.quality', contrast='FLAIR', entities='acq-a')
        write_json(path, {'Contrast': 'FLAIR', 'wm2gm': ratio})
    names = [case.participant for case in typical_first(cases, 'FLAIR')]
    assert names == ['03', '02', '01']
    assert [case.participant for case in typical_first(cases, 'T2w')] == ['01', '02', '03']
