"""The same work as a Flower app: clients add a constant to every number, `FedAvg` averages, rounds are timed."""

import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """Add the constant."""
    (model,) = message.content["arrays"].to_numpy_ndarrays()
    content = {"arrays": ArrayRecord([model + np.float32(2.0**-10)]), "metrics": MetricRecord({"num-examples": 6})}
    return Message(content=RecordDict(content), reply_to=message)


class Timed(FedAvg):
    """`FedAvg` that writes down what each round took, from asking to the new model."""

    def configure_train(self, server_round, *args, **kwargs):
        """Begin a round."""
        self.began = time.perf_counter()
        return super().configure_train(server_round, *args, **kwargs)

    def aggregate_train(self, *args, **kwargs):
        """End it."""
        done = super().aggregate_train(*args, **kwargs)
        with self.seconds.open("a") as file:
            file.write(f"{time.perf_counter() - self.began}\n")
        return done


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Train for so many rounds."""
    asked = context.run_config
    sites = int(asked["sites"])
    few = {"min_train_nodes": sites, "min_available_nodes": sites}
    strategy = Timed(fraction_train=1.0, fraction_evaluate=0.0, **few)
    strategy.seconds = Path(str(asked["seconds"]))
    first = ArrayRecord([np.zeros(int(asked["values"]), np.float32)])
    strategy.start(grid=grid, initial_arrays=first, num_rounds=int(asked["rounds"]), timeout=3600)
