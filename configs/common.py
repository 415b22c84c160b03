"""Parts that the configs of all stages share, and the argument of `get_config`."""

from ml_collections import ConfigDict

VARIANTS = ("mini", "base")
# Rows of every stage's table of ablations.
COMMON_ABLATIONS = {
    # Less memory traffic (docs/scaling.md); parameters, moments and losses stay float32.
    "bfloat16": {"model.dtype": "bfloat16"},
}


def parse_arg(arg: str | None, ablations: dict[str, dict]) -> tuple[str, str]:
    """Reads `variant=mini,ablation=NAME`.

    Args:
        arg: what follows the colon of `--config=FILE:ARG`; empty or None for the defaults.
        ablations: table of the stage, name -> overrides.

    Returns:
        variant ("mini" by default) and ablation ("none" by default).

    Raises:
        ValueError: an unknown key or value; the message lists what there is.
    """
    choices = {"variant": VARIANTS, "ablation": ("none", *ablations)}
    values = {"variant": "mini", "ablation": "none"}
    for item in filter(None, (arg or "").split(",")):
        key, _, value = item.partition("=")
        if key not in choices:
            raise ValueError(f"unknown config argument {key!r}; there are: {', '.join(choices)}")
        if value not in choices[key]:
            raise ValueError(f"unknown {key} {value!r}; there are: {', '.join(choices[key])}")
        values[key] = value
    return values["variant"], values["ablation"]


def common_config(stage: str, variant: str) -> ConfigDict:
    """Keys of every stage; each stage sets the sizes and the schedule."""
    config = ConfigDict()
    config.stage = stage
    config.variant = variant
    config.ablation = "none"
    config.seed = 0  # of initialisation, data order, dropout and sampling
    config.num_steps = 1000
    config.num_devices = 0  # 0: all that there are
    config.parallel = "jit"  # jit: one program over a mesh | pmap: one on each device
    config.fsdp_devices = 1  # neighbours that split large weights and moments among them (jit)
    config.accumulate_steps = 1  # parts of every batch, one after the other
    config.remat = "none"  # none | products: what of the forward pass is kept; the rest is computed again
    config.log_every_steps = 20  # host transfers happen on these steps only
    config.checkpoint_every_steps = 200
    config.eval_every_steps = 0  # on the validation split while training; 0: never
    config.on_nonfinite = "stop"  # stop | skip: what a step with an infinite or NaN term does
    config.head = "procedural"  # or a FLAME file; see deeptalk_jax/head/load.py
    config.upstream = ConfigDict()  # model directories of earlier stages, by stage name

    config.data = ConfigDict()
    config.data.dataset = "synthetic_talk"
    config.data.data_dir = "outputs/data"
    config.data.window_frames = 32  # at 25 Hz: 1.28 s
    config.data.windows_per_clip = 0  # n: windows of a clip start on one of n frames, drawn once; 0: on any
    config.data.batch_size = 64  # windows, over all devices
    config.data.num_threads = 2  # that read and decode records
    config.data.cache_bytes = 2 << 30  # of clips that a process keeps in memory; it reads others anew
    config.data.unpack_dir = ""  # local directory for clips laid out flat: windows read their own bytes only
    config.data.max_clip_frames = 250  # evaluation cuts longer clips: 10 s
    config.data.eval_batch_size = 16  # clips
    config.data.eval_clips = 0  # of each split; 0: all

    config.optimiser = ConfigDict()
    config.optimiser.learning_rate = 1e-3
    config.optimiser.final_learning_rate = 1e-6  # of the cosine schedule
    config.optimiser.schedule = "cosine"  # constant | cosine | step
    config.optimiser.warmup_steps = 0
    config.optimiser.decay_every_steps = 1  # of the step schedule
    config.optimiser.decay_factor = 1.0  # of the step schedule
    config.optimiser.epsilon = 1e-8  # of Adam's denominator
    config.optimiser.weight_decay = 0.0  # above 0: AdamW
    config.optimiser.max_gradient_norm = 0.0  # 0: no clipping
    # Patterns of parameter paths, such as "speech_encoder/block_[0-5]/*".
    config.optimiser.frozen = ()  # of parameters that stay as they start
    config.optimiser.rate_factors = ()  # (pattern, factor of the learning rate) pairs, the first match counts
    return config


def mel_speech(*, dim: int, num_mels: int) -> ConfigDict:
    """Keys of the speech encoder that trains from scratch in minutes; names are fields of `MelEncoder`."""
    speech = ConfigDict()
    speech.kind = "mel"
    speech.rate_hz = 25  # half the published 50: half the attention, and time enough for emotion
    speech.dim, speech.num_mels = dim, num_mels
    speech.window_samples = 400  # of the spectrum, 25 ms
    speech.hop_samples = 160  # of the spectrum, 10 ms; convolutions of stride 2 go on from there
    speech.num_layers, speech.num_heads = 1, 4
    speech.dropout_rate = 0.0
    speech.max_band_shift = 0.0  # mel bands up or down in training: one speaker sounds like several
    return speech


def finish(config: ConfigDict, ablations: dict[str, dict], ablation: str) -> ConfigDict:
    """Applies the overrides of an ablation and locks the config."""
    if ablation != "none":
        config.ablation = ablation
        config.update_from_flattened_dict(ablations[ablation])
    return config.lock()
