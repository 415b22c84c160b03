"""A tiny corpus and tiny stages on it, made once for all of pytest-xdist's workers."""

import os

import pytest
from filelock import FileLock

from configs import dee, deeptalk, deeptalk_stage2, fer, lip_reader, motion_prior
from data_pipeline.prepare import prepare

# Small enough to compile in seconds; odd sizes so that a transposed axis shows.
TINY = {
    "fer": {"model.hidden_dims": (9, 11, 10, 8, 7, 6, 5), "data.window_frames": 4},
    "dee": {
        "model.embedding_dim": 6,
        "model.motion_dim": 8,
        "model.motion_layers": 1,
        "model.num_heads": 2,
        "model.mlp_dim": 12,
        "model.speech.dim": 8,
        "model.speech.num_mels": 10,
        "model.speech.num_heads": 2,
        "model.speech.window_samples": 400,
        "model.speech.hop_samples": 160,
        "data.window_frames": 20,
        "optimiser.frozen": ("speech_encoder/conv_*", "speech_encoder/mel_map/*"),
        "optimiser.rate_factors": (("speech_encoder/*", 0.5),),
    },
    "motion_prior": {
        "model.dim": 8,
        "model.mlp_dim": 12,
        "model.decoder_mlp_dim": 20,
        "model.num_heads": 4,
        "model.codebook_size_top": 6,
        "model.codebook_size_bottom": 7,
        "model.revive_after": 2,
        "data.window_frames": 16,
    },
    "deeptalk": {
        "model.feature_dim": 8,
        "model.mlp_dim": 12,
        "model.predictor_dim": 16,
        "model.num_layers": 1,
        "model.num_heads": 4,
        "model.speech.dim": 8,
        "model.speech.num_mels": 10,
        "model.speech.num_heads": 2,
        "data.window_frames": 16,
    },
    "lip_reader": {
        "model.crop_size": 12,
        "model.front_channels": 3,
        "model.channels": (5,),
        "model.num_blocks": (1,),
        "data.window_frames": 2,
        "data.max_clip_frames": 4,
    },
}
TINY["deeptalk_stage2"] = TINY["deeptalk"] | {
    "loss.lip_reading_frames": 2,
    "loss.lip_reading_every": 2,
    "loss.motion_emotion_weight": 0.1,
}
MODULES = {
    "fer": fer,
    "dee": dee,
    "motion_prior": motion_prior,
    "deeptalk": deeptalk,
    "lip_reader": lip_reader,
    "deeptalk_stage2": deeptalk_stage2,
}


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """`(name, make) -> directory`: the first worker that wants it calls `make(directory)`, the others wait."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of this run, above the workers' own

    def directory_of(name, make):
        directory, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                make(directory)
                done.touch()
        return directory

    return directory_of


@pytest.fixture(scope="session")
def corpus(made_once):
    def make(directory):
        prepare("synthetic_talk", str(directory), num_clips=64, num_workers=2)

    return made_once("corpus", make)


@pytest.fixture(scope="session")
def tiny_config(corpus):
    """`(stage, upstream directory, overrides) -> config`, unlocked copies of the real mini configs."""

    def make(stage, upstream=None, **changes):
        config = MODULES[stage].get_config("variant=mini").unlock()
        config.num_steps = 4
        config.log_every_steps = 1
        config.checkpoint_every_steps = 2
        config.num_devices = 1
        config.optimiser.warmup_steps = 0
        # With Adam's usual epsilon a gradient that is only rounding takes a whole step, of any sign.
        config.optimiser.epsilon = 1e-3
        config.data.data_dir = str(corpus)
        config.data.batch_size = 8
        config.data.num_threads = 0
        config.data.max_clip_frames = 80
        config.data.eval_clips = 8
        config.data.eval_batch_size = 4
        config.update_from_flattened_dict(TINY[stage] | changes)
        for name in config.upstream:
            config.upstream[name] = str(upstream / name / "model")
        return config.lock()

    return make


@pytest.fixture(scope="session")
def trained(tiny_config, made_once):
    """Directory with the stages trained for four steps each."""
    from deeptalk_jax.stages.run import train

    def make(directory):
        for stage in MODULES:
            train(tiny_config(stage, directory), directory / stage)

    return made_once("trained", make)
