"""What the wheel leaves out: packages of the extras, and the parts of the repository that need a clone.

A tool that misses one of them ends in one line that says what to install, instead of a traceback.
"""

# Top-level module of each package of an extra in pyproject.toml.
EXTRA_OF_MODULE = {
    "array_record": "train",
    "espeakng_loader": "demo",
    "grain": "train",
    "huggingface_hub": "train",
    "matplotlib": "train",
    "orbax": "train",
    "tensorboardX": "train",
    "tensorflow_datasets": "train",
    "transformers": "train",
}
# Folders and packages of the repository that are not in the wheel.
CLONE_ONLY = (
    "configs",
    "data_pipeline",
    "deeptalk_jax.evaluation",
    "deeptalk_jax.stages",
    "deeptalk_jax.studies",
    "deeptalk_jax.training",
)


def advice(missing: ModuleNotFoundError) -> str | None:
    """Returns a line that names what to install, or None if the module should have been there."""
    name = missing.name or ""
    if any(name == part or name.startswith(f"{part}.") for part in CLONE_ONLY):
        return (
            f"{name} is not part of the wheel; run this in a clone of the repository with its extra [train]"
        )
    package = name.partition(".")[0]
    if extra := EXTRA_OF_MODULE.get(package):
        return (
            f"the package {package} is not installed; it belongs to the extra [{extra}] of deeptalk_jax: "
            f'pip install ".[{extra}]" in a clone of the repository'
        )
    return None
