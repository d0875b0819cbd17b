"""An existing Flower project that takes up Thinwire: its ServerApp, its ClientApp, and its own task.

In a project of Flower's these are three files; ``docs/flower.md`` goes through them.
"""

from client.app import make_app
from examples.own_task import Line
from server.app import run_options
from server.evaluation import ServerModel
from strategies.flower import MethodStrategy
from thinwire.run_config import RunConfig

from flwr.app import ArrayRecord  # isort: skip
from flwr.serverapp import ServerApp  # isort: skip

# server_app.py

server_app = ServerApp()


@server_app.main()
def main(grid, context):
    strategy = MethodStrategy(method="ef21", uplink="top-k", downlink="identity", clients=4)
    result = strategy.start(grid, ArrayRecord(Line().model().state_dict()), num_rounds=20)
    print("trained:", {name: array.numpy().tolist() for name, array in result.arrays.items()})


# The same with keys of `flwr run . -c "rounds=40"`, evaluation on the server, and room for BatchNorm and frozen layers

configured_server_app = ServerApp()


@configured_server_app.main()
def configured(grid, context):
    config = RunConfig.of(run_options(context.run_config))
    model = ServerModel.of(config)
    strategy = MethodStrategy(config, layout=model.layout, buffers=model.buffers)
    result = strategy.start(grid, model.initial_arrays(), evaluate_fn=model.evaluate_fn())
    print("trained:", {name: array.numpy().tolist() for name, array in result.arrays.items()})


# client_app.py

client_app = make_app("examples.own_task:Line")
