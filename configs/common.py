"""Keys that the configs of all stages share, and the argument of `get_config`.

A config file is given as `--config=configs/STAGE.py:variant=base,ablation=NAME`. The variant `mini` trains in minutes
on a CPU with the embedded corpus; `base` has the sizes and the schedule of the publication.
"""

from ml_collections import ConfigDict

VARIANTS = ("mini", "base")
# Ablations that every stage has.
COMMON_ABLATIONS = {
    # Less memory traffic (docs/scaling.md); parameters, moments and losses stay float32.
    "bfloat16": {"model.dtype": "bfloat16"},
}


def parse_arg(arg: str | None, ablations: dict[str, dict]) -> tuple[str, str]:
    """Parses the argument of a config file, `variant=mini,ablation=NAME`.

    Args:
        arg: text behind the colon of `--config=FILE:ARG`; empty or None for the defaults.
        ablations: table of the stage, from names to overrides.

    Returns:
        The variant ("mini" by default) and the ablation ("none" by default).

    Raises:
        ValueError: an unknown key or value; the message lists the choices.
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
    """Returns the keys that all stages have; each stage adds its model and sets sizes and schedule."""
    config = ConfigDict()
    config.stage = stage  # name of the stage, a row of deeptalk_jax/assembly/stage_table.py
    config.variant = variant  # recorded for the reader; the keys below hold what it sets
    config.ablation = "none"  # recorded for the reader, as variant
    config.seed = 0  # seed of initialisation, data order, dropout and sampling
    config.num_steps = 1000  # training steps
    config.num_devices = 0  # devices to use; 0 means all
    config.parallel = "jit"  # jit: one program over a mesh of devices | pmap: one program per device
    config.fsdp_devices = 1  # neighbouring devices that share large weights and moments (jit only)
    config.accumulate_steps = 1  # parts of a batch that are computed one after the other to save memory
    config.remat = "none"  # none | products: keep only matrix products of the forward pass to save memory
    config.log_every_steps = 20  # metrics are transferred to the host on these steps only
    config.checkpoint_every_steps = 200  # steps that an interrupted run loses at most
    # Steps between measurements of the loss on fixed windows of the validation split; 0 means never.
    config.validate_every_steps = 100 if variant == "mini" else 1000
    config.eval_every_steps = 0  # steps between evaluations on the validation split; 0 means never
    # Metric of the validation split, a main metric of the stage in deeptalk_jax/assembly/stage_table.py; the model of
    # the best evaluated step is exported. Empty for the last step.
    config.keep_best = ""
    # Decay per step of the average of weights (EMA) that is evaluated and exported; 0 means the weights themselves.
    config.ema_decay = 0.0
    config.on_nonfinite = "stop"  # stop | skip: reaction to a step with an infinite or NaN term
    config.head = "procedural"  # the embedded head, or a FLAME file; see deeptalk_jax/head/load.py
    # Model directory, or work directory of a finished run; training starts from its weights of this stage. Empty for
    # new weights.
    config.init_from = ""
    config.upstream = ConfigDict()  # model directories of earlier stages, by stage name
    config.data = _data()
    config.data.validation_batches = 1 if variant == "mini" else 8  # batches of windows in a validation loss
    config.optimiser = _optimiser()
    return config


def _data() -> ConfigDict:
    data = ConfigDict()
    data.dataset = "synthetic_talk"  # the embedded corpus, which needs no download
    data.data_dir = "outputs/data"  # root of all data sets
    data.window_frames = 32  # length of a training window, frames at 25 Hz: 1.28 s as published
    # Windows per clip, with start frames that are drawn once, so that their features can be precomputed; 0 means that a
    # window starts on any frame.
    data.windows_per_clip = 0
    data.batch_size = 64  # windows per step, over all devices
    data.num_threads = 2  # threads that read and decode records
    data.cache_bytes = 2 << 30  # memory for clips in each process; other clips are read again in every epoch
    # Local directory for uncompressed clips, from which a window reads only its own bytes; empty to read records.
    data.unpack_dir = ""
    data.max_clip_frames = 250  # evaluation cuts clips to this length: 10 s, the longest input of DEE
    data.eval_batch_size = 16  # clips per batch in evaluation
    data.eval_clips = 0  # clips of each split that are evaluated; 0 means all
    return data


def _optimiser() -> ConfigDict:
    optimiser = ConfigDict()
    optimiser.learning_rate = 1e-3  # peak learning rate of Adam
    optimiser.final_learning_rate = 1e-6  # learning rate at the end of the cosine schedule, as published
    optimiser.schedule = "cosine"  # constant | cosine | step
    optimiser.warmup_steps = 0  # steps over which the learning rate rises from 0
    optimiser.decay_every_steps = 1  # step schedule: steps between two decays
    optimiser.decay_factor = 1.0  # step schedule: factor of the learning rate at each decay
    optimiser.epsilon = 1e-8  # added to the denominator of Adam
    optimiser.weight_decay = 0.0  # decoupled weight decay (AdamW); 0 means Adam
    optimiser.max_gradient_norm = 0.0  # gradients are clipped to this global norm; 0 means no clipping
    # Patterns of parameter paths such as "speech_encoder/block_[0-5]/*".
    optimiser.frozen = ()  # parameters that keep their initial values
    optimiser.rate_factors = ()  # (pattern, factor of the learning rate) pairs; the first match counts
    return optimiser


def mel_speech(*, dim: int, num_mels: int) -> ConfigDict:
    """Returns the section of the mel encoder, which trains from scratch; keys are fields of `MelEncoder`."""
    speech = ConfigDict()
    speech.kind = "mel"
    speech.rate_hz = 25  # features per second; half the published 50 is enough for emotion and costs less
    speech.dim, speech.num_mels = dim, num_mels  # width of the features, number of mel bands
    speech.window_samples = 400  # window of the spectrum: 25 ms
    speech.hop_samples = 160  # hop of the spectrum: 10 ms; convolutions of stride 2 reduce it to rate_hz
    speech.num_layers, speech.num_heads = 1, 4
    speech.dropout_rate = 0.0
    speech.subtract_band_means = False  # removes the mean spectrum of each clip, so that voices look alike
    # Random variation of training clips, so that few speakers sound like many (docs/method.md); 0 means none.
    speech.max_band_shift = 0.0  # mel bands: length of the vocal tract
    speech.max_band_blur = 0.0  # mel bands: width of the formants
    speech.max_echo = 0.0  # share of the direct sound: room
    speech.noise_rate = 0.0  # share of the clips with noise
    speech.response_std = 0.0  # nats of energy: response of the microphone
    speech.telephone_rate = 0.0  # share of the clips with the band of a telephone
    return speech


def finish(config: ConfigDict, ablations: dict[str, dict], ablation: str) -> ConfigDict:
    """Applies the overrides of an ablation and locks the config."""
    if ablation != "none":
        config.ablation = ablation
        config.update_from_flattened_dict(ablations[ablation])
    return config.lock()
