"""Clients on a GPU: their states live there, only payloads leave it, and every method and order runs."""

from pathlib import Path

import pytest
import torch

import thinwire.flower  # noqa: F401  first, for it silences what typer's and flwr's own imports deprecate

# isort: split
from thinwire.cli.simulation import simulate
from thinwire.run_config import RunConfig

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SMALL = {"rounds": 4, "clients": 3, "participation": {"fraction": 1.0}, "task": {"name": "digits", "hidden": [16]}}
CASES = {
    "ef21": {"method": "ef21", "uplink": "top-k"},
    "ef14 svd": {"method": "ef14", "uplink": "svd"},
    "ef14 warm": {"method": "ef14", "uplink": {"name": "power", "warm": True}},
    "diana natural": {"method": "diana", "uplink": "natural"},
    "fedavg qsgd": {"method": "fedavg", "uplink": "qsgd"},
    "fedavg eden": {"method": "fedavg", "uplink": "eden"},
    "scaffold": {"method": "scaffold", "uplink": "top-k"},
    "ordered": {"method": "ef21", "uplink": "top-k", "order": {"name": "cd-grab"}},
    "examples": {"method": "ef21", "uplink": "top-k", "order": {"name": "id-grab", "unit": "example"}},
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_on_a_gpu_ends_near_that_on_the_cpu(case: str, tmp_path: Path) -> None:
    config = RunConfig.of({**SMALL, **CASES[case], "downlink": "identity"})
    losses = [simulate(config, tmp_path / device, device=device).totals.last["loss"] for device in ("cpu", "cuda")]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)  # rounding only, but a coin may fall otherwise for it
