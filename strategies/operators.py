"""A client's operator F_m of a variational inequality, as far as its work goes."""

from torch import Tensor

from strategies.base import Oracle
from strategies.descent import Work
from thinwire.random import Key


def operator_at(work: Work, oracle: Oracle, point: Tensor, key: Key) -> Tensor:
    """F_m at a point: over all examples, of the minibatch that the key draws, or of local training from there.

    The last is the pseudo-operator ``(z - z_H)/(H rate)`` after H steps, a heuristic: biased where clients differ.
    """
    if work == "steps":
        local = oracle.local(point, key)
        return (local.update / (local.steps * local.rate)).to(point)
    return (oracle.sample(point, key) if work == "minibatch" else oracle.full(point)).to(point)
