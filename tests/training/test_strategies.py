"""What every strategy owes, on a tiny network; then what each one owes by its formula."""

import copy
import functools
import io
from dataclasses import replace

import pytest
import torch
from torch import nn

from ssl2_bids.errors import UsageError
from ssl2_bids.networks.architectures.fast_unet import FastUNet
from ssl2_bids.networks.architectures.swin_unetr import SwinUNETR
from ssl2_bids.networks.architectures.unet import ResidualUNet
from ssl2_bids.training import strategies
from ssl2_bids.training.adaptation.adapt import LABELS_ALONE
from ssl2_bids.training.losses import sup_loss
from ssl2_bids.training.run import learning_of, set_training_mode
from ssl2_bids.training.strategy import Batch, noise

EDGE = 16
STEPS = 10
EVERY = strategies.available()
PEERS = ('cps', 'cross_teach', 'dct')


def tiny(kind='student', seed=0):
    """A network that depends on the kind, not on the state of any generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1000 * (kind == 'peer'))
        return FastUNet(inputs=2, channels=(4, 8), full=2)


@functools.cache
def experienced_weights(kind):
    """Of a tiny network after 20 steps of labels: it is certain of some voxels."""
    strategy = make('supervised', lambda _: tiny(kind))
    advance(strategy, learner(strategy, 1e-2), [batch()] * 20)
    return strategy.student.state_dict()


def experienced(kind):
    network = tiny(kind)
    network.load_state_dict(experienced_weights(kind))
    return network


def make(name, build=tiny, **settings):
    """A strategy without warm-up or ramp, unless asked for."""
    kind = strategies.find(name)
    given = {'steps': STEPS, 'warmup': 0.0, 'ramp': 0.0, **settings}
    return kind(kind.Settings(**given), build)


def subjects(count, seed=0):
    """Images (count, 2, 16, 16, 16) of noise in a brain with one bright ball, and its label."""
    random = torch.Generator().manual_seed(seed)
    axes = torch.arange(EDGE, dtype=torch.float32)
    grid = torch.stack(torch.meshgrid(axes, axes, axes, indexing='ij'))
    centre = 5 + 6 * torch.rand(count, 3, generator=random)
    distance = (grid - centre[:, :, None, None, None]).square().sum(1, keepdim=True)
    label = (distance < 7).float()
    brain = torch.zeros(count, 1, EDGE, EDGE, EDGE)
    brain[..., 1:-1, 1:-1, 1:-1] = 1
    image = 0.3 * torch.randn(count, 2, EDGE, EDGE, EDGE, generator=random) + 1.5 * label
    return image * brain, label * brain, brain


def batch(labelled=2, unlabelled=2, seed=0):
    """Views that differ by noise; the last unlabelled subject lacks the second contrast."""
    xl, yl, bl = subjects(labelled, seed)
    xu, _, bu = subjects(unlabelled, seed + 1)
    cu = torch.ones(unlabelled, 2, dtype=torch.bool)
    cu[-1:, 1] = False
    xu = xu * cu[:, :, None, None, None]
    xs = xu + noise(xu, torch.Generator().manual_seed(seed), sigma=0.1)
    present = torch.ones(labelled, 2, dtype=torch.bool)
    return Batch(xl, yl, bl.clone(), bl, xu, xs, bu, present, cu)


def gradients(strategy, b, step=0):
    for p in learning_of(strategy):
        p.grad = None
    set_training_mode(strategy)
    loss, scalars = strategy.loss(b, step)
    loss.backward()
    return loss, scalars


def learner(strategy, rate=3e-3):
    return torch.optim.AdamW(learning_of(strategy), lr=rate)


def advance(strategy, optimiser, batches, start=0):
    """Steps as the loop makes them; the labelled and the whole loss of each."""
    losses = []
    for step, b in enumerate(batches, start):
        loss, scalars = gradients(strategy, b, step)
        optimiser.step()
        strategy.after_step(step)
        losses.append((scalars['labelled'].item(), loss.item()))
    return losses


def everything(strategy):
    """All numbers of a strategy, by name."""
    return {
        f'{kind}.{name}': tensor.clone()
        for kind, module in strategy.modules().items()
        for name, tensor in module.state_dict().items()
    }


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


HARD = {
    'plain': lambda b: b,
    'no lesion': lambda b: b._replace(yl=0 * b.yl),
    'no annotated voxel': lambda b: b._replace(ml=0 * b.ml),
    'no unlabelled brain': lambda b: b._replace(bu=0 * b.bu),
    'one labelled subject': lambda b: batch(labelled=1),
    'one of each': lambda b: batch(1, 1),
    'more labelled': lambda b: batch(3, 1),
    'no labelled subject': lambda b: batch(labelled=0),
    'no unlabelled subject': lambda b: batch(unlabelled=0),
    'no contrast in common': lambda b: b._replace(
        xl=b.xl * torch.tensor([1.0, 0]).view(1, 2, 1, 1, 1),
        cl=torch.tensor([[True, False]] * 2),
        xu=b.xu * torch.tensor([0, 1.0]).view(1, 2, 1, 1, 1),
        xs=b.xs * torch.tensor([0, 1.0]).view(1, 2, 1, 1, 1),
        cu=torch.tensor([[False, True]] * 2),
    ),
    'extreme image': lambda b: b._replace(xl=1e3 * b.xl, xu=1e3 * b.xu, xs=-1e3 * b.xs),
}


@pytest.mark.parametrize('case', HARD)
@pytest.mark.parametrize('name', EVERY)
def test_loss_and_gradients_are_finite(name, case):
    strategy = make(name)
    b = HARD[case](batch())
    loss, scalars = gradients(strategy, b)
    strategy.after_step(0)
    assert loss.shape == ()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in learning_of(strategy))
    assert all(p.grad is not None for p in strategy.student.parameters())
    assert all(torch.as_tensor(value).isfinite() for value in scalars.values())
    assert not any(torch.is_tensor(v) and v.requires_grad for v in scalars.values())


@pytest.mark.parametrize('name', [name for name in EVERY if name not in LABELS_ALONE])
def test_unlabelled_images_train_the_student(name):
    """Also the peer and the heads; the teacher and the critic get no gradient."""
    strategy = make(name, experienced)
    b = batch()
    _, scalars = gradients(strategy, b._replace(ml=0 * b.ml))
    assert scalars['unlabelled'] > 0
    assert scalars['weight'] == strategy.cfg.w_max
    for kind, module in strategy.modules().items():
        trained = any(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())
        assert trained == (kind not in ('teacher', 'critic')), kind
        assert trained or all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize('name', EVERY)
def test_without_weight_the_student_learns_what_supervised_learns(name):
    reference = make('supervised')
    gradients(reference, batch())
    off = {'mixing': False} if name == 'bcp' else {}
    strategy = make(name, w_max=0.0, **off)
    gradients(strategy, batch())
    pairs = zip(reference.student.parameters(), strategy.student.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs)


@pytest.mark.parametrize('name', EVERY)
def test_while_warming_up_unlabelled_images_do_not_matter(name):
    kind = strategies.find(name)
    settings = kind.Settings(steps=STEPS, warmup=0.5)
    first, second = kind(settings, tiny), kind(settings, tiny)
    gradients(first, batch(), step=4)
    gradients(second, batch()._replace(xs=batch(seed=5).xs, xu=batch(seed=5).xu), step=4)
    for p, q in zip(learning_of(first), learning_of(second), strict=True):
        assert p.grad is q.grad is None or torch.equal(p.grad, q.grad)


@pytest.mark.parametrize('name', EVERY)
def test_a_resumed_training_equals_one_without_a_stop(name):
    batches = [batch(seed=10 * step) for step in range(6)]
    through = make(name, warmup=0.2, ramp=0.3, seed=3)
    advance(through, learner(through), batches)

    begun = make(name, warmup=0.2, ramp=0.3, seed=3)
    optimiser = learner(begun)
    advance(begun, optimiser, batches[:4])
    file = io.BytesIO()
    modules = {kind: module.state_dict() for kind, module in begun.modules().items()}
    torch.save((modules, begun.state(), optimiser.state_dict()), file)

    file.seek(0)
    modules, state, moments = torch.load(file, weights_only=True)
    other = make(name, lambda kind: tiny(kind, seed=99), warmup=0.2, ramp=0.3, seed=3)
    for kind, module in other.modules().items():
        module.load_state_dict(modules[kind])
    other.load_state(state)
    optimiser = learner(other)
    optimiser.load_state_dict(moments)
    torch.rand(7)  # whatever happened to the global stream meanwhile
    advance(other, optimiser, batches[4:], start=4)
    assert same(everything(other), everything(through))


@pytest.mark.parametrize('name', EVERY)
def test_the_loss_falls_on_two_subjects(name):
    quick = {'alpha': 0.9} if name == 'self_training' else {}  # its teacher is slow by design
    strategy = make(name, steps=30, warmup=0.1, ramp=0.3, **quick)
    b = batch()
    start = copy.deepcopy(strategy.predictor())
    losses = advance(strategy, learner(strategy, 1e-2), [b] * 30)
    before = sum(labelled for labelled, _ in losses[:3]) / 3
    after = sum(labelled for labelled, _ in losses[-3:]) / 3
    assert after < 0.8 * before
    with torch.no_grad():
        first, last = (
            sup_loss(network.eval()(b.xl), b.yl, b.ml).item()
            for network in (start, strategy.predictor())
        )
    assert last < 0.9 * first


@pytest.mark.parametrize('name', EVERY)
def test_the_same_step_gives_the_same_bytes_whatever_the_global_stream(name):
    results = []
    for seed in (1, 2):
        strategy = make(name)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        loss, _ = gradients(strategy, batch(), step=3)
        assert torch.equal(before, torch.get_rng_state())
        results.append(loss.detach())
    assert torch.equal(*results)


@pytest.mark.parametrize('name', EVERY)
def test_half_precision(name):
    strategy = make(name)
    with torch.autocast('cpu', torch.bfloat16):
        loss, _ = strategy.loss(batch(), 0)
    loss.backward()
    strategy.after_step(0)
    assert loss.dtype == torch.float32
    assert all(p.grad is None or p.grad.isfinite().all() for p in learning_of(strategy))


# by formula


def unlabelled(strategy, b, step=0):
    loss, _ = strategy.unlabelled(b, step, torch.Generator().manual_seed(0))
    return loss.item()


@pytest.mark.parametrize(
    ('name', 'settings'),
    [
        ('mean_teacher', {}),
        ('ua_mt', {'sigma': 0.0}),
        ('ict', {}),
        ('cct', {'strength': 0.0}),
        ('r_drop', {'dropped': 0.0}),
        ('urpc', {}),
    ],
)
def test_agreement_costs_nothing(name, settings):
    strategy = make(name, **settings)
    b = batch()
    b = b._replace(xs=b.xu, cu=torch.ones_like(b.cu))
    if name == 'ict':
        b = b._replace(xs=b.xu[[0, 0]], xu=b.xu[[0, 0]], bu=b.bu[[0, 0]])
    if name == 'urpc':
        with torch.no_grad():
            for layer in (strategy.student.out, *strategy.heads):
                layer.weight.zero_()
                layer.bias.fill_(0.3)
    assert unlabelled(strategy, b) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ('name', 'settings'),
    [('mean_teacher', {}), ('ua_mt', {}), ('cct', {}), ('r_drop', {}), ('urpc', {}), ('ict', {})],
)
def test_disagreement_costs_something(name, settings):
    assert unlabelled(make(name, **settings), batch()) > 1e-8


def pointwise(steepness, bias=0.0):
    """A network that takes the first contrast for the answer, with the certainty asked for."""

    def build(kind):
        network = nn.Conv3d(2, 1, 1)
        with torch.no_grad():
            network.weight.copy_(torch.tensor([steepness, 0.0]).view(1, 2, 1, 1, 1))
            network.bias.fill_(bias - steepness / 2)
        return network

    return build


def answers(b):
    """Images whose first contrast is the label, in all views."""
    images, _, brain = subjects(2, 1)
    truth = subjects(2, 1)[1]
    x = torch.cat([truth, images[:, 1:]], 1)
    labelled = torch.cat([b.yl, b.xl[:, 1:]], 1)
    return b._replace(xl=labelled, xu=x, xs=x, bu=brain, cu=torch.ones_like(b.cu))


@pytest.mark.parametrize('name', ['cps', 'cross_teach', 'fixmatch', 'bcp', 'self_training'])
def test_agreement_costs_less_the_surer_it_is(name):
    b = answers(batch())
    losses = []
    for steepness in (8.0, 16.0, 80.0):
        strategy = make(name, pointwise(steepness))
        _, scalars = strategy.loss(b, 0)
        losses.append(scalars['unlabelled'].item())
    assert losses[0] > 10 * losses[1] > 0
    assert losses[2] < 1e-6


@pytest.mark.parametrize('name', ['cps', 'fixmatch', 'self_training'])
def test_what_is_ignored_has_no_gradient(name):
    """A teacher's 0.1 and 0.45 are background to no strategy."""
    for p in (0.1, 0.45):
        bias = torch.logit(torch.tensor(p)).item()
        strategy = make(name, pointwise(0.0, bias))
        b = batch()
        loss, _ = gradients(strategy, b._replace(ml=0 * b.ml))
        assert loss.item() == 0
        assert all(p.grad.abs().max() == 0 for p in strategy.student.parameters())


def test_the_teacher_of_self_training_needs_no_label_and_starts_as_given():
    strategy = make('self_training')
    given = copy.deepcopy(strategy.student.state_dict())
    b = batch(labelled=0)
    advance(strategy, learner(strategy), [b])
    assert strategy.cfg.weight(0) == 1
    moved = strategy.teacher.state_dict()
    assert not same(moved, given)
    for name, tensor in moved.items():
        expected = torch.lerp(given[name], strategy.student.state_dict()[name], 0.001)
        torch.testing.assert_close(tensor, expected)


def test_self_training_averages_the_mirrored_image():
    strategy = make('self_training', pointwise(80.0))
    seen = []
    strategy.teacher.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    b = answers(batch())
    assert unlabelled(strategy, b) < 1e-6  # mirrored back to its place
    assert torch.equal(seen[0].flip(2), seen[1])


def test_the_threshold_of_fixmatch_follows_its_lesions_within_limits():
    strategy = make('fixmatch', memory=0.9)
    q = torch.tensor([0.9, 0.8, 0.4]).view(1, 1, 1, 1, 3)
    strategy.adapt(q, torch.tensor([1.0, 0, 1]).view_as(q))
    assert strategy.threshold.item() == pytest.approx(0.9 * 0.6 + 0.1 * 0.9)
    strategy.adapt(0.1 * q, torch.ones_like(q))
    assert strategy.threshold.item() == pytest.approx(0.63)
    for _ in range(50):
        strategy.adapt(q, torch.ones_like(q))
    assert strategy.threshold.item() == pytest.approx(0.7)


def test_cutmix_moves_image_target_and_brain_together():
    strategy = make('fixmatch', cutmix=1.0)
    b = batch()
    b = b._replace(xs=b.xl)
    q = torch.stack([torch.zeros_like(b.bu[0]), torch.ones_like(b.bu[0])])
    image, mixed, brain = strategy.mix(b, q, torch.Generator().manual_seed(0))
    foreign = torch.stack([mixed[0] == 1, mixed[1] == 0])
    assert 0.02 < foreign[0].float().mean() < 0.4
    assert torch.equal(image, torch.where(foreign, b.xs.flip(0), b.xs))
    assert torch.equal(brain, torch.where(foreign, b.bu.flip(0), b.bu))
    plain = make('fixmatch', cutmix=0.0)
    assert torch.equal(plain.mix(b, q, torch.Generator())[0], b.xs)


def test_mixes_leave_out_contrasts_that_only_one_has():
    """Also where a scan has it, and its strong view does not."""
    b = batch()
    b = b._replace(cu=torch.ones_like(b.cu))
    for name in ('fixmatch', 'ict', 'bcp'):
        strategy = make(name, **({'cutmix': 1.0} if name == 'fixmatch' else {}))
        seen = []
        strategy.student.register_forward_pre_hook(lambda _, x, to=seen: to.append(x[0]))
        strategy.loss(b, 0)
        mixes = seen[1:] if name != 'bcp' else seen
        assert mixes
        second = torch.cat([mix[-1:, 1] for mix in mixes])
        assert second.abs().max() == 0, name


def test_copy_paste_boxes_hold_a_lesion_and_the_loss_looks_everywhere_once():
    strategy = make('bcp')
    b = batch(3, 3)
    random = torch.Generator().manual_seed(0)
    for _ in range(5):
        box = strategy.lesion_boxes(b.yl, random)
        assert ((box * b.yl).sum((1, 2, 3, 4)) > 0).all()
        assert (box.sum((1, 2, 3, 4)) == round(EDGE * 2 / 3) ** 3).all()
    empty = strategy.lesion_boxes(0 * b.yl, random)
    assert (empty.sum((1, 2, 3, 4)) == round(EDGE * 2 / 3) ** 3).all()


def test_copy_paste_targets_are_labels_where_it_is_labelled_and_the_teacher_elsewhere():
    """With an all-lesion label and an all-background teacher both can be distinguished."""
    b = answers(batch())
    b = b._replace(yl=torch.ones_like(b.yl), bl=torch.ones_like(b.bl), ml=torch.ones_like(b.ml))
    ones = torch.ones_like(b.xl)
    b = b._replace(xl=ones, xu=-ones, xs=-ones, bu=torch.ones_like(b.bu))
    strategy = make('bcp', pointwise(80.0))
    loss, scalars = strategy.loss(b, 0)
    assert loss.item() < 1e-6
    seen = []
    strategy.student.register_forward_pre_hook(lambda _, x: seen.append(x[0][:, :1]))
    strategy.loss(b, 0)
    inner, outer = seen
    assert torch.equal(inner, -outer)
    assert (inner < 0).sum() == 2 * round(EDGE * 2 / 3) ** 3


def test_dropout_of_two_passes_differs_and_leaves_the_network_as_it_was():
    strategy = make('r_drop')
    b = batch()
    before = strategy.student(b.xu)
    assert unlabelled(strategy, b) > 0
    assert torch.equal(before, strategy.student(b.xu))


def test_the_main_decoder_gets_no_gradient_from_the_auxiliary_ones():
    strategy = make('cct')
    loss, _ = strategy.unlabelled(batch(), 0, torch.Generator().manual_seed(0))
    loss.backward()
    student = strategy.student
    assert all(p.grad is None for p in student.dec.parameters())
    assert any(p.grad.abs().max() > 0 for p in student.enc.parameters())
    for head in strategy.heads:
        assert any(p.grad.abs().max() > 0 for p in head.dec.parameters())
        assert not list(head.enc.parameters())


def test_the_heads_of_the_pyramid_learn_from_labels_without_pulling_the_student():
    strategy = make('urpc', w_max=0.0)
    gradients(strategy, batch())
    assert all(head.weight.grad.abs().max() > 0 for head in strategy.heads)


def test_the_critic_learns_to_distinguish_the_two():
    strategy = make('dan', learning_rate=1e-2)
    labelled, unlabelled = torch.zeros(2, 2, 1, 8, 8, 8)
    labelled[..., 2:6, 2:6, 2:6] = 1
    for step in range(30):
        strategy.shown = {'labelled': labelled, 'unlabelled': unlabelled}
        strategy.after_step(step)
    with torch.no_grad():
        assert strategy.critic(labelled).min() > strategy.critic(unlabelled).max() + 0.3
    assert not strategy.critic.training


def test_the_attack_of_co_training_lowers_the_networks_own_decision():
    strategy = make('dct', epsilon=0.02)
    b = batch()
    logits = strategy.student(b.xs)
    p, fooling = strategy.attacked(strategy.student, b)
    assert torch.equal(p, logits.sigmoid())
    changed = (fooling - b.xs).abs()
    assert changed.max().item() == pytest.approx(0.02, rel=1e-3)
    assert changed[b.xs == 0].max() == 0
    decided = (logits > 0).float()
    margin = [
        (b.bu * nn.functional.binary_cross_entropy_with_logits(z, decided, reduction='none')).sum()
        for z in (logits, strategy.student(fooling))
    ]
    assert margin[1] > margin[0]


@pytest.mark.parametrize('name', PEERS)
def test_peers_start_apart_and_both_learn_from_labels(name):
    strategy = make(name, w_max=0.0)
    gradients(strategy, batch())
    first, second = strategy.student, strategy.peer
    assert not same(first.state_dict(), second.state_dict())
    assert all(p.grad is not None for p in second.parameters())
    assert strategy.predictor() is first


def test_entropy_looks_at_suspected_voxels_alone():
    assert unlabelled(make('entropy', pointwise(0.0, -3.0)), batch()) == 0  # p = 0.047
    assert unlabelled(make('entropy', pointwise(0.0)), batch()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('name', ['urpc', 'cct', 'r_drop'])
@pytest.mark.parametrize(
    'network',
    [
        pytest.param(lambda: ResidualUNet(inputs=2, channels=(4, 8, 8)), id='residual'),
        pytest.param(
            lambda: SwinUNETR(inputs=2, feature_size=12, depths=(1, 1, 1, 1)),
            id='swin',
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_hooks_into_networks_works_for_all_of_them(name, network):
    strategy = make(name, lambda _: network())
    b = batch(1, 1)
    wide = {
        key: torch.cat([torch.cat([value] * 4, 4)] * 2, 2).repeat(1, 1, 1, 2, 1)
        for key, value in b._asdict().items()
        if value.ndim == 5
    }
    loss, scalars = gradients(strategy, b._replace(**wide))
    assert loss.isfinite()
    assert scalars['unlabelled'] > 0
    if name == 'cct':
        plain = replace(strategy.cfg, strength=0.0)
        again = type(strategy)(plain, lambda _: strategy.student)
        assert unlabelled(again, b._replace(**wide)) == pytest.approx(0, abs=1e-9)


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(UsageError, match='mean_teacher'):
        strategies.find('meanteacher')
