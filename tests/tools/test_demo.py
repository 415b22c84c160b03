"""The parts of the demo that a test can check without running it."""

from pathlib import Path

from deeptalk_jax.assembly.stage_table import STAGES
from deeptalk_jax.tools.demo_stages import stage_configs
from tests.support.commands import run_command


def test_each_stage_reads_the_models_of_earlier_stages():
    configs = stage_configs(Path("out"), Path("data"))
    assert [config.stage for config in configs] == list(STAGES)
    earlier = set()
    for config in configs:
        assert config.data.data_dir == "data"
        assert set(config.upstream.values()) <= {f"out/{stage}/model" for stage in earlier}
        earlier.add(config.stage)


def test_help_loads_no_heavy_module():
    program = (
        "import sys, deeptalk_jax.tools.demo as demo; "
        "print({'flax', 'optax', 'orbax', 'grain', 'tensorflow_datasets', 'matplotlib', 'scipy'} & set(sys.modules))"
    )
    assert run_command("-c", program) == (0, "set()\n", "")


def test_sound_and_emotion_are_checked_before_anything_is_built(commands, tmp_path):
    (tmp_path / "bad.wav").write_text("<html>404</html>")
    out = tmp_path / "out"
    done = commands.run("deeptalk_jax.tools.demo", f"--out={out}", f"--audio={tmp_path / 'bad.wav'}")
    assert done == (2, "", f"error: {tmp_path}/bad.wav: not sound but an HTML page\n")
    done = commands.run("deeptalk_jax.tools.demo", f"--out={out}", "--emotion=cheerfull")
    assert done.status == 2 and "cheerfull" in done.stderr and done.stderr.count("\n") == 1
    assert not out.exists()
