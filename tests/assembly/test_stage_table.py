"""The rows of the stage table point at things that exist and agree with one another."""

import subprocess
import sys

import pytest

from deeptalk_jax.assembly.stage_table import STAGES, stage_row
from deeptalk_jax.errors import ConfigError
from deeptalk_jax.stages.base import Stage


@pytest.mark.parametrize("row", STAGES.values(), ids=STAGES)
def test_config_and_class_of_a_row_belong_together(row):
    config = row.config_module.get_config()
    assert config.stage == row.name
    assert set(config.upstream) == set(row.upstream)
    stage_class = row.load_class()
    assert issubclass(stage_class, Stage)
    assert stage_class.name == row.name


def test_a_stage_comes_after_those_that_it_builds_on():
    exported = {}
    for row in STAGES.values():
        for flag, parts in row.upstream.items():
            assert set(parts) <= exported[flag], f"{row.name} reads parts that {flag} does not export"
        inherited = {part for parts in row.upstream.values() for part in parts}
        exported[row.name] = inherited | {row.exported_part}


def test_an_unknown_stage_lists_the_stages():
    message = "stage='nothing': expected one of fer, dee, motion_prior, deeptalk, lip_reader, deeptalk_stage2"
    with pytest.raises(ConfigError, match=message):
        stage_row("nothing")


def test_reading_the_table_imports_no_stage_and_no_config():
    code = (
        "import sys, deeptalk_jax.assembly.stage_table as table; table.stage_row('fer'); "
        "assert not [name for name in sys.modules if name.startswith(('deeptalk_jax.stages', 'configs'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
