"""A network over sets: what its layers compute, and that the order of a set does not matter."""

from __future__ import annotations

import torch

from oneword.training.deep_sets import DeepSets, Equivariant


def network(**settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        return DeepSets(6, 16, 4, **settings).eval()


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


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
        order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
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


def test_dropout_is_there_while_it_learns_alone():
    net, sets = network(dropout=0.5), draws(2, 5, 6)
    assert torch.equal(net(sets), net(sets))
    net.train()
    assert not torch.equal(net(sets), net(sets))
