"""A network over sets: what its layers compute, and that the order of a set does not matter."""

from __future__ import annotations

import pytest
import torch

from oneword.training.deep_sets import DeepSets, Equivariant, draw_weights


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(**settings):
    net = DeepSets(6, 16, 4, **settings)
    draw_weights(net, seeded())
    return net


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed))


def test_a_layer_is_each_members_map_less_a_map_of_the_mean():
    layer, sets = Equivariant(3, 5), draws(2, 4, 3)
    for one, out in zip(sets, layer(sets), strict=True):
        mean = sum(one) / len(one)
        for member, found in zip(one, out, strict=True):
            expected = layer.own.weight @ member + layer.own.bias - layer.mean.weight @ mean
            assert torch.allclose(found, expected, atol=1e-6)
    assert layer.mean.bias is None


def test_order_does_not_matter_and_every_member_does():
    net, sets = network(), draws(3, 5, 6)
    found = net(sets)
    for seed in range(4):
        order = torch.randperm(5, generator=seeded(seed))
        assert (net(sets[:, order]) - found).abs().max() < 1e-6
    for i in range(5):
        other = sets.clone()
        other[:, i] = draws(3, 6, seed=9)
        assert (net(other) - found).abs().amax(dim=1).min() > 1e-3


def test_sets_of_any_size_and_any_batch():
    net, sets = network(), draws(4, 7, 6)
    assert [net(sets[:, :num]).shape for num in (1, 5, 7)] == [(4, 4)] * 3
    assert torch.allclose(torch.cat([net(one[None]) for one in sets]), net(sets), atol=1e-6)
    # a set with each member twice has the same mean, and so the same vector
    assert torch.allclose(net(torch.cat([sets, sets], dim=1)), net(sets), atol=1e-6)


def test_values_are_zeroed_where_a_generator_says_which_and_the_mean_stays():
    net, sets = network(dropout=0.5), draws(1, 5, 6)
    assert torch.equal(net(sets), net(sets))
    assert torch.equal(net(sets, seeded(3)), net(sets, seeded(3)))
    assert not torch.equal(net(sets, seeded(3)), net(sets, seeded(4)))
    assert torch.equal(network()(sets, seeded(3)), net(sets))
    values, g = torch.ones(1, 10_000), seeded()
    kept = net._dropped(values, g)
    assert {*kept.unique().tolist()} == {0.0, 2.0}
    assert float(kept.mean()) == pytest.approx(1, abs=0.05)


def test_weights_are_a_generators_and_within_torchs_bounds():
    first, same, other = network(), network(), DeepSets(6, 16, 4)
    draw_weights(other, seeded(1))
    for a, b, c in zip(first.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    wide = torch.nn.Linear(100, 200)
    draw_weights(wide, seeded())
    assert wide.weight.abs().max() <= 0.1
    assert float(wide.weight.detach().std()) == pytest.approx(0.1 / 3**0.5, rel=0.02)
