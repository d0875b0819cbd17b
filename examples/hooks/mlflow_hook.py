"""A run's rounds in MLflow:

    pip install 'thinwire[hooks]'
    export MLFLOW_TRACKING_URI=sqlite:///mlflow.db        # or the address of a tracking server
    cd examples/hooks && thinwire server --hook mlflow_hook:MLflowHook ...

The experiment is MLFLOW_EXPERIMENT_NAME, by default "thinwire"; the run is called like the run directory. A resumed run
goes on in the MLflow run that it began, whose identity lies in the run directory.
"""

import os

import mlflow

from server.event_files import scalars

IDENTITY = "mlflow.txt"  # in the run directory
MOST_CHARACTERS = 500  # of a parameter, to MLflow


class MLflowHook:
    def __init__(self, run_dir, options):
        self.client = mlflow.MlflowClient()
        kept = run_dir / IDENTITY
        if kept.exists():
            self.run_id = kept.read_text().strip()
            self.client.update_run(self.run_id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "thinwire")
        experiment = self.client.get_experiment_by_name(name)
        identity = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.run_id = self.client.create_run(identity, run_name=run_dir.name).info.run_id
        kept.write_text(self.run_id)
        for key, value in flat(options):
            self.client.log_param(self.run_id, key, str(value)[:MOST_CHARACTERS])

    def record(self, kind, fields):
        if kind == "round":
            for name, value in scalars(fields).items():
                self.client.log_metric(self.run_id, name, value, step=fields["round"])

    def close(self):
        self.client.set_terminated(self.run_id)


def flat(options, where=""):
    """The options by their dotted keys, as on the command line."""
    for key, value in options.items():
        if isinstance(value, dict):
            yield from flat(value, f"{where}{key}.")
        else:
            yield f"{where}{key}", value
