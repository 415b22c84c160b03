"""The launch files, as far as they can be checked without a cluster; tests/test_docs.py checks docs/launch.md."""

import ast
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from deeptalk_jax.cli import EXIT_INTERRUPTED

ROOT = Path(__file__).resolve().parent.parent
SLURM = ROOT / "launch" / "gpus.slurm"
MACHINES = {"tpu-v5-lite-podslice": {"chips_per_host": 4}}


def train_flags():
    """Returns the names of the flags that train.py defines."""
    calls = (
        node for node in ast.walk(ast.parse((ROOT / "train.py").read_text())) if isinstance(node, ast.Call)
    )
    return {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr.startswith("DEFINE")
    }


def check_flags(words):
    """Checks that train.py has all flags, and that the file of --config exists."""
    for word in (word for word in words if word.startswith("--")):
        name, _, value = word[2:].partition("=")
        assert name.partition(".")[0] in train_flags(), word
        if name == "config":
            assert (ROOT / value.partition(":")[0]).is_file(), word


def test_the_slurm_script_fits_train_py():
    subprocess.run(["bash", "-n", SLURM], check=True)
    text = SLURM.read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", text, re.MULTILINE))
    assert options["ntasks-per-node"] == options["gpus-per-node"]  # JAX gives each process its one GPU
    assert options["signal"].startswith("TERM@") and int(options["signal"][5:]) >= 30
    assert f"INTERRUPTED={EXIT_INTERRUPTED} " in text
    (command,) = re.findall(r"train\.py (.*)$", text, re.MULTILINE)[-1:]
    check_flags(shlex.split(command))


def test_the_slurm_script_requeues_an_interrupted_run(tmp_path):
    """`srun` and `scontrol` are replaced by scripts."""
    for name, body in {"srun": "exit $SRUN_STATUS", "scontrol": "echo scontrol $@"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    for status, printed in ((0, ""), (2, ""), (EXIT_INTERRUPTED, "scontrol requeue 7\n")):
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SRUN_STATUS": str(status), "SLURM_JOB_ID": "7"}
        ended = subprocess.run(["bash", SLURM], env=environment, capture_output=True, text=True)
        assert (ended.returncode, ended.stdout) == (status, printed)


def test_the_jobset_fits_its_machines_and_train_py():
    jobset = yaml.safe_load((ROOT / "launch" / "jobset.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    machine = MACHINES[pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"]]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert container["resources"]["limits"]["google.com/tpu"] == machine["chips_per_host"]
    assert spec["parallelism"] == spec["completions"] == rows * columns // machine["chips_per_host"]
    assert pod["terminationGracePeriodSeconds"] >= 30
    assert container["command"] == ["python", "train.py"]
    check_flags(container["args"])
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }


def test_the_dockerfile_copies_files_that_exist_and_runs_what_it_copies():
    """The image itself is not built: CI has no container engine."""
    text = (ROOT / "launch" / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    assert {instruction for instruction, _ in lines} == {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "CMD"}
    copied = set()
    for instruction, arguments in lines:
        if instruction == "COPY":
            *sources, target = arguments.split()
            assert all((ROOT / source).exists() for source in sources), arguments
            # A folder is copied under its own name, files into the working directory.
            assert target == "./" if len(sources) > 1 else [target] == sources
            copied.update(sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"], "pyproject.toml", "requirements.txt"} <= copied
    scripts = {path.name for path in ROOT.glob("*.py")}
    assert {*scripts, "configs", "data_pipeline", "deeptalk_jax"} <= copied
    arguments = dict(lines)
    name, _, default = arguments["ARG"].partition("=")
    assert f'".[${{{name}}}]"' in arguments["RUN"] and default in project["optional-dependencies"]
    jobset = yaml.safe_load((ROOT / "launch" / "jobset.yaml").read_text())
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    command = pod["containers"][0]["command"]
    assert json.loads(arguments["CMD"])[:2] == command and command[1] in copied
    assert f"--tag={pod['containers'][0]['image']} " in (ROOT / "docs" / "launch.md").read_text()


@pytest.mark.parametrize("file", ["launch/gpus.slurm", "launch/jobset.yaml", "launch/Dockerfile"])
def test_launch_page_names_the_launch_files(file):
    assert file in (ROOT / "docs" / "launch.md").read_text()
