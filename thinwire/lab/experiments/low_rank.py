"""Low rank: a few directions of every matrix under error feedback, on matrix regression and on a network.

Vogels, Karimireddy, Jaggi, "PowerSGD: practical low-rank gradient compression for distributed optimization", NeurIPS
2019, https://arxiv.org/abs/1905.13727, where it stands beside EF14; here also beside EF21.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from client.local import LocalOptions
from strategies.matrix_problems import matrix_ridge
from thinwire.lab.experiment import Case, Entry, Experiment, Figure, Fixed, Settings, Tuned
from thinwire.lab.network import NetworkProblem
from thinwire.lab.precision import Single
from thinwire.tasks.digits import Digits

PLAIN = Fixed(1.0)  # the server's rate on updates: plain federated averaging


def network(settings: Settings, seed: int) -> NetworkProblem:
    """The digits, two shards of labels for each of ten clients, five local steps; a small network when quick."""
    hidden, clients = ((16,), 4) if settings.quick else ((128, 64), 10)
    task = Digits(hidden=hidden, partition="shards", shards=2)
    return NetworkProblem(task, clients, LocalOptions(steps=5, rate=0.1, batch=32), seed)


def cases(settings: Settings) -> Mapping[str, Case]:
    """A convex problem of one matrix, and a network."""
    if settings.quick:
        matrix = Case(lambda seed: Single(matrix_ridge(seed, 3, 8, (20, 14), 5.0)), 1e-3, 60)
    else:
        matrix = Case(lambda seed: Single(matrix_ridge(seed)), 1e-10, 1500)
    digits = Case(
        lambda seed: network(settings, seed), 0.0, 20 if settings.quick else 150, "share of test digits wrong"
    )
    return {"matrix": matrix, "digits": digits}


def rank(name: str, rank: int, **options: Any) -> Mapping[str, Any]:
    """A low-rank compressor."""
    return {"name": name, "rank": rank, **options}


def tuned(label: str, method: str, uplink: Mapping[str, Any], **options: Any) -> Entry:
    """On the matrix, at its best step."""
    return Entry(label, {"name": method}, uplink, step=Tuned(), **options)


def trained(label: str, method: str, uplink: Mapping[str, Any], **options: Any) -> Entry:
    """On the network, by local steps."""
    return Entry(label, {"name": method}, uplink, step=PLAIN, work="steps", **options)


def on_the_matrix(settings: Settings) -> tuple[Entry, ...]:
    """Every low-rank compressor under EF21, and what to compare with: 70 scalars make a rank of the 40 x 30 matrix."""
    found = (
        Entry("GD", {"name": "fedavg"}, step=Tuned()),
        tuned("no feedback, SVD rank 1", "fedavg", rank("svd", 1), refused=True, most_rounds=500),
        tuned("EF21, SVD rank 1", "ef21", rank("svd", 1)),
    )
    if settings.quick:
        return (*found, tuned("EF21, power rank 2", "ef21", rank("power", 2)))
    top = {"name": "top-k", "scope": "global", "values": "bf16"}
    return (
        *found,
        tuned("EF21, SVD rank 2", "ef21", rank("svd", 2)),
        tuned("EF21, SVD rank 4", "ef21", rank("svd", 4)),
        tuned("EF21, RSVD rank 2", "ef21", rank("rsvd", 2)),
        tuned("EF21, power rank 2, cold", "ef21", rank("power", 2)),
        tuned("EF21, power rank 2, warm", "ef21", rank("power", 2, warm=True)),
        tuned("EF14, power rank 2, warm", "ef14", rank("power", 2, warm=True), most_rounds=500),
        tuned("EF21, CX rank 2", "ef21", rank("cx", 2)),
        tuned("EF21, subspace rank 4", "ef21", rank("subspace", 4, biased=True)),
        tuned("EF21, one-sided power rank 4", "ef21", rank("one-sided-power", 4)),
        tuned("DIANA, subspace rank 4", "diana", rank("subspace", 4)),
        tuned("EF21, top-k of 70", "ef21", {**top, "fraction": 70 / 1200}),
    )


def on_the_network(settings: Settings, share: float = 1.0) -> tuple[Entry, ...]:
    """Dense FedAvg, low rank and Top-k with and without feedback; ``share`` of the clients in each round."""
    top, some = {"name": "top-k", "fraction": 0.01}, {"participation": share}
    words = "" if share == 1 else ", half"
    found = [
        trained(f"FedAvg, dense{words}", "fedavg", {"name": "identity"}, **some),
        trained(f"no feedback, SVD rank 1{words}", "fedavg", rank("svd", 1), refused=True, **some),
        trained(f"EF21, SVD rank 1{words}", "ef21", rank("svd", 1), **some),
    ]
    if settings.quick:
        return tuple(found)
    found += [
        trained(f"EF21, power rank 1, warm{words}", "ef21", rank("power", 1, warm=True), **some),
        trained(f"EF14, power rank 1, warm{words}", "ef14", rank("power", 1, warm=True), **some),
        trained(f"EF21, top-k 1 %{words}", "ef21", top, **some),
        trained(f"EF14, top-k 1 %{words}", "ef14", top, **some),
    ]
    if share == 1:
        found += [
            trained("EF21, RSVD rank 1", "ef21", rank("rsvd", 1)),
            trained("EF21, CX rank 1", "ef21", rank("cx", 1)),
            trained("EF21, subspace rank 4", "ef21", rank("subspace", 4, biased=True)),
            trained("EF21, one-sided power rank 2", "ef21", rank("one-sided-power", 2)),
            trained("no feedback, top-k 1 %", "fedavg", top, refused=True),
        ]
    return tuple(found)


def figures(settings: Settings) -> Sequence[Figure]:
    """The matrix; the network with all clients and with half of them."""
    found = [
        Figure("matrix", "Matrix ridge 40 x 30, every step tuned", "matrix", on_the_matrix(settings)),
        Figure("digits", "Digits, 17,226 parameters, five local steps", "digits", on_the_network(settings)),
    ]
    if settings.quick:
        return found
    half = on_the_network(settings, 0.5)
    return [*found, Figure("digits-half", "Digits, half of the clients a round", "digits", half)]


EXPERIMENT = Experiment("low-rank", (__doc__ or "").splitlines()[0], cases, figures)
