"""Writes deeptalk_jax/interop/published_configs.json: configs of the imported models, for the wheel, without `configs`.

    python -m tests.goldens.make_published_configs

An import needs no key that came later, like a model directory that was written before, so the file is written again
only where a key of it has got another name or value; a test compares them.
"""

import json

from deeptalk_jax.assembly.stage_table import stage_row
from deeptalk_jax.interop.published_parts import CONFIGS_FILE

# Variant and ablation that reproduce the published models.
CONFIG_ARGS = {
    "fer": "variant=base",
    "dee": "variant=base",
    "motion_prior": "variant=base,ablation=published_smoothing",
    "deeptalk": "variant=base,ablation=published_inference",
}


def published_configs() -> dict[str, dict]:
    """Returns the configs by stage, as JSON has them."""
    configs = {name: stage_row(name).config_module.get_config(arg) for name, arg in CONFIG_ARGS.items()}
    return {name: json.loads(config.to_json_best_effort()) for name, config in configs.items()}


if __name__ == "__main__":
    CONFIGS_FILE.write_text(json.dumps(published_configs(), indent=1, sort_keys=True) + "\n")
