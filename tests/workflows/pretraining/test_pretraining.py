import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from label_phantom import label_head
from phantoms import brain_image
from running_app import digests

from ssl2_bids.cli.tools import pretrain as pretrain_tool
from ssl2_bids.cli.tools.app import main
from ssl2_bids.errors import (
    DataError,
    NoInputError,
    NothingSelectedError,
    UnavailableError,
    UsageError,
)
from ssl2_bids.networks.registry import new_network
from ssl2_bids.networks.weights import load_network, read_card, read_weights
from ssl2_bids.steps.segmentation import segment
from ssl2_bids.synthesis.appearance import CHANNELS
from ssl2_bids.synthesis.heads import make_head, save_heads
from ssl2_bids.training import checkpoint
from ssl2_bids.training.data.participants import Participant, from_bytes, save_scan
from ssl2_bids.training.pretraining.calibration import calibrate_members
from ssl2_bids.training.pretraining.config import Config, Data, read_config
from ssl2_bids.training.pretraining.tasks import has_lesion
from ssl2_bids.training.run import History
from ssl2_bids.volume import Volume
from ssl2_bids.workflows.heads import heads_from_label_maps, name_of, read_lesion_masks
from ssl2_bids.workflows.pretraining import contents
from ssl2_bids.workflows.pretraining.kept_config import keep_config
from ssl2_bids.workflows.pretraining.model import conclude, trained_on, whole_validation
from ssl2_bids.workflows.pretraining.pack import check_names, pack
from ssl2_bids.workflows.pretraining.prepared import Packed, load_packed
from ssl2_bids.workflows.pretraining.run import check_data, identity_of

FLAIR = CHANNELS.index('FLAIR')
ONLY_FLAIR = tuple(channel == 'FLAIR' for channel in CHANNELS)
NETWORK = """
window = [32, 32, 32]
[network]
Type = "fast_unet"
Channels = [4, 8]
FullResolutionChannels = 2
"""
STAGES = """
[self_supervised]
steps = 4
patch = [16, 16, 16]
log_every = 2
checkpoint_every = 2
validate_every = 2
workers = 0
ahead = 0
[supervised]
steps = 6
patch = [16, 16, 16]
log_every = 2
checkpoint_every = 2
ahead = 0
"""


def ball(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """The bright ball of a phantom as its lesion mask."""
    data = (np.asarray(image.dataobj) > 150).astype(np.uint8)
    mask = nib.Nifti1Image(data, image.affine)
    mask.set_sform(image.affine, 1)
    return mask


def without_contrast() -> nib.Nifti1Image:
    """A T1w whose tissues are equally bright: no head can be made of it."""
    image = brain_image()
    data = np.asarray(image.dataobj)
    noise = np.random.default_rng(0).normal(100, 1, data.shape)
    return nib.Nifti1Image(
        np.where(data > np.percentile(data, 60), noise, 0).astype(np.float32), image.affine
    )


def replace_silently(path, image: nib.Nifti1Image) -> None:
    """Another image under the same name, with the former time stamp."""
    before = path.stat()
    path.write_bytes(image.to_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def configuration(tmp_path, data: str, *, stages: str = STAGES, name: str = 'c.toml'):
    path = tmp_path / name
    path.write_text(f'{NETWORK}[data]\n{data}\n{stages}')
    return path


@pytest.fixture(scope='module')
def label_maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp('maps')
    for name in ('01', '02', '03'):
        image = nib.Nifti1Image(label_head(40), np.diag([1.0, 1, 1, 1]))
        nib.save(image, folder / f'sub-{name}_dseg.nii.gz')
    return folder


@pytest.fixture(scope='module')
def prepared_heads(label_maps, tmp_path_factory):
    """A prepared dataset without scans, and its configuration."""
    folder = tmp_path_factory.mktemp('packed')
    path = configuration(folder, f'label_maps = ["{label_maps}"]\nvalidation = ["sub-02"]')
    pack(read_config(path), folder / 'packed')
    return folder / 'packed', path


class TestPreparation:
    def test_people_go_where_the_configuration_puts_them(self, make_dataset, label_maps, tmp_path):
        data = make_dataset(
            [
                'sub-11/anat/sub-11_T1w.nii.gz',
                'sub-12/ses-2/anat/sub-12_ses-2_FLAIR.nii.gz',
                'sub-13/anat/sub-13_T1w.nii.gz',
                'sub-14/anat/sub-14_T1w.nii.gz',
                'sub-15/anat/sub-15_PDw.nii.gz',
            ]
        )
        path = configuration(
            tmp_path,
            f'unlabelled = ["{data}"]\nlabel_maps = ["{label_maps}"]\n'
            'hold_out = ["sub-13", "sub-01"]\nvalidation = ["sub-14"]',
        )
        shown = []
        pack(read_config(path), tmp_path / 'packed', progress=shown.append)
        packed = load_packed(tmp_path / 'packed')
        assert [scan.name for scan in packed.scans] == ['00-sub-11', '00-sub-12_ses-2']
        assert [scan.person for scan in packed.scans] == ['00-sub-11', '00-sub-12']
        assert [scan.name for scan in packed.validation_scans] == ['00-sub-14']
        assert [head.name for head in packed.heads] == ['02']
        assert [head.name for head in packed.validation_heads] == ['03']
        assert shown == ['02', '03', 'sub-11', 'sub-12_ses-2', 'sub-14']
        index = json.loads((tmp_path / 'packed' / 'pack.json').read_text())
        assert len(index['LeftOut']) == 1
        assert 'sub-15' in index['LeftOut'][0]
        for path in (tmp_path / 'packed').rglob('*'):
            assert 'sub-13' not in path.name
        flair = packed.scans[1].image[FLAIR]
        assert packed.scans[1].present == ONLY_FLAIR
        inside = from_bytes(torch.from_numpy(flair[packed.scans[1].brain]))
        assert abs(float(inside.median())) < 0.02
        assert flair.dtype == np.uint8
        assert packed.scans[1].brain.sum() == pytest.approx(1.25e6, rel=0.05)  # voxels of 1 mm

    def test_labels_come_along_on_the_same_grid(self, make_dataset, tmp_path):
        image = brain_image()
        data = make_dataset(
            {
                'sub-01/anat/sub-01_FLAIR.nii.gz': image,
                'sub-01/anat/sub-01_label-L_mask.nii.gz': ball(image),
                'sub-02/anat/sub-02_FLAIR.nii.gz': image,
            }
        )
        path = configuration(tmp_path, f'labelled = ["{data}"]')
        pack(read_config(path), tmp_path / 'packed')
        packed = load_packed(tmp_path / 'packed')
        (scan,) = packed.labelled
        drawn = float((np.asarray(ball(image).dataobj) > 0).sum()) * 4**3
        assert float(scan.label.sum()) == pytest.approx(drawn, rel=0.15)
        assert np.array_equal(scan.annotated, scan.brain)
        values = from_bytes(torch.from_numpy(scan.image[FLAIR])).numpy()
        bright = values > (values[scan.label].max() + np.median(values[scan.brain])) / 2
        assert (bright & scan.label).sum() > 0.9 * bright.sum()
        assert (bright & scan.label).sum() > 0.6 * scan.label.sum()
        left_out = json.loads((tmp_path / 'packed' / 'pack.json').read_text())['LeftOut']
        assert 'no lesion mask' in left_out[0]

    def test_simulated_scans_are_known_and_validate(self, make_dataset, tmp_path):
        image = brain_image()
        names = [f'sub-0{n}/anat/sub-0{n}_' for n in (1, 2)]
        files = {f'{name}FLAIR.nii.gz': image for name in names}
        data = make_dataset(files | {f'{name}label-L_mask.nii.gz': ball(image) for name in names})
        description = json.loads((data / 'dataset_description.json').read_text())
        description['GeneratedBy'] = [{'Name': 'ssl2 simulate'}]
        (data / 'dataset_description.json').write_text(json.dumps(description))
        config = read_config(
            configuration(tmp_path, f'labelled = ["{data}"]\nvalidation = ["02"]')
        )
        pack(config, tmp_path / 'packed')
        packed = load_packed(tmp_path / 'packed')
        assert [scan.simulated for scan in packed.scans + packed.validation_scans] == [True, True]
        assert trained_on(packed) == '1 simulated scan with labels'
        assert trained_on(packed, labels=False) == '1 simulated scan without labels'
        unlabelled = replace(packed, scans=(replace(packed.scans[0], label=None),))
        assert trained_on(unlabelled) == '1 simulated scan without labels'
        assert trained_on(unlabelled, unlabelled=False) == ''
        validation = whole_validation(config, packed, 'cpu')
        assert len(validation.volumes) == 1
        assert int(validation.volumes[0].label.sum()) == packed.validation_scans[0].label.sum()

    def test_a_label_on_no_images_grid_is_refused(self, make_dataset, tmp_path):
        data = make_dataset(
            {
                'sub-01/anat/sub-01_FLAIR.nii.gz': brain_image(),
                'sub-01/anat/sub-01_label-L_mask.nii.gz': ball(brain_image(5.0)),
            }
        )
        path = configuration(tmp_path, f'labelled = ["{data}"]')
        with pytest.raises(NoInputError, match='fits no image of its session'):
            pack(read_config(path), tmp_path / 'packed')

    def test_preparation_is_resumed_and_other_data_are_refused(self, make_dataset, tmp_path):
        data = make_dataset(['sub-01/anat/sub-01_T1w.nii.gz', 'sub-02/anat/sub-02_T1w.nii.gz'])
        config = read_config(configuration(tmp_path, f'unlabelled = ["{data}"]'))
        folder = tmp_path / 'packed'

        def stop(name):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pack(config, folder, progress=stop)
        with pytest.raises(NoInputError, match='pack.json is missing'):
            load_packed(folder)
        shown = []
        pack(config, folder, progress=shown.append)
        assert shown == ['sub-02']
        pack(config, folder, progress=stop)
        other = configuration(
            tmp_path, f'unlabelled = ["{data}"]\nhold_out = ["01"]', name='other.toml'
        )
        with pytest.raises(UsageError, match='another configuration'):
            pack(read_config(other), folder)
        for name in ('pack.json', 'contents.json'):
            text = (folder / name).read_text()
            (folder / name).write_text('[1]')
            with pytest.raises(DataError, match=rf'{name}: not readable JSON .* Remove the'):
                pack(config, folder)
            (folder / name).write_text(text)

    def test_another_image_or_label_of_an_old_name_is_prepared_again(self, make_dataset, tmp_path):
        image = brain_image()
        names = [f'sub-0{n}/anat/sub-0{n}' for n in (1, 2, 3)]
        files = {f'{name}_FLAIR.nii': image for name in names}
        data = make_dataset(files | {f'{name}_label-L_mask.nii': ball(image) for name in names})
        config = read_config(configuration(tmp_path, f'labelled = ["{data}"]'))
        folder = tmp_path / 'packed'

        def packed_now() -> list[str]:
            shown: list[str] = []
            pack(config, folder, progress=shown.append)
            return shown

        assert packed_now() == ['sub-01', 'sub-02', 'sub-03']
        assert packed_now() == []
        first = load_packed(folder)
        replace_silently(data / f'{names[0]}_FLAIR.nii', brain_image(seed=5))
        assert packed_now() == ['sub-01']
        second = load_packed(folder)
        assert first.names() != second.names()  # a training that began with the old is another
        assert (first.scans[0].image != second.scans[0].image).any()
        moved = np.roll(np.asarray(ball(image).dataobj), 2, axis=0)
        replace_silently(
            data / f'{names[1]}_label-L_mask.nii', nib.Nifti1Image(moved, image.affine)
        )
        assert packed_now() == ['sub-02']
        (data / f'{names[1]}_FLAIR.json').write_text('{"SkullStripped": true}')
        assert packed_now() == ['sub-02']
        (data / f'{names[1]}_FLAIR.json').write_text(
            '{"SkullStripped": true, "MagneticFieldStrength": 7}'
        )
        assert packed_now() == ['sub-02']  # another correction of the bias field
        shutil.rmtree(data / 'sub-03')
        assert packed_now() == []
        assert [scan.person for scan in load_packed(folder).scans] == ['00-sub-01', '00-sub-02']
        data.rename(tmp_path / 'gone')  # it moves to where its sources are missing
        assert packed_now() == []
        (folder / 'train' / 'scan-00-sub-02.npz').unlink()  # a copy that ended early
        with pytest.raises(DataError, match='not complete: scan-00-sub-02.npz is missing'):
            load_packed(folder)
        (folder / 'contents.json').unlink()
        assert [scan.person for scan in load_packed(folder).scans] == ['00-sub-01']

    def test_another_label_map_makes_other_heads(self, label_maps, tmp_path):
        maps = tmp_path / 'maps'
        shutil.copytree(label_maps, maps)
        config = read_config(configuration(tmp_path, f'label_maps = ["{maps}"]'))
        shown: list[str] = []
        for expected in (['01', '02', '03'], []):
            pack(config, tmp_path / 'packed', progress=shown.append)
            assert shown == expected
            shown.clear()
        shutil.copy(maps / 'sub-01_dseg.nii.gz', maps / 'sub-04_dseg.nii.gz')
        pack(config, tmp_path / 'packed', progress=shown.append)
        assert shown == ['01', '02', '03', '04']
        heads = tmp_path / 'packed' / 'train' / 'heads.npz'
        for path in (heads, tmp_path / 'packed' / 'validation' / 'heads.npz'):
            path.unlink()  # a copy that ended early
            with pytest.raises(DataError, match=r'not complete: \w+/heads.npz is missing'):
                load_packed(tmp_path / 'packed')
            pack(config, tmp_path / 'packed')
            assert path.is_file()

    def test_heads_of_another_preparation_are_made_again(self, label_maps, monkeypatch, tmp_path):
        shown: list[str] = []
        made = read_config(configuration(tmp_path, f'label_maps = ["{label_maps}"]'))
        for version, expected in ((5, ['01', '02', '03']), (6, ['01', '02', '03']), (6, [])):
            monkeypatch.setattr(contents, 'PREPARATION', version)
            pack(made, tmp_path / 'packed', progress=shown.append)
            assert shown == expected
            shown.clear()

    def test_heads_that_others_prepared_are_taken_as_they_are(self, prepared_heads, monkeypatch):
        path = prepared_heads[0] / 'train' / 'heads.npz'
        keys = set()
        for version in (5, 6):
            monkeypatch.setattr(contents, 'PREPARATION', version)
            keys.add(contents.heads_key(Data(heads=path), [path], str))
        assert len(keys) == 1

    @pytest.mark.parametrize(
        'parcels',
        [{251: 2, 255: 2, 80: 2, 82: 42}, {1035: 3, 2002: 42, 12175: 42}, {3005: 2, 4010: 41}],
    )
    def test_parcels_and_what_is_ill_are_the_structure_around_them(self, parcels, tmp_path):
        finer = label_head(40).astype(np.int32)
        for parcel, structure in parcels.items():
            x, y, z = np.argwhere(finer == structure)[::3].T
            finer[x, y, z] = parcel
        coarse = finer.copy()
        for parcel, structure in parcels.items():
            coarse[finer == parcel] = structure
        for name, labels in (('finer', finer), ('coarse', coarse)):
            (tmp_path / name).mkdir()
            nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / name / 'sub-01_aseg.nii.gz')
        (one,), (other,) = (heads_from_label_maps(tmp_path / name) for name in ('finer', 'coarse'))
        assert np.array_equal(one.groups, other.groups)

    @pytest.mark.parametrize(
        ('change', 'message'),
        [
            (lambda labels: np.where(labels == 2, 2.4, labels), 'not whole numbers'),
            (lambda labels: np.where(np.indices(labels.shape)[0], labels, np.nan), 'not whole'),
            (lambda labels: np.where(labels == 10, 99, labels), 'unknown labels: 99'),
            (lambda labels: np.where(np.isin(labels, (3, 42)), 2, labels), 'has no cortex'),
            (lambda labels: np.where(np.isin(labels, (2, 41)), 3, labels), 'has no white matter'),
        ],
    )
    def test_a_label_map_that_cannot_be_used_is_named(self, change, message, tmp_path):
        """Without a name the file among hundreds would have to be looked for."""
        for folder in ('maps', 'masks'):
            (tmp_path / folder).mkdir()
        odd = change(label_head(40, skull=False)).astype(np.float32)
        path = tmp_path / 'maps' / 'sub-01_dseg.nii.gz'
        nib.save(nib.Nifti1Image(odd, np.eye(4)), path)
        mask = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4))
        nib.save(mask, tmp_path / 'masks' / 'a.nii.gz')
        data = f'label_maps = ["{path.parent}"]\nlesion_masks = "{tmp_path / "masks"}"'
        with pytest.raises(DataError, match=message) as raised:
            pack(read_config(configuration(tmp_path, data)), tmp_path / 'packed')
        assert raised.value.path == str(path)

    @pytest.mark.parametrize('damaged', ['scan-00-sub-11.npz', 'heads.npz'])
    def test_a_damaged_file_is_prepared_again_once_it_is_removed(
        self, damaged, label_maps, make_dataset, tmp_path
    ):
        scans = make_dataset(['sub-11/anat/sub-11_T1w.nii.gz'])
        data = f'label_maps = ["{label_maps}"]\nunlabelled = ["{scans}"]'
        config = read_config(configuration(tmp_path, data))
        pack(config, tmp_path / 'packed')
        path = tmp_path / 'packed' / 'train' / damaged
        before = path.read_bytes()
        middle = len(before) // 2
        for content in (before[:middle], before[:middle] + bytes(200) + before[middle + 200 :]):
            path.write_bytes(content)
            with pytest.raises(DataError, match='cannot be read') as raised:
                load_packed(tmp_path / 'packed')
            assert raised.value.path == str(path)
            assert 'Remove the file, and prepare' in raised.value.advice
        path.unlink()
        pack(config, tmp_path / 'packed')
        load_packed(tmp_path / 'packed')

    def test_damaged_heads_are_prepared_again_where_a_t1w_was_refused(
        self, label_maps, make_dataset, tmp_path
    ):
        scans = make_dataset({'sub-09/anat/sub-09_T1w.nii.gz': without_contrast()})
        data = f'label_maps = ["{label_maps}"]\nhealthy = ["{scans}"]'
        config = read_config(configuration(tmp_path, data))
        pack(config, tmp_path / 'packed')
        path = tmp_path / 'packed' / 'train' / 'heads.npz'
        made = path.read_bytes()
        path.write_bytes(made[: len(made) // 2])
        with pytest.raises(DataError, match='cannot be read'):
            load_packed(tmp_path / 'packed')
        path.unlink()
        pack(config, tmp_path / 'packed')
        assert path.read_bytes() == made
        assert len(load_packed(tmp_path / 'packed').heads) == 2
        index = json.loads((tmp_path / 'packed' / 'pack.json').read_text())
        assert 'cannot be separated by intensity' in index['LeftOut'][0]

    def test_a_t1w_that_is_refused_is_looked_at_once(self, make_dataset, tmp_path):
        scans = make_dataset({'sub-09/anat/sub-09_T1w.nii.gz': without_contrast()})
        config = read_config(configuration(tmp_path, f'healthy = ["{scans}"]'))
        shown: list[str] = []
        for _ in range(2):
            pack(config, tmp_path / 'packed', progress=shown.append)
        assert shown == ['09']

    @pytest.mark.parametrize(
        'left',
        ['train/scan-00-sub-99.npz', 'validation/scan-00-sub-11.npz', 'validation/heads.npz'],
    )
    def test_files_of_another_preparation_are_not_trained_on(self, left, make_dataset, tmp_path):
        scans = make_dataset(['sub-11/anat/sub-11_T1w.nii.gz'])
        config = read_config(configuration(tmp_path, f'unlabelled = ["{scans}"]'))
        pack(config, tmp_path / 'packed')
        (scan,) = load_packed(tmp_path / 'packed').scans
        place = tmp_path / 'packed' / left
        if place.name == 'heads.npz':
            save_heads(place, [make_head('01', label_head(40))])
        else:
            name = place.name.removeprefix('scan-').removesuffix('.npz')
            save_scan(place.parent, replace(scan, name=name))
        with pytest.raises(DataError, match=f'files of another preparation, for example {left}'):
            load_packed(tmp_path / 'packed')
        (tmp_path / 'packed' / 'contents.json').unlink()
        load_packed(tmp_path / 'packed')

    def test_a_left_over_scan_of_a_session_that_is_left_out_is_named(self, make_dataset, tmp_path):
        files = {'sub-11/anat/sub-11_T1w.nii.gz': brain_image()}
        data = make_dataset(files | {'sub-12/anat/sub-12_T1w.nii.gz': b'nothing'})
        pack(read_config(configuration(tmp_path, f'unlabelled = ["{data}"]')), tmp_path / 'packed')
        (scan,) = load_packed(tmp_path / 'packed').scans
        save_scan(tmp_path / 'packed' / 'train', replace(scan, name='00-sub-12'))
        with pytest.raises(DataError, match='for example train/scan-00-sub-12.npz'):
            load_packed(tmp_path / 'packed')

    def test_heads_of_validation_alone_are_prepared_once(self, label_maps, make_dataset, tmp_path):
        maps = tmp_path / 'maps'
        maps.mkdir()
        shutil.copy(label_maps / 'sub-02_dseg.nii.gz', maps)
        scans = make_dataset(['sub-11/anat/sub-11_T1w.nii.gz'])
        config = read_config(
            configuration(
                tmp_path,
                f'label_maps = ["{maps}"]\nvalidation = ["sub-02"]\nunlabelled = ["{scans}"]',
            )
        )
        shown: list[str] = []
        pack(config, tmp_path / 'packed', progress=shown.append)
        assert '02' in shown
        shown.clear()
        pack(config, tmp_path / 'packed', progress=shown.append)
        assert '02' not in shown

    def test_the_only_person_is_trained_on_with_all_sessions(self, tmp_path):
        maps = tmp_path / 'maps'
        maps.mkdir()
        people = (('01', '1'), ('01', '2'), ('02', '1'), ('02', '2'))
        for count, expected in ((2, (['01'] * 2, [])), (4, (['01'] * 2, ['02'] * 2))):
            for person, session in people[:count]:
                image = nib.Nifti1Image(label_head(40), np.eye(4))
                nib.save(image, maps / f'sub-{person}_ses-{session}_dseg.nii.gz')
            config = read_config(configuration(tmp_path, f'label_maps = ["{maps}"]'))
            pack(config, tmp_path / 'packed')
            packed = load_packed(tmp_path / 'packed')
            groups = (packed.heads, packed.validation_heads)
            assert tuple([head.name for head in group] for group in groups) == expected
            check_data(config, packed, tmp_path)
            assert 'anatomy of 1 person with' in trained_on(packed)

    def test_label_maps_that_are_not_named_as_in_bids_are_people_of_their_own(self, tmp_path):
        for name in ('training_seg_01.nii.gz', 'training_seg_02.nii.gz'):
            assert name_of(tmp_path / name) == name.partition('.')[0]
        assert name_of(tmp_path / 'sub-07_seg.nii.gz') == '07'

    def test_mistakes_are_named(self, make_dataset, tmp_path):
        empty = make_dataset(['sub-01/anat/sub-01_PDw.nii.gz'])
        cases = [
            ('', UsageError, 'names no training data'),
            (f'unlabelled = ["{tmp_path}/nowhere"]', NoInputError, 'no such folder'),
            (f'unlabelled = ["{empty}"]', NoInputError, 'no session can be used'),
            (f'label_maps = ["{tmp_path}"]', NoInputError, 'no image'),
        ]
        for number, (data, kind, message) in enumerate(cases):
            config = read_config(configuration(tmp_path, data))
            with pytest.raises(kind, match=message):
                pack(config, tmp_path / str(number))

    def test_lesion_masks_of_held_out_participants_are_not_used(self, label_maps, tmp_path):
        folder = tmp_path / 'masks'
        folder.mkdir()
        for place, subject in enumerate(('01', '99', '98')):
            mask = np.zeros((8, 8, 8), np.uint8)
            mask[place] = 1
            path = folder / f'sub-{subject}_space-MNI152_label-lesion_mask.nii.gz'
            nib.save(nib.Nifti1Image(mask, np.eye(4)), path)
        assert len(read_lesion_masks(folder)[0]) == 3
        (one, two), _ = read_lesion_masks(folder, hold_out=('99',))
        assert one[0].all()
        assert two[2].all()
        with pytest.raises(NoInputError, match='of held-out participants alone'):
            read_lesion_masks(folder, hold_out=('01', '98', '99'))
        data = f'label_maps = ["{label_maps}"]\nlesion_masks = "{folder}"\n'
        for held, wrong in (('hold_out = ["sub-99"]', ''), ('hold_out = ["97"]', '97')):
            config = read_config(configuration(tmp_path, data + held))
            if wrong:
                message = rf'is named {wrong}\. .* 01, 02, 03\. .* lesion masks, too: 98, 99\.'
                with pytest.raises(NothingSelectedError, match=message):
                    check_names(config.data)
            else:
                check_names(config.data)

    def test_an_unknown_participant_is_named(self, label_maps, tmp_path):
        data = f'label_maps = ["{label_maps}"]\nhold_out = ["sub-77"]'
        with pytest.raises(NothingSelectedError, match='no participant is named sub-77') as raised:
            pack(read_config(configuration(tmp_path, data)), tmp_path / 'packed')
        assert 'There are: 01, 02, 03' in raised.value.advice
        assert not (tmp_path / 'packed').exists()  # before anything is prepared


@pytest.fixture(scope='module')
def finished(prepared_heads, tmp_path_factory):
    packed, path = prepared_heads
    out = tmp_path_factory.mktemp('out')
    words = ['pretrain', str(path), str(out), '--device', 'cpu', '--data', str(packed)]
    assert main(words) == 0
    return out


class TestRun:
    def test_the_result_is_a_model_that_segments(self, finished):
        card = read_card(finished)
        assert card.channels == CHANNELS
        assert card.required == (('FLAIR',), ('T1w',))
        assert 0.1 <= card.threshold <= 0.7
        assert 'anatomy of 1 person not' in card.content['Validation']['Data']
        assert 'anatomy of 2 people' in card.content['TrainedOn']
        assert card.content['Stages']['self_supervised']['Pretext'] == 'masked'
        shape = (40, 40, 40)
        image = np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)
        mask = np.zeros(shape, np.uint8)
        mask[8:-8, 8:-8, 8:-8] = 1
        result = segment(
            {'FLAIR': Volume(image, np.eye(4), 'FLAIR')},
            {},
            Volume(mask, np.eye(4)),
            card,
            load_network(card),
            precision='float32',
        )
        assert result.probability.shape == shape
        assert np.isfinite(result.probability.data).all()

    def test_the_first_stage_is_a_model_to_start_from_that_marks_nothing(self, finished):
        card = read_card(finished / 'self_supervised')
        assert card.content['Stages'].keys() == {'self_supervised'}
        assert card.network['OutputChannels'] == len(CHANNELS)
        assert read_weights(card)['out.weight'].shape[0] == len(CHANNELS)
        with pytest.raises(UnavailableError, match='not to mark lesions'):
            load_network(card)

    def test_curves_and_configuration_lie_beside_it(self, finished, prepared_heads):
        assert (finished / 'config.toml').read_text() == prepared_heads[1].read_text()
        lines = (finished / 'curves.csv').read_text().splitlines()
        assert lines[0].startswith('stage,step,rate,loss,hidden')
        assert 'validation_hidden' in lines[0]
        assert lines[-1].startswith('2,6,')
        assert 'supervised: validation dice' in (finished / 'curves.svg').read_text()

    def test_a_signal_is_an_exit_code_and_the_same_command_resumes(
        self, prepared_heads, finished, tmp_path, monkeypatch
    ):
        packed, path = prepared_heads
        words = ['pretrain', str(path), str(tmp_path), '--device', 'cpu', '--data', str(packed)]
        counted = []

        def until(number, code):
            def update(stage, done, steps, latest):
                counted.append((stage, done))
                if len(counted) == number:
                    os.kill(os.getpid(), code)

            return update

        # within a stage, just before its last step, just before the last of all
        for number, code in ((1, signal.SIGINT), (3, signal.SIGUSR1), (9, signal.SIGTERM)):
            monkeypatch.setattr(pretrain_tool, 'lines', lambda n=number, c=code: until(n, c))
            assert main(words) == 128 + code
        monkeypatch.setattr(pretrain_tool, 'lines', lambda: until(-1, 0))
        assert main(words) == 0
        assert len(set(counted)) == len(counted) == 4 + 6
        for name in ('weights.safetensors', 'model.json'):
            assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()

    def test_a_run_is_resumed_elsewhere_from_its_newest_checkpoint(
        self, prepared_heads, finished, tmp_path
    ):
        packed, path = prepared_heads
        before = checkpoint.checkpoints(finished / 'supervised')[1]  # two steps before the end
        (tmp_path / 'supervised').mkdir()
        shutil.copy(before, tmp_path / 'supervised')
        words = [str(path), str(tmp_path), '--device', 'cpu', '--data', str(packed)]
        assert main(['pretrain', *words]) == 0
        assert not (tmp_path / 'self_supervised').exists()
        assert checkpoint.newest(tmp_path / 'supervised')[1]['history']['step'] == 6
        moved, stayed = (read_weights(read_card(folder)) for folder in (tmp_path, finished))
        assert moved.keys() == stayed.keys()
        assert all(torch.equal(moved[name], stayed[name]) for name in stayed)

    def test_it_runs_where_nothing_but_torch_is_installed(self, prepared_heads, tmp_path):
        packed, path = prepared_heads
        missing = ['bids', 'nipype', 'SimpleITK', 'nilearn', 'deepbet', 'PIL', 'jinja2', 'rich']
        missing += ['markupsafe', 'tomli_w', 'psutil', 'yaml', 'pandas']
        code = (
            'import sys\n'
            f'for name in {missing}: sys.modules[name] = None\n'
            'from ssl2_bids.cli.tools.app import main\n'
            'sys.exit(main(sys.argv[1:]))'
        )
        words = ['pretrain', str(path), str(tmp_path), '--device', 'cpu', '--data', str(packed)]
        done = subprocess.run(
            [sys.executable, '-c', code, *words],
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert 'supervised: step 6 of 6' in done.stderr
        read_card(tmp_path)

    def test_nothing_to_learn_from_is_reported(self, make_dataset, tmp_path):
        data = make_dataset(['sub-01/anat/sub-01_T1w.nii.gz'])
        stages = '[self_supervised]\nsteps = 0\n[supervised]\nsteps = 2\npatch = [16, 16, 16]'
        path = configuration(tmp_path, f'unlabelled = ["{data}"]', stages=stages)
        assert main(['pretrain', str(path), str(tmp_path / 'out'), '--device', 'cpu']) == 66

    def test_a_second_stage_without_data_is_reported_before_the_first(
        self, make_dataset, tmp_path, capsys
    ):
        data = make_dataset(['sub-01/anat/sub-01_T1w.nii.gz'])
        path = configuration(tmp_path, f'unlabelled = ["{data}"]')
        out = tmp_path / 'out'
        assert main(['pretrain', str(path), str(out), '--device', 'cpu']) == 66
        assert 'no training data for the supervised stage' in capsys.readouterr().err
        assert not (out / 'self_supervised').exists()

    def test_labels_without_annotated_voxels_are_no_training_data(self, tmp_path):
        """The extent of a label can be empty, or lie outside the brain."""
        config = read_config(configuration(tmp_path, ''))
        empty, brain = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
        image = np.ones((len(CHANNELS), 4, 4, 4), np.uint8)
        scan = Participant('a', image, ONLY_FLAIR, brain, empty, empty, '00-sub-01')
        with pytest.raises(NoInputError, match='for the supervised stage'):
            check_data(config, Packed((), (scan,), (), ()), tmp_path)
        known = replace(scan, annotated=brain)
        check_data(config, Packed((), (scan, known), (), ()), tmp_path)
        with pytest.raises(NoInputError, match='for the self-supervised stage'):
            check_data(config, Packed((), (), (), ()), tmp_path)

    def test_validation_without_labels_fits_no_threshold_and_is_named(
        self, make_dataset, tmp_path, caplog
    ):
        image = brain_image()
        names = [f'sub-0{n}/anat/sub-0{n}_' for n in (1, 2)]
        files = {f'{name}FLAIR.nii.gz': image for name in names}
        data = make_dataset(files | {f'{names[0]}label-L_mask.nii.gz': ball(image)})
        other = tmp_path / 'unlabelled'
        shutil.copytree(data, other)
        stages = '[self_supervised]\nsteps = 0\n[supervised]\nsteps = 1\npatch = [16, 16, 16]\n'
        path = configuration(
            tmp_path,
            f'labelled = ["{data}"]\nunlabelled = ["{other}"]\nvalidation = ["sub-02"]',
            stages=stages + 'ahead = 0',
        )
        assert main(['pretrain', str(path), str(tmp_path / 'out'), '--device', 'cpu']) == 0
        assert 'the threshold is not fitted, it is 0.5' in caplog.text
        assert read_card(tmp_path / 'out').threshold == 0.5

    def test_validation_without_a_lesion_fits_no_threshold(self, tmp_path, caplog):
        """A label can be of a healthy person, and annotated where no lesion is."""
        config = read_config(configuration(tmp_path, ''))
        described = {'InputChannels': len(CHANNELS), 'OutputChannels': 1}
        network = new_network(described | config.network)
        brain = np.ones((32, 32, 32), bool)
        none = np.zeros_like(brain)
        image = np.ones((len(CHANNELS), 32, 32, 32), np.uint8)
        scan = Participant('a', image, ONLY_FLAIR, brain, none, brain, '00-sub-01')
        history = {'supervised': History(rows=[{'step': 1, 'loss': 2.0}], step=1)}
        conclude(config, Packed((), (), (), (scan,)), tmp_path / 'out', network, history, 'cpu')
        assert 'no scan of validation has a lesion: the threshold is not fitted' in caplog.text
        card = read_card(tmp_path / 'out')
        assert card.threshold == 0.5
        assert 'Validation' not in card.content
        lesion = none.copy()
        lesion[8:12, 8:12, 8:12] = True
        both = Packed((), (), (), (scan, replace(scan, name='b', label=lesion)))
        conclude(config, both, tmp_path / 'two', network, history, 'cpu')
        assert read_card(tmp_path / 'two').content['Validation']['Data'] == (
            '2 real scans with labels, not trained on; 1 scan without a lesion left out'
        )

    def test_a_start_from_a_model_and_tangs_tasks(self, prepared_heads, finished, tmp_path):
        packed, _ = prepared_heads
        stages = (
            '[self_supervised]\nsteps = 2\npretext = "tang"\nview = 20\npatch = [32, 32, 32]\n'
            'ahead = 0\n[supervised]\nsteps = 0'
        )
        path = configuration(tmp_path, '', stages=stages)
        start = tmp_path / 'start'
        shutil.copytree(finished, start)
        path.write_text(f'start = "{start}"\n' + path.read_text())
        words = [str(path), str(tmp_path / 'out'), '--device', 'cpu', '--data', str(packed)]
        assert main(['pretrain', *words]) == 0
        head = (tmp_path / 'out' / 'curves.csv').read_text().splitlines()[0]
        assert 'inpainting,rotation,contrast' in head
        assert not (tmp_path / 'out' / 'model.json').exists()
        card = json.loads((start / 'model.json').read_text())
        first = tmp_path / 'out' / 'self_supervised' / 'model.json'
        trained_on = json.loads(first.read_text())['TrainedOn']
        assert trained_on.startswith(f'{card["TrainedOn"]}; then images simulated')
        (start / 'model.json').write_text(json.dumps(card | {'Threshold': 0.123}))
        assert main(['pretrain', *words]) == 64  # another model to start from, in the same place

    def test_prepared_data_are_not_prepared(self, prepared_heads, tmp_path):
        packed, path = prepared_heads
        words = ['pretrain', str(path), str(tmp_path / 'x'), '--pack', '--data', str(packed)]
        assert main(words) == 64

    def test_members_of_a_committee_are_calibrated(self, prepared_heads, tmp_path):
        packed, _ = prepared_heads
        member = '{ Type = "fast_unet", Channels = [4, 8], FullResolutionChannels = 2 }'
        path = tmp_path / 'c.toml'
        path.write_text(
            'seed = 4\nwindow = [32, 32, 32]\n'  # a seed that draws large lesions for validation
            f'[network]\nType = "committee"\nMembers = [{member}, {member}]\n'
            + STAGES.replace('steps = 4', 'steps = 0')
        )
        out = tmp_path / 'out'
        words = [str(path), str(out), '--device', 'cpu', '--data', str(packed)]
        assert main(['pretrain', *words]) == 0
        network = load_network(read_card(out))
        assert len(set(map(tuple, network.calibration.tolist()))) == 2
        validation = whole_validation(read_config(path), load_packed(packed), 'cpu')
        for number, member in enumerate(network.members):
            validation(member)
            fitted = calibrate_members([validation.probabilities], validation.volumes)[0]
            # near: the voxels depend on the marks of both members, and weights are rounded
            assert tuple(network.calibration[number].tolist()) == pytest.approx(fitted, abs=0.3)

    @pytest.mark.parametrize(
        ('words', 'code', 'message'),
        [
            (['{tmp}/nope.toml', '{tmp}/o'], 66, 'no such configuration'),
            (['{tmp}/bad.toml', '{tmp}/o'], 64, '"nam" is unknown'),
            (['{tmp}/good.toml', '{tmp}/o', '--data', '{tmp}'], 66, 'pack.json is missing'),
            (['{tmp}/good.toml', '{tmp}/o', '--device', 'tpu'], 64, 'not one of auto'),
            (['{tmp}/good.toml'], 64, 'OUT'),
        ],
    )
    def test_mistakes_have_their_exit_codes(self, tmp_path, capsys, words, code, message):
        (tmp_path / 'bad.toml').write_text('nam = 1')
        (tmp_path / 'good.toml').write_text('')
        given = [word.format(tmp=tmp_path) for word in words]
        assert main(['pretrain', *given]) == code
        assert message in capsys.readouterr().err

    def test_a_network_that_cannot_be_built_is_named(self, prepared_heads, tmp_path, capsys):
        packed, _ = prepared_heads
        path = tmp_path / 'c.toml'
        path.write_text('[network]\nType = "fast_unet"\nChannels = [4, 8]\n' + STAGES)
        words = [str(path), str(tmp_path / 'out'), '--device', 'cpu', '--data', str(packed)]
        assert main(['pretrain', *words]) == 64
        assert 'FullResolutionChannels' in capsys.readouterr().err

    @pytest.mark.parametrize('network', ['Channels = []', 'Channels = [4, "x", 4]'])
    def test_an_impossible_network_is_named_before_anything_is_prepared(
        self, label_maps, tmp_path, capsys, network
    ):
        path = tmp_path / 'c.toml'
        path.write_text(
            f'[network]\nType = "fast_unet"\nFullResolutionChannels = 2\n{network}\n'
            f'[data]\nlabel_maps = ["{label_maps}"]\n' + STAGES
        )
        words = [str(path), str(tmp_path / 'out'), '--device', 'cpu', '--pack']
        assert main(['pretrain', *words]) == 64
        assert 'network' in capsys.readouterr().err
        assert not (tmp_path / 'out' / 'packed').exists()

    def test_a_resume_that_is_refused_changes_nothing(
        self, prepared_heads, finished, tmp_path, capsys
    ):
        packed, path = prepared_heads
        shutil.copytree(finished, tmp_path / 'out')
        other = tmp_path / 'other.toml'
        other.write_text('seed = 7\n' + path.read_text())
        before = digests(tmp_path / 'out')
        words = [str(tmp_path / 'out'), '--device', 'cpu', '--data', str(packed)]
        assert main(['pretrain', str(other), *words]) == 64
        assert 'started with another configuration' in capsys.readouterr().err
        assert digests(tmp_path / 'out') == before
        assert main(['pretrain', str(tmp_path / 'out' / 'config.toml'), *words]) == 0

    def test_a_resume_with_data_that_were_prepared_again_names_that_reason(
        self, prepared_heads, finished, monkeypatch, tmp_path, capsys
    ):
        _, path = prepared_heads
        shutil.copytree(finished, tmp_path / 'out')
        monkeypatch.setattr(contents, 'PREPARATION', contents.PREPARATION + 1)
        pack(read_config(path), tmp_path / 'packed')
        words = [str(tmp_path / 'out'), '--device', 'cpu', '--data', str(tmp_path / 'packed')]
        assert main(['pretrain', str(path), *words]) == 64
        message = ' '.join(capsys.readouterr().err.split())
        assert 'or with other prepared data' in message
        assert 'finish the run with the data and the version that it began with' in message

    @pytest.mark.parametrize(
        ('key', 'value', 'message'),
        [('hold_out', '03', 'participants in it'), ('validation', '01', 'trained on')],
    )
    def test_a_prepared_dataset_leaves_out_whom_the_configuration_leaves_out(
        self, prepared_heads, tmp_path, capsys, key, value, message
    ):
        packed, _ = prepared_heads
        path = configuration(tmp_path, f'{key} = ["{value}"]')
        words = [str(path), str(tmp_path / 'out'), '--device', 'cpu', '--data', str(packed)]
        assert main(['pretrain', *words]) == 64
        text = capsys.readouterr().err
        assert f'"data.{key}" names {value}' in text
        assert message in text

    def test_the_same_data_are_found_from_any_folder_and_by_the_copy_of_the_configuration(
        self, label_maps, tmp_path, monkeypatch, capsys
    ):
        shutil.copytree(label_maps, tmp_path / 'maps')
        stages = '[self_supervised]\nsteps = 1\npatch = [32, 32, 32]\n[supervised]\nsteps = 0'
        configuration(tmp_path, 'label_maps = ["maps"]', stages=stages)
        monkeypatch.chdir(tmp_path)
        assert main(['pretrain', 'c.toml', 'out', '--device', 'cpu']) == 0
        shown = capsys.readouterr().err
        assert 'prepared 01' in shown
        assert 'which marks no lesions, is in out/self_supervised' in shown
        assert '"../maps"' in (tmp_path / 'out' / 'config.toml').read_text()
        monkeypatch.chdir(tmp_path / 'maps')
        for words in (
            ['../c.toml', '../out'],
            [str(tmp_path / 'c.toml'), str(tmp_path / 'out')],
            ['../out/config.toml', '../out'],
        ):
            assert main(['pretrain', *words, '--device', 'cpu']) == 0
        assert 'prepared 01' not in capsys.readouterr().err

    def test_a_prepared_dataset_may_move_with_its_training(self, label_maps, tmp_path):
        stages = '[self_supervised]\nsteps = 1\npatch = [32, 32, 32]\n[supervised]\nsteps = 0'
        path = configuration(tmp_path, f'label_maps = ["{label_maps}"]', stages=stages)
        words = ['--device', 'cpu']
        assert main(['pretrain', str(path), str(tmp_path / 'out'), '--pack', *words]) == 0
        (tmp_path / 'deep').mkdir()
        (tmp_path / 'out').rename(tmp_path / 'deep' / 'new')
        new = tmp_path / 'deep' / 'new'
        assert main(['pretrain', str(path), str(new), *words]) == 0
        kept = (new / 'config.toml').read_bytes(), digests(new / 'self_supervised')
        other = tmp_path / 'other.toml'
        other.write_text('seed = 7\n' + path.read_text())
        assert main(['pretrain', str(other), str(new), *words]) == 64
        assert ((new / 'config.toml').read_bytes(), digests(new / 'self_supervised')) == kept

    def test_data_that_were_changed_for_a_while_resume(self, label_maps, tmp_path):
        shutil.copytree(label_maps, tmp_path / 'maps')
        stages = '[self_supervised]\nsteps = 1\npatch = [32, 32, 32]\n[supervised]\nsteps = 0'
        path = configuration(tmp_path, 'label_maps = ["maps"]', stages=stages)
        words = ['pretrain', str(path), str(tmp_path / 'out'), '--device', 'cpu']
        assert main(words) == 0
        more = tmp_path / 'maps' / 'sub-04_dseg.nii.gz'
        shutil.copy(tmp_path / 'maps' / 'sub-01_dseg.nii.gz', more)
        assert main(words) == 64
        more.unlink()
        assert main(words) == 0

    def test_data_of_another_project_are_not_replaced(self, label_maps, tmp_path, monkeypatch):
        for name in ('a', 'b'):
            shutil.copytree(label_maps, tmp_path / name / 'maps')
            configuration(tmp_path / name, 'label_maps = ["maps"]')
        (tmp_path / 'b/maps/sub-03_dseg.nii.gz').unlink()
        monkeypatch.chdir(tmp_path / 'a')
        assert main(['pretrain', 'c.toml', '../out', '--pack']) == 0
        before = digests(tmp_path / 'out')
        monkeypatch.chdir(tmp_path / 'b')
        assert main(['pretrain', 'c.toml', '../out', '--pack']) == 64
        assert digests(tmp_path / 'out') == before

    def test_data_are_prepared_without_the_model_to_start_from(self, label_maps, tmp_path):
        path = configuration(tmp_path, f'label_maps = ["{label_maps}"]')
        path.write_text('start = "elsewhere"\n' + path.read_text())
        assert main(['pretrain', str(path), str(tmp_path / 'out'), '--pack']) == 0
        assert main(['pretrain', str(path), str(tmp_path / 'out'), '--device', 'cpu']) == 69

    @pytest.mark.parametrize(
        ('text', 'kept'),
        [
            ('name = "maps"\n[data]\nlabel_maps = ["maps"]', '[\n    "../maps",\n]'),
            ('[data]\nlabel_maps = ["~/maps", \'heads\']', '["~/maps", \'../heads\']'),
        ],
    )
    def test_the_copy_of_a_configuration_has_equal_values(self, tmp_path, text, kept):
        (tmp_path / 'c.toml').write_text(text)
        (tmp_path / 'out').mkdir()
        keep_config(tmp_path / 'c.toml', tmp_path / 'out')
        copy = (tmp_path / 'out' / 'config.toml').read_text()
        assert f'label_maps = {kept}' in copy
        assert ('name = "maps"' in copy) == ('name' in text)

    def test_a_damaged_list_of_contents_is_named(self, prepared_heads, tmp_path, capsys):
        packed, path = prepared_heads
        shutil.copytree(packed, tmp_path / 'packed')
        (tmp_path / 'packed' / 'contents.json').write_text('{"heads.npz": 3}')
        words = [str(path), str(tmp_path / 'o'), '--data', str(tmp_path / 'packed')]
        assert main(['pretrain', *words, '--device', 'cpu']) == 65
        assert 'contents.json' in capsys.readouterr().err


def test_an_image_that_cannot_be_read_is_named(make_dataset, tmp_path):
    data = make_dataset(
        {
            'sub-01/anat/sub-01_T1w.nii.gz': b'nothing',
            'sub-02/anat/sub-02_T1w.nii.gz': brain_image(),
        }
    )
    path = configuration(tmp_path, f'unlabelled = ["{data}"]')
    pack(read_config(path), tmp_path / 'packed')
    left_out = json.loads((tmp_path / 'packed' / 'pack.json').read_text())['LeftOut']
    assert 'sub-01_T1w.nii.gz' in left_out[0]
    (tmp_path / 'packed' / 'train' / 'scan-00-sub-02.npz').write_bytes(b'x')
    with pytest.raises(DataError, match='cannot be read'):
        load_packed(tmp_path / 'packed')


def test_a_contrast_that_cannot_be_used_costs_itself(make_dataset, tmp_path):
    constant = brain_image()
    constant = nib.Nifti1Image(np.full(constant.shape, 7, np.float32), constant.affine)
    data = make_dataset(
        {
            'sub-01/anat/sub-01_T1w.nii.gz': constant,
            'sub-01/anat/sub-01_FLAIR.nii.gz': brain_image(),
        }
    )
    path = configuration(tmp_path, f'unlabelled = ["{data}"]')
    pack(read_config(path), tmp_path / 'packed')
    (scan,) = load_packed(tmp_path / 'packed').scans
    assert scan.present == ONLY_FLAIR


def test_simulated_scans_have_lesions_where_no_labelled_scan_of_validation_has_one():
    head = make_head('a', label_head(40))
    brain, mask = np.ones((32, 32, 32), bool), np.zeros((32, 32, 32), bool)
    image = np.ones((len(CHANNELS), *brain.shape), np.uint8)
    healthy = Participant('h', image, ONLY_FLAIR, brain, mask, brain, '00-sub-9')
    mask = mask.copy()
    mask[9:12, 9:12, 9:12] = True
    ill = replace(healthy, label=mask)
    drawn = []
    for scan in (healthy, ill):
        packed = Packed((), (), (head,), (scan,))
        volumes = whole_validation(Config(seed=1), packed, 'cpu').volumes
        drawn.append(has_lesion(volumes[1]))
    assert drawn == [True, False]


def test_a_stage_is_another_where_the_one_before_it_is(tmp_path):
    def identity(first: str) -> str:
        stages = f'[self_supervised]\n{first}\n[supervised]\nsteps = 2'
        config = read_config(configuration(tmp_path, 'label_maps = ["maps"]', stages=stages))
        return identity_of('supervised', config, Packed((), (), (), ()))

    starts = ['steps = 2', 'steps = 3', 'steps = 2\nbatch = 3', 'steps = 2\npretext = "tang"']
    assert len(set(map(identity, starts))) == 4
    assert identity('steps = 0') == identity('steps = 0\nbatch = 3')
