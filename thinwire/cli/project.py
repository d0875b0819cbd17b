"""A whole small project around a task of one's own: the files that ``thinwire init --app`` writes."""

import importlib.util
import re
from collections.abc import Mapping

from thinwire.cli.commented import client_toml, run_toml
from thinwire.errors import ConfigError

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

TASK = '''"""What is trained: a model, its data, a loss, an evaluation. Put your own in their places."""

from dataclasses import dataclass

import torch
from torch import nn

from thinwire.tasks.base import Task
from thinwire.tasks.examples import TensorExamples


@dataclass(frozen=True)
class {class_name}(Task):
    """Tell two half moons apart. Each field is an option: `--set task.noise=0.2`, or a key below [task] in run.toml."""

    noise: float = 0.15  # standard deviation around the moons
    hidden: int = 64  # width of the hidden layers

    def model(self):
        """A new model. Its first weights count on the server only; clients receive theirs."""
        width = self.hidden
        return nn.Sequential(
            nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)
        )

    def train_examples(self, partition, partitions, seed):
        """What one client has: read your own data here, from a folder that an option names.

        Client `partition` of `partitions`. These clients are uneven, as clients are: each sees one moon more often.
        """
        return moons(200, self.noise, share=0.2 + 0.6 * (partition % 2), seed=1_000_003 * (seed + 1) + partition)

    def test_examples(self):
        """What the server evaluates on."""
        return moons(1000, self.noise, share=0.5, seed=0)

    def loss(self, model, batch):
        """Mean over a batch, to differentiate."""
        points, moon = batch
        return nn.functional.cross_entropy(model(points), moon)

    def evaluate(self, model, examples, device):
        """At least `loss`; any other number beside it is recorded and drawn."""
        points, moon = examples.batch(torch.arange(len(examples)), device)
        scores = model(points)
        right = (scores.argmax(1) == moon).double().mean().item()
        return {{"loss": nn.functional.cross_entropy(scores, moon).item(), "accuracy": right}}


def moons(count, noise, share, seed):
    """Points (count, 2) and the moon that each is on, 0 or 1; `share` of them are on moon 1."""
    random = torch.Generator().manual_seed(seed)
    moon = (torch.rand(count, generator=random) < share).long()
    angle = torch.pi * torch.rand(count, generator=random)
    upper = torch.stack([angle.cos(), angle.sin()], dim=1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], dim=1)
    points = torch.where(moon[:, None] == 1, lower, upper)
    return TensorExamples(points + noise * torch.randn(count, 2, generator=random), moon)
'''

TEST = '''"""The project as a test: a short run learns, and what it learns is better than chance."""

import json
import subprocess
import sys

import torch
from {module} import {class_name}


def test_the_model_takes_the_examples():
    task = {class_name}()
    examples = task.train_examples(0, {clients}, seed=0)
    assert task.loss(task.model(), examples.batch(torch.arange(8), torch.device("cpu"))).item() > 0


def test_a_short_run_learns(tmp_path):
    command = [sys.executable, "-c", "from thinwire.cli import main; main()", "simulate", "-c", "run.toml"]
    command += ["--rounds", "15", "--no-baseline", "--json", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] > 0.7
'''

README = """# {class_name}

A federation that trains its own task with Thinwire: compressed both ways, each
update applied exactly once. The task, model and data and loss, is `{module}.py`; what a run is, `run.toml`; what a
client's machine says for itself, `client.toml`. All commands are given in this folder.

In one process, with dense FedAvg beside it:

```bash
thinwire simulate -c run.toml
```

With real clients, first on one machine, each command in a terminal of its own:

```bash
thinwire server -c run.toml --out runs/first
thinwire client -c client.toml --name client-0
thinwire client -c client.toml --name client-1
thinwire client -c client.toml --name client-2
thinwire client -c client.toml --name client-3
thinwire watch runs/first
```

Stopped or killed, the server goes on with

```bash
thinwire server --resume runs/first
```

Between machines each of them has this folder (a server can never make a client import code), the server a certificate
(`thinwire certs init`, `thinwire certs server HOST`, `thinwire certs client NAME`), and `client.toml` the server's
address. `thinwire doctor -c client.toml` says what is still in the way.

The test (`pip install pytest` brings what runs it):

```bash
python -m pytest
```
"""

CLIENTS = 4


def project(name: str) -> Mapping[str, str]:
    """File name to content. Raises ConfigError for a name that cannot be a module of its own."""
    module = name.replace("-", "_")
    if not NAME.fullmatch(module):
        raise ConfigError(f"--app {name!r}; allowed: lower-case letters, digits and dashes, a letter first")
    if importlib.util.find_spec(module) is not None:
        raise ConfigError(f"--app {name!r}: Python has a module {module!r} already; choose another name")
    class_name = "".join(word.capitalize() for word in module.split("_"))
    names = {"module": module, "class_name": class_name, "clients": CLIENTS}
    task = {"name": f"{module}:{class_name}"}
    thin = {"name": "top-k", "fraction": 0.05}
    run = {"rounds": 60, "clients": CLIENTS, "uplink": thin, "downlink": thin, "local": {"steps": 10, "rate": 0.2}}
    return {
        f"{module}.py": TASK.format(**names),
        f"test_{module}.py": TEST.format(**names),
        "run.toml": run_toml({**run, "task": task}),
        "client.toml": client_toml({"task": task}),
        "README.md": README.format(**names),
    }
