"""Configs of all stages, small enough to compile in seconds.

The sizes are odd and distinct where the model allows it, so that a transposed axis fails a test.
"""

from pathlib import Path

from ml_collections import ConfigDict

from deeptalk_jax.assembly.stage_table import stage_row

_SPEECH = {"model.speech.dim": 8, "model.speech.num_mels": 10, "model.speech.num_heads": 2}

# Sizes of the models, as overrides of the `mini` configs.
TINY_MODELS = {
    "fer": {"model.hidden_dims": (9, 11, 10, 8, 7, 6, 5)},
    "dee": {
        "model.embedding_dim": 6,
        "model.motion_dim": 8,
        "model.motion_layers": 1,
        "model.num_heads": 2,
        "model.mlp_dim": 12,
        "model.speech.window_samples": 400,
        "model.speech.hop_samples": 160,
        **_SPEECH,
    },
    "motion_prior": {
        "model.dim": 8,
        "model.mlp_dim": 12,
        "model.decoder_mlp_dim": 20,
        "model.num_heads": 4,
        "model.codebook_size_top": 6,
        "model.codebook_size_bottom": 7,
    },
    "deeptalk": {
        "model.feature_dim": 8,
        "model.mlp_dim": 12,
        "model.predictor_dim": 16,
        "model.num_layers": 1,
        "model.num_heads": 4,
        **_SPEECH,
    },
    "lip_reader": {
        "model.crop_size": 12,
        "model.front_channels": 3,
        "model.channels": (5,),
        "model.num_blocks": (1,),
    },
}
TINY_MODELS["deeptalk_stage2"] = TINY_MODELS["deeptalk"]

_WINDOW = {"data.window_frames": 16}
# Overrides of what is not the size of a model: short windows, and options that a test of training observes.
_TINY_TRAINING = {
    "fer": {"data.window_frames": 4},
    "dee": {
        "data.window_frames": 20,
        "optimiser.frozen": ("speech_encoder/conv_*", "speech_encoder/mel_map/*"),
        "optimiser.rate_factors": (("speech_encoder/*", 0.5),),
    },
    "motion_prior": {"model.revive_after": 2, **_WINDOW},
    "deeptalk": _WINDOW,
    "lip_reader": {"data.window_frames": 2, "data.max_clip_frames": 4},
    "deeptalk_stage2": {
        "loss.lip_reading_frames": 2,
        "loss.lip_reading_every": 2,
        "loss.motion_emotion_weight": 0.1,
        **_WINDOW,
    },
}
# Four steps on eight clips, each logged, with two checkpoints.
_SHORT_RUN = {
    "num_steps": 4,
    "log_every_steps": 1,
    "checkpoint_every_steps": 2,
    "validate_every_steps": 0,
    "num_devices": 1,
    "optimiser.warmup_steps": 0,
    # With Adam's usual epsilon, a gradient that is only rounding error takes a whole step in a random direction.
    "optimiser.epsilon": 1e-3,
    "data.batch_size": 8,
    "data.num_threads": 0,
    "data.max_clip_frames": 80,
    "data.eval_clips": 8,
    "data.eval_batch_size": 4,
}


def tiny_model_config(stage: str, **changes) -> ConfigDict:
    """Returns the locked `mini` config of a stage with a tiny model; `changes` are dotted keys."""
    config = stage_row(stage).config_module.get_config("variant=mini").unlock()
    config.update_from_flattened_dict(TINY_MODELS[stage] | changes)
    return config.lock()


def tiny_training_config(stage: str, data_dir: Path, upstream: Path | None = None, **changes) -> ConfigDict:
    """Returns a locked config that trains a tiny model for four steps.

    Args:
        stage: name of the stage.
        data_dir: root directory of the datasets.
        upstream: directory with the work directories of the stages that this one builds on.
        changes: further overrides, as dotted keys.
    """
    settings = _SHORT_RUN | {"data.data_dir": str(data_dir)} | _TINY_TRAINING[stage] | changes
    config = tiny_model_config(stage, **settings).unlock()
    for name in config.upstream:
        config.upstream[name] = str(upstream / name / "model")
    return config.lock()
