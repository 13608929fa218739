"""λ-returns: targets that average n-step returns of all n."""

from __future__ import annotations

import numpy as np

from simple_dqn.replay_memory import HasTargets, ReplayMemory


def refresh_targets(memory: ReplayMemory, network: HasTargets) -> None:
    """Set the target of every valid transition to its λ-return by `network`. Do nothing if return_lambda is 0.

    G_t = r_t + γ · ((1 − λ) · V(s_t+1) + λ · G_t+1), where V is the bootstrap value. At the end of an episode
    G_t = r_t, and if the next transition is not valid G_t = r_t + γ · V(s_t+1). Peng and Williams 1994,
    doi:10.1007/BF00114731; recomputed as the network learns: Daley and Amato 2019, arXiv:1810.09967.
    """
    if memory.targets is None:
        return
    held = zip(memory.added.tolist(), memory.counts.tolist(), strict=True)
    indexes = np.concatenate([memory.indexes(lane, range(n - count, n)) for lane, (n, count) in enumerate(held)])
    indexes = indexes[memory.is_valid(indexes)]  # (valid,), of each lane the oldest first
    if not len(indexes):  # `minibatch` will say so
        return
    size, weights = memory.batch_size, np.ones(memory.batch_size, np.float32)
    batches = np.resize(indexes, (-(-len(indexes) // size), size))  # the last one is filled up with the first indexes
    parts = [network.target_arrays(memory.assemble(batch, weights)) for batch in batches]
    returns, discounts, values = (np.concatenate(field).tolist() for field in zip(*parts, strict=True))
    goes_on = memory.after(indexes, 1) == np.append(indexes[1:], -1)  # not after an end: the next would be invalid
    target = 0.0
    for k in reversed(range(len(indexes))):
        value = values[k] + memory.options.return_lambda * (target - values[k]) if goes_on[k] else values[k]
        memory.targets[indexes[k]] = target = returns[k] + discounts[k] * value
