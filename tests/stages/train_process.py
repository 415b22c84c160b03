"""Trains as one process of a run, for `test_processes.py`: CONFIG.json WORKDIR COORDINATOR PROCESS_ID [SIGNAL STEP].

With SIGNAL and STEP it sends itself that signal after that number of steps.
"""

import json
import signal

from ml_collections import ConfigDict

from deeptalk_jax.cli import run_tool

NUM_PROCESSES = 2


def main(arguments):
    config, workdir, coordinator, process_id, *when = arguments
    from deeptalk_jax.training.processes import join_processes

    join_processes(coordinator, NUM_PROCESSES, int(process_id))
    from deeptalk_jax.stages.run import train
    from deeptalk_jax.training.trainer import Trainer

    if when:
        number, at_step = map(int, when)
        taken = Trainer.next_step

        def next_step(self):
            metrics = taken(self)
            if self.step == at_step:
                signal.raise_signal(number)
            return metrics

        Trainer.next_step = next_step
    with open(config) as file:
        train(ConfigDict(json.load(file)).lock(), workdir)


run_tool(main, takes_arguments=True)
