"""A run's rounds in Weights & Biases:

    pip install 'thinwire[hooks]'
    export WANDB_PROJECT=thinwire                         # and WANDB_API_KEY, or WANDB_MODE=offline
    cd examples/hooks && thinwire server --hook wandb_hook:WandbHook ...

The run is called like the run directory, where its files lie too. A resumed run goes on in the run that it began, whose
identity lies there.
"""

import wandb

from server.event_files import scalars

IDENTITY = "wandb.txt"  # in the run directory


class WandbHook:
    def __init__(self, run_dir, options):
        kept = run_dir / IDENTITY
        identity = kept.read_text().strip() if kept.exists() else None
        self.run = wandb.init(
            name=run_dir.name, id=identity, resume="allow", dir=str(run_dir), config=dict(options), job_type="server"
        )
        kept.write_text(self.run.id)

    def record(self, kind, fields):
        if kind == "round":
            self.run.log(scalars(fields), step=fields["round"])

    def close(self):
        self.run.finish()
