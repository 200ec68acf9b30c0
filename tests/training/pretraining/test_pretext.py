import math

import pytest
import torch
from tiny_training import settings, tiny_network

from ssl2_bids.networks.registry import new_network
from ssl2_bids.training.data.masking import HIGH, LOW, block_masks, blur, spoil
from ssl2_bids.training.loop import train
from ssl2_bids.training.pretraining.pretext.contrastive import contrast_loss
from ssl2_bids.training.pretraining.pretext.encoder import bottleneck, bottleneck_size
from ssl2_bids.training.pretraining.pretext.inpainting import Inpainting, cut_boxes, cut_out
from ssl2_bids.training.pretraining.pretext.masked import (
    HeldOut,
    MaskedAutoencoding,
    Unlabelled,
    edge_error,
    masked_loss,
)
from ssl2_bids.training.pretraining.pretext.rotation import CLASSES, rotate, rotate_each
from ssl2_bids.training.pretraining.pretext.tang import Tang, crop


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 2, edge: int = 32, seed: int = 0) -> Unlabelled:
    """Smooth images in a box of brain; the second channel of the first sample is absent."""
    random = seeded(seed)
    coarse = torch.randn(n, 2, 4, 4, 4, generator=random)
    image = torch.nn.functional.interpolate(coarse, (edge,) * 3, mode='trilinear')
    brain = torch.zeros(n, 1, edge, edge, edge)
    brain[..., 2:-2, 2:-2, 2:-2] = 1
    present = torch.ones(n, 2, dtype=torch.bool)
    present[0, 1] = False
    return Unlabelled(
        image * brain * present[:, :, None, None, None], present, brain, torch.arange(n)
    )


class TestMasks:
    def test_accumulated_batches_of_a_step_have_masks_of_their_own(self):
        network, seen = tiny_network(outputs=2), []
        task = MaskedAutoencoding(network)
        network.register_forward_hook(lambda _, given, __: seen.append(given[0].detach()))
        for task.part in (0, 1, 0):
            task.loss(images(), 5)
        first, second, again = seen
        assert not torch.equal(first, second)
        assert torch.equal(first, again)

    def test_the_share_is_drawn_for_each_sample_and_blocks_are_whole(self):
        masks = block_masks((40, 2, 32, 32, 32), random=seeded(), block=8)
        shares = masks.mean(dim=(2, 3, 4))
        assert set(masks.unique().tolist()) == {0, 1}
        assert 0.48 <= float(shares.min()) < 0.55
        assert 0.7 < float(shares.max()) <= 0.77
        blocks = masks.unfold(2, 8, 8).unfold(3, 8, 8).unfold(4, 8, 8).flatten(5).mean(-1)
        assert set(blocks.unique().tolist()) == {0, 1}
        assert torch.allclose(shares[:, 0], shares[:, 1])

    def test_about_half_of_the_samples_have_masks_of_their_own_per_channel(self):
        masks = block_masks((200, 2, 32, 32, 32), random=seeded(), block=8)
        apart = (masks[:, 0] != masks[:, 1]).flatten(1).any(dim=1).float().mean()
        assert 0.4 < float(apart) < 0.6

    def test_sizes_that_are_no_multiple_are_covered_and_seeds_repeat(self):
        one = block_masks((2, 1, 20, 33, 16), random=seeded(4))
        assert one.shape == (2, 1, 20, 33, 16)
        assert torch.equal(one, block_masks((2, 1, 20, 33, 16), random=seeded(4)))
        assert not torch.equal(one, block_masks((2, 1, 20, 33, 16), random=seeded(5)))

    def test_spoiling_changes_the_brain_alone(self):
        batch = images(8)
        spoilt = spoil(batch.image, batch.brain, seeded())
        outside = (batch.brain * batch.present[:, :, None, None, None]) == 0
        assert (spoilt[outside] == 0).all()
        assert spoilt.isfinite().all()
        changed = (spoilt - batch.image).abs().flatten(2).amax(dim=2)[batch.present]
        assert (changed > 0.01).float().mean() > 0.7
        assert spoilt.min() > LOW - 1
        assert spoilt.max() < HIGH + 10

    def test_blur_keeps_the_mean_and_spreads_by_its_own_sigma(self):
        point = torch.zeros(2, 1, 15, 15, 15)
        point[:, :, 7, 7, 7] = 1
        spread = blur(point, torch.tensor([[0.5], [1.0]]))
        assert torch.allclose(spread.sum(dim=(1, 2, 3, 4)), torch.ones(2), atol=1e-5)
        offset = torch.arange(15.0) - 7
        widths = [(one[0].sum((1, 2)) * offset**2).sum().sqrt() for one in spread]
        assert widths[0] == pytest.approx(0.5, abs=0.05)
        assert widths[1] == pytest.approx(1.0, abs=0.05)


class TestMaskedLoss:
    def test_terms_are_means_over_hidden_and_visible_voxels_of_the_brain(self):
        batch = images()
        hidden = block_masks(batch.image.shape, random=seeded(), block=8)
        counted = batch.brain * batch.present[:, :, None, None, None]
        output = batch.image + 0.3 * hidden + 0.1 * (1 - hidden)
        wrong_elsewhere = output + 50 * (1 - counted)
        loss, terms = masked_loss(wrong_elsewhere, batch, hidden)
        assert terms['hidden'] == pytest.approx(0.3, abs=1e-5)
        assert terms['visible'] == pytest.approx(0.1, abs=1e-5)
        assert terms['edges'] == pytest.approx(0, abs=1e-5)
        assert float(loss) == pytest.approx(0.3 + 0.1 * 0.1, abs=1e-5)

    def test_edges_count_neighbours_that_are_both_hidden(self):
        inside = torch.zeros(1, 1, 4, 4, 4)
        inside[..., 1:3, 1:3, 1:3] = 1
        slope = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 1, 4, 4, 4)
        assert float(edge_error(slope, inside)) == pytest.approx(1 / 3)
        step = torch.where(inside > 0, 1.0, 9.0)
        assert float(edge_error(step, inside)) == 0

    def test_a_perfect_answer_costs_nothing_and_no_brain_gives_no_trouble(self):
        batch = images()
        hidden = block_masks(batch.image.shape, random=seeded())
        assert float(masked_loss(batch.image, batch, hidden)[0]) == 0
        empty = batch._replace(brain=torch.zeros_like(batch.brain))
        output = (batch.image + 1).requires_grad_()
        loss, _ = masked_loss(output, empty, hidden)
        loss.backward()
        assert float(loss.detach()) == 0
        assert output.grad.isfinite().all()

    def test_a_network_learns_to_fill_in(self, tmp_path):
        def head(
            seed,
        ):  # one channel is bright, the other dark; how much differs from place to place
            batch = images(seed=seed)
            level = torch.tensor([1.0, -1.0])[:, None, None, None]
            counted = batch.brain * batch.present[:, :, None, None, None]
            return batch._replace(image=0.3 * batch.image + level * counted)

        class Heads:
            def __getitem__(self, step):
                return head(step)

        task = MaskedAutoencoding(tiny_network(outputs=2))
        validate = HeldOut([head(1000)])
        before = validate(task.network)
        train(
            task,
            Heads(),
            settings(50, learning_rate=3e-2, validate_every=25),
            tmp_path,
            device='cpu',
            validate=validate,
        )
        after = validate(task.network)
        assert validate(task.network) == after
        assert after['validation_hidden'] < 0.7 * before['validation_hidden']


class TestRotation:
    def test_labels_are_axis_and_angle(self):
        cube = torch.arange(27.0).view(3, 3, 3)
        turned = [rotate(cube, label) for label in range(CLASSES)]
        assert CLASSES == 10
        assert torch.equal(turned[0], cube)
        for one in range(CLASSES):
            for other in range(one):
                assert not torch.equal(turned[one], turned[other])
        # quarter turns about the first axis leave the order of its slices
        for label in (1, 2, 3):
            assert torch.equal(turned[label].sum((1, 2)), cube.sum((1, 2)))
        for axis, label in enumerate((2, 5, 8)):
            others = [dimension for dimension in range(3) if dimension != axis]
            assert torch.equal(turned[label], cube.flip(others))

    def test_image_and_brain_turn_together_and_only_cubes_do(self):
        batch = images(3)
        labels = torch.tensor([0, 4, 9])
        image, brain = rotate_each((batch.image, batch.brain), labels)
        for number, label in enumerate(labels.tolist()):
            assert torch.equal(image[number], rotate(batch.image[number], label))
            assert ((image[number] != 0).any(0) <= (brain[number, 0] > 0)).all()
        with pytest.raises(ValueError, match='cubes'):
            rotate(torch.zeros(4, 4, 6), 1)


class TestInpainting:
    def test_the_drawn_share_is_cut_out_whatever_overlaps(self):
        masks = cut_boxes((30, 2, 32, 32, 32), seeded())
        shares = masks.mean(dim=(1, 2, 3, 4))
        assert float(shares.min()) >= 0.15
        assert float(shares.max()) < 0.5
        assert float(shares.std()) > 0.04

    def test_boxes_hold_noise_or_another_sample_and_one_alone_gets_noise(self):
        batch = images(6)
        hidden = cut_boxes(batch.image.shape, seeded())
        cut = cut_out(batch.image, batch.brain, hidden, seeded(1))
        visible = (hidden == 0).expand_as(cut)
        assert torch.equal(cut[visible], batch.image[visible])
        borrowed = [
            torch.equal(cut[n], torch.where(hidden[n] > 0, batch.image[n - 1], batch.image[n]))
            for n in range(6)
        ]
        assert 0 < sum(borrowed) < 6
        alone = images(1)._replace()
        hidden = torch.ones(1, 1, 32, 32, 32)
        for seed in range(4):
            filled = cut_out(alone.image, alone.brain, hidden, seeded(seed))
            assert not torch.equal(filled[:, :1], alone.image[:, :1])

    def test_the_loss_is_that_of_the_cut_voxels(self):
        head = Inpainting(8, 4, 2)
        features = torch.zeros(1, 8, 4, 4, 4)
        assert head(features).shape == (1, 2, 16, 16, 16)
        image = head(features).detach()
        counted = torch.ones(1, 2, 16, 16, 16)
        hidden = torch.zeros(1, 1, 16, 16, 16)
        hidden[..., :8] = 1
        off = image + 2 * hidden + 1 * (1 - hidden)
        loss = head.loss(features, off, counted, hidden)['inpainting']
        assert float(loss.detach()) == pytest.approx(2 + 0.1)


class TestContrast:
    def test_it_is_the_formula_with_negatives_of_others_alone(self):
        random = seeded()
        first, second = torch.randn(2, 3, 5, generator=random)
        person = torch.tensor([0, 0, 1])
        views = torch.nn.functional.normalize(torch.cat([first, second]), dim=1)
        people = [0, 0, 1, 0, 0, 1]
        total = 0.0
        for i in range(6):
            positive = (i + 3) % 6
            likeness = {j: math.exp(float(views[i] @ views[j]) / 0.5) for j in range(6)}
            kept = [j for j in range(6) if people[j] != people[i] or j == positive]
            total -= math.log(likeness[positive] / sum(likeness[j] for j in kept))
        assert float(contrast_loss(first, second, person)) == pytest.approx(total / 6, abs=1e-5)

    def test_without_another_participant_there_is_nothing_to_learn(self):
        first = torch.randn(2, 5, generator=seeded(), requires_grad=True)
        loss = contrast_loss(first, first * 2 + 1, torch.tensor([4, 4]))
        loss.backward()
        assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
        assert first.grad.abs().max() < 1e-6


NETWORKS = [
    ({'Type': 'fast_unet', 'Channels': [4, 8], 'FullResolutionChannels': 2}, 32, 8, 4),
    ({'Type': 'residual_unet', 'Channels': [4, 8, 12]}, 32, 12, 4),
    ({'Type': 'swin_unetr', 'FeatureSize': 12, 'Bottleneck': 'thin'}, 64, 192, 32),
    (
        {
            'Type': 'swin_unet',
            'Channels': [4, 6, 8, 12],
            'FullResolutionChannels': 2,
            'Depths': [2, 1, 1],
            'Heads': [2, 2, 3],
            'AttentionWindow': 3,
        },
        48,
        12,
        16,
    ),
]


@pytest.mark.parametrize(('network', 'edge', 'features', 'factor'), NETWORKS)
def test_the_bottleneck_of_each_network_is_found(network, edge, features, factor):
    made = new_network({'InputChannels': 2, 'OutputChannels': 2, **network}, seed=0)
    assert bottleneck_size(made, 2, edge) == (features, factor)
    found = bottleneck(made, torch.randn(1, 2, edge, edge, edge, generator=seeded()))
    assert found.shape == (1, features, *[edge // factor] * 3)
    assert found.requires_grad


class TestTang:
    def test_the_three_losses_reach_the_encoder_and_not_the_decoder(self):
        task = Tang(tiny_network(outputs=2), channels=2, view=16)
        loss, terms = task.loss(images(3), 0)
        assert set(terms) == {'inpainting', 'rotation', 'contrast'}
        total = sum(float(term) for term in terms.values())
        assert float(loss.detach()) == pytest.approx(total, abs=1e-5)
        assert float(terms['rotation']) == pytest.approx(math.log(CLASSES), abs=0.7)
        loss.backward()
        for name, parameter in task.network.named_parameters():
            learns = name.startswith(('stem.', 'enc.'))
            assert (parameter.grad is not None) == learns, name

    def test_a_step_repeats_and_the_next_one_differs(self):
        task, batch = Tang(tiny_network(outputs=2), channels=2, view=16), images(3)
        one, again, other = (float(task.loss(batch, step)[0].detach()) for step in (0, 0, 1))
        assert one == again
        assert one != other

    def test_views_lie_within_the_patch(self):
        batch = images(4)
        image, brain = crop(batch, 16, seeded())
        assert image.shape == (4, 2, 16, 16, 16)
        assert brain.shape == (4, 1, 16, 16, 16)
        whole, _ = crop(batch, 32, seeded())
        assert torch.equal(whole, batch.image)

    def test_it_trains_resumes_and_validates(self, tmp_path):
        class Some:
            def __getitem__(self, step):
                return images(3, seed=step % 3)

        def run(folder, steps):
            task = Tang(tiny_network(outputs=2), channels=2, view=16)
            validate = task.validation([images(3, seed=9)], 'cpu')
            given = settings(24, learning_rate=5e-3, validate_every=12, checkpoint_every=8)

            class Until(Some):
                def __getitem__(self, step):
                    if step == steps:
                        raise KeyboardInterrupt
                    return super().__getitem__(step)

            return task, train(task, Until(), given, folder, device='cpu', validate=validate)

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / 'a', 13)
        resumed, history = run(tmp_path / 'a', -1)
        whole, other = run(tmp_path / 'b', -1)
        assert history.finished
        for name, tensor in whole.network.state_dict().items():
            assert torch.equal(resumed.network.state_dict()[name], tensor)
        assert {'validation_rotation', 'validation_contrast'} <= set(other.rows[-1])
