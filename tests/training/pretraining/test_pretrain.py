from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from label_phantom import label_head
from tiny_training import settings

from ssl2_bids.errors import DataError, NoInputError, UnavailableError, UsageError
from ssl2_bids.networks.registry import new_network
from ssl2_bids.synthesis.appearance import CHANNELS
from ssl2_bids.synthesis.heads import make_head
from ssl2_bids.synthesis.randomised import Patches, draw
from ssl2_bids.synthesis.ranges import Randomisation
from ssl2_bids.training.data.participants import (
    HIGH,
    LOW,
    Participant,
    from_bytes,
    load_scan,
    load_scans,
    read_participant,
    save_scan,
    stack_channels,
    to_bytes,
    write_participant,
)
from ssl2_bids.training.instances import lesion_cross_entropy, lesion_weights
from ssl2_bids.training.loop import train
from ssl2_bids.training.pretraining.batches import LabelledBatches, UnlabelledBatches
from ssl2_bids.training.pretraining.config import MIN_PATCH, Config, read_config, stages
from ssl2_bids.training.pretraining.tasks import (
    DEFAULT_THRESHOLD,
    SupervisedStage,
    WholeVolumes,
    choose_threshold,
    encoder_of,
    has_lesion,
    lesion_f1,
    start_from,
    volume_dice,
    whole_heads,
    whole_scans,
)

TINY = {'Type': 'fast_unet', 'Channels': [4, 8], 'FullResolutionChannels': 2}
PATCH = (16, 16, 16)
T1W = CHANNELS.index('T1w')


@pytest.fixture(scope='module')
def heads():
    return tuple(make_head(name, label_head(40)) for name in ('01', '02'))


def a_scan(name: str = '00-sub-07', seed: int = 0, *, label: bool = True) -> Participant:
    """A T1w whose value is the place along the first axis, and a FLAIR of noise; two lesions."""
    shape = (24, 28, 20)
    brain = np.zeros(shape, bool)
    brain[2:-2, 2:-2, 2:-2] = True
    along = np.broadcast_to(np.linspace(-1.5, 2.5, 24)[:, None, None], shape)
    noise = np.random.default_rng(seed).normal(0, 0.3, shape)
    images = {'T1w': to_bytes(along, brain), 'FLAIR': to_bytes(noise, brain)}
    if not label:
        return Participant(name, *stack_channels(images), brain, person=name)
    lesions = np.zeros(shape, bool)
    lesions[5:7, 6:8, 5:8] = lesions[15, 20, 10] = True
    known = brain & (np.arange(20) < 15)
    return Participant(name, *stack_channels(images), brain, lesions, known, name)


def new(outputs: int = 1, seed: int = 0) -> torch.nn.Module:
    return new_network({'InputChannels': 4, 'OutputChannels': outputs, **TINY}, seed=seed)


class TestScans:
    def test_a_byte_keeps_a_fiftieth_of_a_deviation_and_distinguishes_unknown_from_zero(self):
        values = np.linspace(LOW, HIGH, 1000, dtype=np.float32)
        known = np.ones(1000, bool)
        known[500] = False
        back = from_bytes(torch.from_numpy(to_bytes(values, known))).numpy()
        assert back[500] == 0
        assert np.abs(back - values)[known].max() < 0.01
        assert (to_bytes(values, known)[known] > 0).all()

    def test_a_prepared_scan_can_be_mapped_into_memory_too(self, tmp_path):
        write_participant(a_scan(), tmp_path)
        stored = from_bytes(torch.from_numpy(a_scan().image)).half().numpy()
        assert np.array_equal(read_participant(tmp_path).image, stored)

    @pytest.mark.parametrize('content', [b'', b'junk'])
    def test_a_damaged_array_of_a_participant_is_named(self, content, tmp_path):
        write_participant(a_scan(), tmp_path)
        (tmp_path / 'image.npy').write_bytes(content)
        with pytest.raises(DataError, match=r'cannot be read .* Prepare it again'):
            read_participant(tmp_path)

    def test_a_scan_is_stored_as_it_is(self, tmp_path):
        scan = a_scan()
        path = save_scan(tmp_path, scan)
        read = load_scan(path)
        for name in ('name', 'person', 'present', 'simulated'):
            assert getattr(read, name) == getattr(scan, name)
        for name in ('image', 'brain', 'label', 'annotated'):
            assert np.array_equal(getattr(read, name), getattr(scan, name))
        save_scan(tmp_path, a_scan('00-sub-08', label=False))
        assert [one.label is None for one in load_scans(tmp_path)] == [False, True]
        with open(tmp_path / 'scan-array.npz', 'wb') as stream:
            np.save(stream, np.zeros(3))
        (tmp_path / 'scan-empty.npz').touch()
        path.write_bytes(path.read_bytes()[:100])
        for damaged in (path, tmp_path / 'scan-array.npz', tmp_path / 'scan-empty.npz'):
            with pytest.raises(DataError, match='cannot be read'):
                load_scan(damaged)


class TestBatches:
    def settings(self, heads, **changes):
        given = {'randomisation': Randomisation(), 'batch': 3, 'patch': PATCH, 'seed': 4}
        return {'heads': heads, **given, **changes}

    def test_a_batch_is_a_function_of_seed_process_and_step(self, heads):
        scans = (a_scan(), a_scan('00-sub-08', 1))
        for kind in (LabelledBatches, UnlabelledBatches):
            one = kind(**self.settings(heads, scans=scans))[5]
            again = kind(**self.settings(heads, scans=scans))[5]
            for mine, theirs in zip(one, again, strict=True):
                assert torch.equal(mine, theirs)
            for change in ({'rank': 1}, {'seed': 5}):
                other = kind(**self.settings(heads, scans=scans, **change))[5]
                assert not torch.equal(one.image, other.image)
            assert not torch.equal(one.image, kind(**self.settings(heads, scans=scans))[6].image)

    def test_simulated_batches_are_those_of_the_engine(self, heads):
        batch = LabelledBatches(**self.settings(heads))[2]
        same = draw(heads, Randomisation(), seed=(4, 0, 2), batch=3, patch=PATCH)
        for mine, theirs in zip(batch, same, strict=True):
            assert torch.equal(mine, theirs)

    def test_real_and_simulated_are_mixed_as_asked(self, heads):
        scans = (a_scan(), a_scan('00-sub-08', 1))
        for share, low, high in ((0.0, 0, 0), (0.5, 0.3, 0.7)):
            batches = UnlabelledBatches(**self.settings(heads, scans=scans, real=share, batch=2))
            people = torch.cat([batches[step].person for step in range(30)])
            assert low <= float((people >= 2).float().mean()) <= high
        alone = UnlabelledBatches(**self.settings((), scans=scans))[0]
        assert alone.image.shape == (3, 4, *PATCH)
        assert set(alone.person.tolist()) <= {0, 1}
        assert alone.present.tolist() == [[True, True, False, False]] * 3

    @pytest.mark.parametrize('patch', [(16, 16, 16), (32, 16, 32)])
    def test_unlabelled_patches_are_as_the_scan_is_but_for_mirroring(self, patch):
        batches = UnlabelledBatches(**self.settings((), scans=(a_scan(),), patch=patch, batch=1))
        for step in range(6):
            one = batches[step]
            assert one.image.shape == (1, 4, *patch)
            inside = one.brain[0, 0] > 0
            assert ((one.image[0] != 0).any(0) <= inside).all()
            slope = one.image[0, T1W].diff(dim=0)[inside[1:] & inside[:-1]]
            assert slope.abs().mean() == pytest.approx(4 / 23, abs=0.01)
            assert len(slope.sign().unique()) == 1

    def test_labelled_patches_are_varied_and_often_around_a_lesion(self):
        scans = (a_scan(), a_scan('00-sub-08', 1))
        batch = LabelledBatches(**self.settings((), scans=scans, batch=40, patch=(8, 8, 8)))[0]
        assert (batch.label.flatten(1).amax(1) > 0).float().mean() > 0.5
        assert batch.present.any(1).all()
        assert len(batch.present.unique(dim=0)) == 3  # both contrasts, or one of them
        assert not batch.image[~batch.present].any()
        assert set(batch.label.unique().tolist()) == {0, 1}
        assert (batch.known <= batch.brain).all()

    def test_a_scan_without_an_annotated_voxel_gives_no_labelled_patch(self, heads):
        nothing = replace(a_scan(), annotated=np.zeros_like(a_scan().brain))
        batch = LabelledBatches(**self.settings(heads, scans=(nothing,), real=1.0))[0]
        assert batch.image.shape == (3, 4, *PATCH)

    def test_scans_of_one_person_have_one_number(self):
        scans = (a_scan('00-a'), a_scan('00-b'), replace(a_scan('00-c'), person='00-a'))
        batches = UnlabelledBatches(**self.settings((), scans=scans))
        assert [batches.person_number(n) for n in range(3)] == [0, 1, 0]


class TestSupervised:
    def test_unknown_voxels_do_not_matter(self, heads):
        batch = LabelledBatches(heads, Randomisation(), batch=2, patch=PATCH, seed=0)[0]
        known = batch.known.clone()
        known[..., :8] = 0
        batch = batch._replace(known=known)
        task = SupervisedStage(new(), lesion_cross_entropy=0.5)
        loss, terms = task.loss(batch, 0)
        flipped = torch.where(known > 0, batch.label, 1 - batch.label)
        again, _ = task.loss(batch._replace(label=flipped), 0)
        assert float(loss.detach()) == float(again.detach())
        assert 0 <= float(terms['dice']) <= 1

    def test_the_term_of_single_lesions_is_added_for_each_member(self):
        member = {'Type': 'fast_unet', 'Channels': [4, 8], 'FullResolutionChannels': 2}
        committee = new_network(
            {
                'Type': 'committee', 'InputChannels': 4, 'OutputChannels': 1,
                'Members': [member, {**member, 'FullResolutionChannels': 3}],
            },
            seed=0,
        )  # fmt: skip
        label = torch.zeros(2, 1, *PATCH)
        label[0, 0, 2, 2, 2] = label[1, 0, 6:12, 6:12, 6:12] = 1
        known = torch.ones_like(label)
        image = torch.randn(2, 4, *PATCH, generator=torch.Generator().manual_seed(0))
        batch = Patches(image, torch.ones(2, 4, dtype=torch.bool), known, label, known)
        plain, _ = SupervisedStage(committee).loss(batch, 0)
        more, _ = SupervisedStage(committee, lesion_cross_entropy=0.5).loss(batch, 0)
        weights = lesion_weights(label, known)
        terms = [lesion_cross_entropy(one(image), label, weights) for one in committee.members]
        torch.testing.assert_close(more - plain, 0.5 * (terms[0] + terms[1]) / 2)

    def test_the_encoder_rests_first_and_learns_then(self, heads, tmp_path):
        batches = LabelledBatches(heads, Randomisation(), batch=1, patch=PATCH, seed=0)
        for frozen, moved in ((4, False), (2, True)):
            network = new()
            before = [p.detach().clone() for p in encoder_of(network)]
            last = network.out.weight.detach().clone()
            task = SupervisedStage(network, frozen=frozen)
            train(task, batches, settings(4), tmp_path / str(frozen), device='cpu')
            after = encoder_of(network)
            assert len(after) == 15
            changed = [not torch.equal(*pair) for pair in zip(before, after, strict=True)]
            assert any(changed) == moved
            assert not torch.equal(last, network.out.weight)

    def test_members_start_without_the_calibration_of_others(self):
        described = {'Type': 'committee', 'InputChannels': 4, 'OutputChannels': 1}
        first, second = (
            new_network({**described, 'Members': [TINY, TINY]}, seed=seed) for seed in (0, 1)
        )
        first.calibration.copy_(torch.tensor([[2.0, -1.0], [0.5, 1.0]]))
        start_from(second, first.state_dict())
        assert second.calibration.tolist() == [[1, 0], [1, 0]]
        pairs = zip(first.parameters(), second.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)

    def test_a_stage_starts_from_the_one_before_but_for_the_last_layer(self):
        first, second = new(outputs=4, seed=1), new(outputs=1, seed=2)
        last = second.out.weight.detach().clone()
        start_from(second, first.state_dict())
        assert torch.equal(second.enc[1].c1.weight, first.enc[1].c1.weight)
        assert torch.equal(second.f2.weight, first.f2.weight)
        assert torch.equal(second.out.weight, last)
        same = new(outputs=4, seed=3)
        start_from(same, first.state_dict())
        assert torch.equal(same.out.weight, first.out.weight)
        other = new_network(
            {'InputChannels': 4, 'OutputChannels': 1, 'Type': 'residual_unet', 'Channels': [4, 8]},
            seed=0,
        )
        with pytest.raises(UnavailableError, match='only 2 of the 22 tensors'):
            start_from(other, first.state_dict())


class TestValidation:
    def test_whole_scans_are_those_with_labels(self):
        scan = a_scan()
        (volume,) = whole_scans([scan, a_scan(label=False)])
        assert volume.image.shape == (1, 4, 32, 32, 32)
        assert volume.present.tolist() == [[True, True, False, False]]
        stored = from_bytes(torch.from_numpy(scan.image)).half()
        assert torch.equal(volume.image[0, :, :24, :28, :20], stored)
        assert not volume.image[0, :, 24:].any()
        assert int(volume.label.sum()) == int(scan.label.sum())
        assert int(volume.known.sum()) == int(scan.annotated.sum())
        assert volume.label.shape == volume.brain.shape == (1, 1, 32, 32, 32)
        assert volume_dice(volume.label[0, 0].float(), volume, 0.5) == 1

    def test_whole_heads_are_the_same_every_time_and_not_of_the_training(self, heads):
        one, again = (whole_heads(heads, Randomisation(), seed=3) for _ in range(2))
        assert len(one) == 2
        assert all(torch.equal(a, b) for a, b in zip(one[0], again[0], strict=True))
        assert all(size % 16 == 0 for size in one[0].image.shape[2:])
        assert one[0].image.dtype == torch.float16
        other = whole_heads(heads, Randomisation(), seed=4)
        assert not torch.equal(one[0].image, other[0].image)

    def test_whole_heads_are_drawn_again_until_they_have_a_lesion(self, heads):
        drawn_again = 0
        for seed in range(6):
            once = whole_heads(heads, Randomisation(), seed=seed)
            again = whole_heads(heads, Randomisation(), seed=seed, lesions=True)
            for one, other in zip(once, again, strict=True):
                assert has_lesion(other)
                assert torch.equal(one.image, other.image) is has_lesion(one)
                drawn_again += not has_lesion(one)
        assert drawn_again

    def test_dice_counts_known_voxels_alone(self):
        volume = self.volume()
        right = volume.label[0, 0].float()
        assert volume_dice(right, volume, 0.5) == 1
        assert volume_dice(torch.where(volume.known[0, 0], right, 1 - right), volume, 0.5) == 1
        assert volume_dice(torch.zeros_like(right), volume, 0.5) == 0
        empty = volume._replace(label=torch.zeros_like(volume.label))
        assert volume_dice(torch.zeros_like(right), empty, 0.5) == 1

    def test_a_network_that_sees_lesions_is_recorded(self):
        class See(torch.nn.Module):
            def forward(self, image):
                return 20 * (image[:, :1] - 0.5)

        volume = self.volume()
        volume = volume._replace(image=volume.label.half().expand(1, 4, 16, 16, 16))
        validate = WholeVolumes([volume], (16, 16, 16))
        assert validate(See()) == {'validation_dice': 1.0}
        assert validate.probabilities[0].shape == (16, 16, 16)

    def test_the_threshold_with_the_best_scores_is_chosen(self):
        volume = self.volume()
        probability = torch.where(volume.label[0, 0], 0.35, 0.22)
        threshold, scores = choose_threshold([probability], [volume])
        assert 0.22 <= threshold < 0.35
        assert scores == {'Dice': 1.0, 'LesionF1': 1.0}

    def test_a_volume_without_a_known_lesion_does_not_choose_the_threshold(self):
        volume = self.volume()
        healthy = volume._replace(label=torch.zeros_like(volume.label))
        unknown = volume._replace(known=torch.zeros_like(volume.known))
        faint = torch.full((16, 16, 16), 0.3)
        for others in ([healthy], [unknown], [healthy, unknown]):
            assert choose_threshold([faint] * len(others), others) == (DEFAULT_THRESHOLD, {})
        probability = torch.where(volume.label[0, 0], 0.25, 0.12)
        alone = choose_threshold([probability], [volume])
        assert choose_threshold([probability, faint], [volume, healthy]) == alone

    def test_marking_everything_finds_no_lesion(self):
        volume = self.volume()
        everything = torch.ones(16, 16, 16)
        assert lesion_f1(everything, volume, 0.5) == 0
        assert lesion_f1(volume.label[0, 0].float(), volume, 0.5) == 1

    def volume(self) -> Patches:
        label = torch.zeros(1, 1, 16, 16, 16, dtype=torch.bool)
        label[..., 4:7, 4:7, 4:7] = True
        label[..., 10:12, 10:12, 3:5] = True
        known = torch.ones_like(label)
        known[..., 14:] = False
        brain = torch.ones_like(label)
        return Patches(torch.zeros(1, 4, 16, 16, 16), torch.ones(1, 4), brain, label, known)


GOOD = """
name = "mine"
window = [32, 32, 32]
[network]
Type = "fast_unet"
Channels = [4, 8]
FullResolutionChannels = 2
[data]
label_maps = ["maps"]
hold_out = ["sub-03"]
[randomisation]
noise = 1
[self_supervised]
steps = 0
[supervised]
steps = 7
patch = [16, 16, 16]
learning_rate = 0.002
lesion_cross_entropy = 0.5
"""

PROJECT = Path(__file__).resolve().parents[3]
CONFIGURATIONS = [
    *PROJECT.glob('pretraining/*.toml'),
    *(path for path in PROJECT.glob('benchmarks/*.toml') if '[supervised]' in path.read_text()),
]
BAD = [
    ('nam = "x"', '"nam" is unknown', 'name'),
    ('[data]\nlabel_map = ["x"]', '"data.label_map" is unknown', 'label_maps'),
    ('[supervised]\nlearnig_rate = 1', '"supervised.learnig_rate" is unknown', 'learning_rate'),
    ('[supervised]\nloop = 1', '"supervised.loop" is unknown', ''),
    ('[supervised]\nsteps = "many"', '"supervised.steps" is \'many\'', 'a whole number'),
    ('[supervised]\nsteps = true', '"supervised.steps" is True', 'a whole number'),
    ('[supervised]\npatch = [16, 16]', '"supervised.patch"', 'a list of 3'),
    ('[supervised]\npatch = [16, 18, 16]', '16 x 18 x 16', 'multiples of 16'),
    ('[supervised]\nlearning_rate = 0', '"supervised.learning_rate"', 'more than 0'),
    ('[supervised]\nbatch = 0', '"supervised.batch"', '1 or more'),
    ('[supervised]\naverage = 1', '"supervised.average"', 'below 1'),
    ('[self_supervised]\npretext = "jigsaw"', 'jigsaw', 'masked or tang'),
    ('[self_supervised]\npretext = "tang"\nview = 128', 'larger than the patch', 'smaller'),
    (
        '[self_supervised]\npretext = "tang"\nview = 48',
        '"self_supervised.view" is 48, half of "self_supervised.patch" at most (96 x 96 x 96)',
        'larger view or a smaller patch',
    ),
    (
        'window = [32, 32, 32]\n[network]\nType = "fast_unet"\nChannels = [4, 8]\n'
        'FullResolutionChannels = 2\n[supervised]\npatch = [96, 96, 12]',
        '"supervised.patch" is 96 x 96 x 12',
        '16 voxels or more',
    ),
    (
        '[network]\nType = "committee"\nMembers = [{ Type = "swin_unet" }, { Type = "swin_unet" }]'
        '\n[self_supervised]\npretext = "tang"',
        '"self_supervised.pretext" is "tang"',
        'one by one',
    ),
    ('[network]\nType = ["unet"]', '"network.Type" is', 'fast_unet'),
    ('[network]\nType = "net"', '"network.Type" is \'net\'', 'fast_unet'),
    ('[network]\nType = "fast_unet"\nDepth = 3', '"network.Depth" is unknown', 'Channels'),
    ('[data]\nreal = 1.5', '"data.real" is 1.5', '0 to below 1'),
    ('[data]\nhold_out = ["sub-01"]\nvalidation = ["01"]', 'both name 01', 'one of both'),
    ('seed = -1', '"seed" is -1', 'from 0'),
    ('name = "---"', '"name" is', 'letters or digits'),
    ('required = []', '"required" is []', 'FLAIR'),
    ('required = ["BOLD"]', '"required" is', 'FLAIR'),
    ('window = [16, 16, 16]', '"window" is 16 x 16 x 16, and too small', 'larger'),
    ('[supervised]\npatch = [16, 16, 16]', '"supervised.patch" is', 'larger'),
    ('[supervised]\nsteps = -4', '"supervised.steps" is -4', '0 or more'),
    ('[supervised]\nworkers = -2', '"supervised.workers" is -2', '0 or more'),
    ('[supervised]\nbetas = [2.0, 0.9]', '"supervised.betas"', 'below 1'),
    ('[supervised]\nprecision = "half"', "'half'", 'bfloat16'),
    ('[supervised]\nweight_decay = nan', '"supervised.weight_decay" is nan', 'finite'),
    ('[supervised]\nfloor = -5.0', '"supervised.floor"', 'share'),
    ('[supervised]\nfrozen = -3.0', '"supervised.frozen"', 'share'),
    ('[supervised]\ncross_entropy = -4.0', '"supervised.cross_entropy"', '0 or more'),
    ('[randomisation]\nclinical = 4.0', '"randomisation.clinical" is 4.0', 'share'),
    ('[randomisation]\nscaling = 1.5', '"randomisation.scaling" is 1.5', 'below 1'),
    ('[randomisation]\nfaintest = 3.0', 'faintest', 'Exchange'),
    ('[network]\nType = "fast_unet"\nInputChannels = 2', 'InputChannels', 'Leave it out'),
    ('[data]\nlabels = ["a"]', '"data.labels" has 1', 'one folder'),
    ('[data]\nskull_strip = "no"', 'skull_strip', 'auto'),
    ('[randomisation]\nnois = 1', '"randomisation.nois" is unknown', 'noise'),
    ('[randomisation]\nrater_share = 0.6', 'rater_share', 'at most 0.5'),
    ('[self_supervised]\nsteps = 0\n[supervised]\nsteps = 0', 'both stages', ''),
    ('name = ', 'the configuration is not TOML', ''),
]


class TestConfig:
    def test_what_is_given_is_taken_and_the_rest_has_defaults(self, tmp_path):
        path = tmp_path / 'c.toml'
        path.write_text(GOOD)
        config = read_config(path)
        assert config.name == 'mine'
        assert config.data.label_maps == (tmp_path / 'maps',)
        assert config.data.hold_out == ('sub-03',)
        assert config.randomisation.noise == 1.0
        assert isinstance(config.randomisation.noise, float)
        assert list(stages(config)) == ['supervised']
        assert config.supervised.loop.steps == 7
        assert config.supervised.loop.learning_rate == 0.002
        assert config.supervised.lesion_cross_entropy == 0.5
        assert config.supervised.loop.clip == Config().supervised.loop.clip
        assert config.supervised.patch == (16, 16, 16)

    def test_the_view_of_a_stage_without_steps_does_not_matter(self, tmp_path):
        path = tmp_path / 'c.toml'
        stage = 'pretext = "tang"\npatch = [32, 32, 32]'
        path.write_text(f'[self_supervised]\nsteps = 0\n{stage}')
        assert list(stages(read_config(path))) == ['supervised']

    @pytest.mark.parametrize('path', CONFIGURATIONS, ids=lambda path: path.stem)
    def test_configurations_of_the_project_are_possible(self, path):
        assert stages(read_config(path))

    def test_the_smallest_patch_can_be_drawn(self, heads):
        for seed in range(20):
            image = draw(
                heads, Randomisation(), seed=(seed,), batch=1, patch=(MIN_PATCH,) * 3
            ).image
            assert image.shape == (1, 4, *(MIN_PATCH,) * 3)

    def test_an_empty_file_is_a_configuration(self, tmp_path):
        path = tmp_path / 'c.toml'
        path.write_text('')
        assert read_config(path) == Config()

    @pytest.mark.parametrize(('text', 'message', 'advice'), BAD)
    def test_mistakes_are_named(self, tmp_path, text, message, advice):
        path = tmp_path / 'c.toml'
        path.write_text(text)
        with pytest.raises(UsageError) as caught:
            read_config(path)
        assert message in caught.value.message
        assert advice in caught.value.advice
        assert caught.value.path == str(path)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(NoInputError, match='no such configuration'):
            read_config(tmp_path / 'nope.toml')
