"""Proximal operators are what they claim, and have the same bits on every machine."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from strategies.optimiser import SGD
from strategies.optimisers import build_optimiser
from strategies.problems import gaussian
from strategies.prox import L1, L2, PROXES, Ball, Box, Joint, Prox, Simplex, build_prox, fixed_sum
from thinwire import state
from thinwire.errors import ConfigError
from thinwire.layout import Entry, Layout
from thinwire.random import Key, uniforms

LAYOUT = Layout((Entry("x", (30,)), Entry("y.weight", (5, 4)), Entry("y.bias", (7,))))
POINT = gaussian(Key(1, "point"), LAYOUT.numel) * 2
RATE = 0.7
VALUES = {  # h, infinite outside a constraint
    "box": lambda u: 0.0 if float(u.abs().max()) <= 1 + 1e-12 else float("inf"),
    "ball": lambda u: 0.0 if float(u.norm()) <= 1 + 1e-9 else float("inf"),
    "simplex": lambda u: 0.0 if float(u.min()) >= 0 and abs(float(u.sum()) - 1) < 1e-9 else float("inf"),
    "l1": lambda u: 0.5 * float(u.abs().sum()),
    "l2": lambda u: 0.5 * float((u * u).sum()) / 2,
}
OF = {"box": Box(), "ball": Ball(), "simplex": Simplex(), "l1": L1(0.5), "l2": L2(0.5)}


@pytest.mark.parametrize("name", PROXES)
def test_a_proximal_point_is_the_minimiser(name: str) -> None:
    found = OF[name](POINT, RATE)

    def objective(u: torch.Tensor) -> float:
        return RATE * VALUES[name](u) + float(((u - POINT) ** 2).sum()) / 2

    least = objective(found)
    assert least < float("inf")
    for number in range(200):  # feasible points all around: between it and other proximal points
        other = OF[name](gaussian(Key(number, "other"), LAYOUT.numel), RATE)
        assert objective(found + 0.01 * (other - found)) > least - 1e-12
    assert torch.equal(POINT, gaussian(Key(1, "point"), LAYOUT.numel) * 2)  # the point itself is left alone


@pytest.mark.parametrize("name", ["box", "ball", "simplex"])
def test_a_projection_leaves_points_inside_where_they_are(name: str) -> None:
    inside = OF[name](POINT, RATE)
    assert float((OF[name](inside, 5.0) - inside).abs().max()) < 1e-15


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_simplices_of_every_size_sum_to_their_total(size: int) -> None:
    vector = gaussian(Key(size, "size"), size) * 10
    found = Simplex(2.5)(vector, 1.0)
    assert abs(float(found.sum()) - 2.5) < 1e-12
    assert float(found.min()) >= 0
    assert float(Simplex(2.5)(vector.float(), 1.0).sum()) == pytest.approx(2.5, abs=1e-5)
    equal = Simplex(2.5)(torch.ones(size, dtype=torch.float64), 1.0)
    assert torch.allclose(equal, torch.full_like(equal, 2.5 / size), rtol=1e-14)


def test_a_fixed_sum_is_a_sum() -> None:
    for size in (0, 1, 2, 3, 5, 8, 1001):
        values = torch.from_numpy(uniforms(Key(size), size))
        assert fixed_sum(values) == pytest.approx(float(values.sum()), rel=1e-14)


def test_named_tensors_are_moved_one_by_one_and_others_stay() -> None:
    both = Joint((Simplex(tensors=("x",)), Box(0.0, 0.5, tensors=("y.*",))))
    found = LAYOUT.unflatten(both(POINT, RATE, LAYOUT))
    before = LAYOUT.unflatten(POINT)
    assert torch.equal(found["x"], Simplex()(before["x"], RATE))
    assert torch.equal(found["y.bias"], before["y.bias"].clamp(0.0, 0.5))
    assert float(found["y.weight"].max()) == 0.5
    alone = LAYOUT.unflatten(Ball(tensors=("y.bias",))(POINT, RATE, LAYOUT))
    assert torch.equal(alone["x"], before["x"])
    assert float(alone["y.bias"].norm()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("bax", "unknown here 'bax'; did you mean 'box'"),
        ({"low": 1}, "needs a name; known: ball, box, l1, l2, simplex, none"),
        (3, "needs a name"),
        ({"name": "box", "low": 2.0}, "low = 2.0 must not be above high = 1.0"),
        ({"name": "ball", "radius": 0.0}, "radius = 0.0 must be positive"),
        ({"name": "l1", "weight": -1.0}, "weight = -1.0 must be positive"),
        ({"name": "simplex", "sum": 2}, "unknown key 'here.sum'"),
        ([{"name": "box"}, "bol"], "unknown here 'bol'"),
    ],
)
def test_what_is_wrong_in_a_configuration_is_named(options: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_prox(options, "here")


def test_a_configuration_may_leave_it_out() -> None:
    assert build_prox(None, "here") is build_prox("none", "here") is None
    assert build_prox({"name": "none"}, "here") is None
    assert build_prox("l1", "here") == L1()
    assert build_prox([{"name": "box", "tensors": "x"}], "here") == Joint((Box(tensors=("x",)),))


def test_sgd_takes_it_by_name_and_other_optimisers_refuse_it() -> None:
    assert build_optimiser({"name": "sgd", "rate": 0.5, "prox": "box"}) == SGD(0.5, Box())
    with pytest.raises(ConfigError, match=r"optimiser.prox needs plain sgd"):
        build_optimiser({"name": "sgd", "momentum": 0.9, "rate": 0.5, "prox": "box"})
    with pytest.raises(ConfigError, match=r"optimiser.prox needs plain sgd"):
        build_optimiser({"name": "fedadam", "prox": "box"})
    optimiser = SGD(1.0, L1(0.5, tensors=("x",)))
    optimiser.begin(LAYOUT)
    moved, _ = optimiser.step(POINT, torch.zeros_like(POINT), None, LAYOUT)
    assert torch.equal(moved[30:], POINT[30:])
    with pytest.raises(ConfigError, match=r"no trained tensor matches 'z'"):
        SGD(1.0, Box(tensors=("z",))).begin(LAYOUT)


def digests() -> list[str]:
    """One of each operator's answers to long vectors of both dtypes."""
    found = []
    for dtype, (name, prox) in itertools.product((torch.float32, torch.float64), sorted(OF.items())):
        vector = (torch.from_numpy(uniforms(Key(7, name), 50_001)) * 6 - 3).to(dtype)
        answers: tuple[Prox, ...] = (prox, Ball(30.0), Simplex(1000.0)) if name == "box" else (prox,)
        found.append(state.digest(tuple(answer(vector, RATE) for answer in answers)).hex())
    return found


def test_their_bits_are_the_same_on_every_instruction_set_and_thread_count() -> None:
    wanted = digests()
    for capability, threads in (("default", 2), ("avx2", 1)):  # and this process: the best there is
        done = subprocess.run(
            [sys.executable, __file__, str(threads)],
            env={**os.environ, "ATEN_CPU_CAPABILITY": capability, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == wanted, f"{capability} with {threads} threads"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", PROXES)
def test_their_bits_are_the_same_on_a_gpu(name: str) -> None:
    for dtype in (torch.float32, torch.float64):
        vector = (torch.from_numpy(uniforms(Key(7, name), 50_001)) * 6 - 3).to(dtype)
        assert torch.equal(OF[name](vector.cuda(), RATE).cpu(), OF[name](vector, RATE))


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print("\n".join(digests()))
