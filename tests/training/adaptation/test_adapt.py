"""Folds, the decision, and a training that sees only what it is given."""

import math

import numpy as np
import pytest
import torch
from tiny_training import person, tiny_network

from ssl2_bids.errors import UsageError
from ssl2_bids.networks.registry import NETWORKS, new_network
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.training import strategies
from ssl2_bids.training.adaptation import adapt
from ssl2_bids.training.adaptation.adapt import AdaptSettings
from ssl2_bids.training.data.participants import Participant
from ssl2_bids.training.strategy import STAGES
from ssl2_bids.volume import Volume
from ssl2_bids.workflows.adaptation.run import slice_blocks
from ssl2_bids.workflows.annotations import onto_model_grid

SETTINGS = AdaptSettings('mean_teacher', 6, 1e-2, (16, 16, 16), 2, 2)


def test_folds_differ_by_one_person_and_share_the_loads():
    loads = {f'{n:02d}': float(n) for n in range(11)}
    found = adapt.assign_folds(loads, 3, seed=0)
    assert found.keys() == loads.keys()
    sizes = [sum(fold == n for fold in found.values()) for n in (1, 2, 3)]
    assert sorted(sizes) == [3, 4, 4]
    means = [np.mean([loads[p] for p, fold in found.items() if fold == n]) for n in (1, 2, 3)]
    assert max(means) - min(means) < 3  # of 0 to 10
    assert found == adapt.assign_folds(loads, 3, seed=0)
    assert any(adapt.assign_folds(loads, 3, seed=s) != found for s in range(1, 4))


@pytest.mark.parametrize('folds', [1, 4])
def test_folds_that_cannot_be(folds):
    with pytest.raises(ValueError, match='folds'):
        adapt.assign_folds({'a': 1, 'b': 2, 'c': 3}, folds, seed=0)


def test_blocks_of_slices_hold_like_shares_of_the_lesions():
    annotated = np.zeros(60, bool)
    annotated[10:50:2] = True
    lesion = np.where(annotated, np.arange(60) % 7, 0)
    blocks = adapt.slice_folds(annotated, lesion, 4)
    assert np.array_equal(np.concatenate(blocks), np.flatnonzero(annotated))
    shares = [lesion[block].sum() / lesion.sum() for block in blocks]
    assert all(0.15 < share < 0.35 for share in shares)


def test_blocks_where_all_lesions_are_in_one_slice():
    lesion = np.zeros(12, int)
    lesion[3] = 50
    blocks = adapt.slice_folds(np.ones(12, bool), lesion, 4)
    assert [len(block) for block in blocks] == [3, 3, 3, 3]
    with pytest.raises(ValueError, match='12 annotated'):
        adapt.slice_folds(np.ones(12, bool), lesion, 13)


@pytest.mark.parametrize(
    ('thickness', 'drawn', 'folds'),
    [(5.0, range(10, 23, 3), 5), (4.0, range(12, 20), 5), (3.0, range(20, 26), 5)],
)
def test_no_acquired_slice_is_in_two_blocks(thickness, drawn, folds):
    count = round(150 / thickness)
    lesion, extent = np.zeros((40, 40, count), np.uint8), np.zeros((40, 40, count), bool)
    for number, k in enumerate(drawn):
        extent[:, :, k] = True
        lesion[10 : 16 + number % 3, 10:16, k] = 1
    affine = np.diag([1, 1, thickness, 1])
    annotation = Annotation(Volume(lesion, affine), Volume(extent, affine))
    brain = Volume(np.ones(extent.shape, np.uint8), affine)
    label, annotated = onto_model_grid(annotation, np.eye(4), (40, 40, 150))
    found = Participant('a', np.zeros((1, 40, 40, 150), np.float32), (True,),
                        np.ones((40, 40, 150), np.uint8), label, annotated)  # fmt: skip
    blocks = slice_blocks(annotation, brain, found, np.eye(4), folds)
    assert np.array_equal(np.sort(np.concatenate(blocks)), np.flatnonzero(annotated.any((0, 1))))
    # of two that are equally near the lower one
    acquired = [set(np.ceil(block / thickness - 0.5).astype(int)) for block in blocks]
    assert all(len(block) for block in acquired)
    for number, block in enumerate(acquired):
        assert not block & set().union(*acquired[number + 1 :])


def test_slices_left_out_are_seen_by_no_patch():
    one = person('a')
    one = Participant('a', one.image + 1, (True, True), one.brain, one.label, one.annotated)
    out = np.arange(8, 12)
    seen = adapt.views_of([adapt.without_slices(one, out)], SETTINGS)
    patches = seen.participants[0]
    assert not patches.brain[:, :, out].any()
    assert not patches.annotated[:, :, out].any()
    assert not patches.image[..., out].any()
    whole = adapt.views_of([one], SETTINGS)
    total, kept = (sum(v[step].bl.sum() for step in range(5)) for v in (whole, seen))
    assert 0 < kept < total


def test_the_start_is_left_as_it_was_and_the_result_is_another(tmp_path):
    network = tiny_network()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    people = [person('a'), person('b', labelled=False, seed=1)]
    trained, history = adapt.adapt(network, people, SETTINGS, tmp_path, device='cpu')
    assert history.finished
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert not all(torch.equal(v, before[k]) for k, v in trained.state_dict().items())
    assert adapt.curves({'1': history})[0]['training'] == '1'


def test_another_identity_is_not_resumed(tmp_path):
    people = [person('a'), person('b', labelled=False, seed=1)]
    adapt.adapt(tiny_network(), people, SETTINGS, tmp_path, device='cpu', identity='x')
    again, history = adapt.adapt(
        tiny_network(), people, SETTINGS, tmp_path, device='cpu', identity='x'
    )
    assert history.finished
    with pytest.raises(UsageError, match='another configuration'):
        adapt.adapt(tiny_network(), people, SETTINGS, tmp_path, device='cpu', identity='y')


@pytest.mark.parametrize('strategy', strategies.available())
def test_every_strategy_adapts(strategy, tmp_path):
    settings = AdaptSettings(strategy, 2, 1e-3, (16, 16, 16), 1, 2)
    people = [person('a'), person('b', labelled=False, seed=1)]
    made = adapt.make_strategy(tiny_network(), settings, 2)
    assert made.cfg.steps == 2
    trained, history = adapt.adapt(tiny_network(), people, settings, tmp_path, device='cpu')
    assert all(math.isfinite(row['loss']) for row in history.rows)
    assert trained(torch.zeros(1, 2, 16, 16, 16)).shape == (1, 1, 16, 16, 16)


def test_peers_differ_from_the_student():
    made = adapt.make_strategy(tiny_network(), AdaptSettings('cps', 2, 1e-3, (16,) * 3, 1, 2), 2)
    pairs = zip(made.student.parameters(), made.peer.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_a_probe_measures_and_changes_nothing():
    network = tiny_network()
    before = [p.clone() for p in network.parameters()]
    people = [person('a'), person('b', labelled=False, seed=1)]
    ticks = iter(range(100))
    cost = adapt.probe(
        network, people, SETTINGS, window=(16, 16, 16), device='cpu', clock=lambda: next(ticks)
    )
    assert (cost.step, cost.window) == (1, 1)
    assert cost.memory > 1e7
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_a_lighter_step_sees_as_many_labelled_patches():
    settings = AdaptSettings('supervised', 6, 1e-3, (48, 48, 48), 4, 2)
    smaller = []
    while (settings := adapt.lighter(settings, 16)) is not None:
        smaller.append((settings.labelled, settings.accumulate, settings.patch[0]))
    assert smaller == [(2, 2, 48), (1, 4, 48), (1, 4, 32)]


@pytest.mark.parametrize(('multiple', 'patches'), [(32, [64, 64, 64, 32]), (64, [64, 64, 64])])
def test_lighter_steps_end_at_the_smallest_patch_of_the_network(multiple, patches):
    found = [AdaptSettings('supervised', 6, 1e-3, (64, 64, 64), 3, 2)]
    while len(found) < 9 and (smaller := adapt.lighter(found[-1], multiple)) is not None:
        found.append(smaller)
    assert [one.patch for one in found] == [(edge,) * 3 for edge in patches]
    assert [one.labelled * one.accumulate for one in found[:3]] == [3, 4, 4]  # 3 is odd


def test_a_step_of_several_batches_draws_each_once(monkeypatch, tmp_path):
    drawn = []
    original = adapt.Views.__getitem__
    monkeypatch.setattr(adapt.Views, '__getitem__', lambda v, n: drawn.append(n) or original(v, n))
    settings = AdaptSettings('supervised', 3, 1e-3, (16,) * 3, 1, 2, accumulate=2)
    adapt.adapt(tiny_network(), [person('a')], settings, tmp_path, device='cpu')
    assert drawn == list(range(6))


def test_the_choice_of_a_strategy_and_of_a_patch():
    assert adapt.choose_strategy(2, unannotated=True) == 'mean_teacher'
    assert adapt.choose_strategy(2, unannotated=False) == 'supervised'
    assert adapt.choose_strategy(10, unannotated=True) == 'supervised'
    assert adapt.patch_for((96, 96, 96), 16, 80) == (80, 80, 80)
    assert adapt.patch_for((96, 64, 32), 16, 70) == (64, 64, 32)
    assert adapt.patch_for((32, 32, 32), 32, 20) == (32, 32, 32)


def test_between_two_networks_the_weights_and_buffers_are_means():
    first, second = tiny_network(seed=1), tiny_network(seed=2)
    kept = [value.clone() for value in second.state_dict().values()]
    middle = adapt.between(first, second, 0.25).state_dict()
    for one, other, found in zip(first.state_dict().values(), kept, middle.values(), strict=True):
        torch.testing.assert_close(found, 0.75 * one + 0.25 * other)
    for value, before in zip(second.state_dict().values(), kept, strict=True):
        assert torch.equal(value, before)  # the trained one stays as it is


SMALL = {
    'fast_unet': {'Channels': [4, 8], 'FullResolutionChannels': 2},
    'residual_unet': {'Channels': [4, 6, 8]},
    'swin_unet': {
        'Channels': [4, 6, 8, 12], 'FullResolutionChannels': 2, 'Depths': [2, 1, 1],
        'Heads': [2, 2, 3], 'AttentionWindow': 3,
    },
    'swin_unetr': {'FeatureSize': 12, 'Depths': [1, 1, 1, 1], 'Heads': [2, 2, 4, 4]},
}  # fmt: skip
SMALL['committee'] = {
    'Members': [{'Type': kind, **SMALL[kind]} for kind in ('fast_unet', 'residual_unet')]
}


@pytest.mark.parametrize('kind', NETWORKS)
def test_the_last_layers_are_few_numbers_up_to_the_output(kind):
    description = {'Type': kind, 'InputChannels': 2, 'OutputChannels': 1, **SMALL[kind]}
    network = new_network(description)
    names = {parameter: name for name, parameter in network.named_parameters()}
    found = [names[parameter] for parameter in adapt.last_layers(network)]
    assert len(found) == len(set(found))
    outputs = {'committee': 2}.get(kind, 1)
    assert sum(name.endswith('weight') and '.out.' in f'.{name}' for name in found) >= outputs
    total = sum(parameter.numel() for parameter in network.parameters())
    assert 0 < sum(p.numel() for p in adapt.last_layers(network)) < total / 2


def test_a_training_of_the_last_layers_leaves_the_others_as_they_are(tmp_path):
    network, settings = tiny_network(), adapt.of_last_layers(SETTINGS)
    assert (settings.strategy, settings.unlabelled) == ('supervised', 0)
    trained, _ = adapt.adapt(network, [person('a'), person('b')], settings, tmp_path, device='cpu')
    chosen = {id(parameter) for parameter in adapt.last_layers(network)}
    changed = dict(trained.named_parameters())
    moved = [
        (id(before) in chosen, not torch.equal(before, changed[name]))
        for name, before in network.named_parameters()
    ]
    assert any(of_last and other for of_last, other in moved)
    assert not any(other and not of_last for of_last, other in moved)


@pytest.mark.parametrize('kind', NETWORKS)
def test_networks_whose_stages_are_known(kind):
    description = {'Type': kind, 'InputChannels': 2, 'OutputChannels': 1, **SMALL[kind]}
    known = type(new_network(description)).__name__ in STAGES
    for name in strategies.available():
        networks = strategies.find(name).networks
        assert not networks or (kind in networks) is known
