"""DEE: the probabilistic emotion space of speech and motion (docs/method.md, section 2).

python train.py --config=configs/dee.py:variant=mini --workdir=outputs/dee --config.upstream.fer=outputs/fer/model
"""

from ml_collections import ConfigDict

from configs.common import COMMON_ABLATIONS, common_config, finish, mel_speech, parse_arg

# Sections are those of docs/method.md; docs/dee.md has results.
ABLATIONS = {
    # Section 2, pooling over time.
    "pooling_mean": {"model.pooling": "mean"},
    "pooling_max": {"model.pooling": "max"},
    # Section 2, pairs that count as matches.
    "same_emotion": {"loss.matching": "same_emotion"},
    "diagonal": {"loss.matching": "diagonal"},
    # Section 2, distances and losses of the method family.
    "wasserstein": {"loss.distance": "wasserstein"},
    "mc_soft_contrastive": {"loss.kind": "mc_soft_contrastive"},
    # In few dimensions the distances of samples vary, so that the variance measures ambiguity (docs/dee.md).
    "mc_8_dimensions": {
        "loss.kind": "mc_soft_contrastive",
        "model.embedding_dim": 8,
        "model.initial_log_variance": -3.0,
    },
    # Points instead of Gaussians; the scale of the logits starts at 1 / 0.07, as in CLIP.
    "info_nce": {"loss.kind": "info_nce", "model.initial_scale": 2.6593},
    "pseudo_positives": {"loss.smoothing": 0.1},
    "mixture": {"loss.kind": "mc_soft_contrastive", "loss.num_samples": 4, "model.num_components": 2},
    # Section 2, the KL term that keeps variances from vanishing; 1e-6 as published.
    "no_bottleneck": {"loss.kl_weight": 0.0},
    "strong_bottleneck": {"loss.kl_weight": 1e-4},
    # The same loss with less memory.
    "chunked_loss": {"loss.chunk_rows": 8},
    **COMMON_ABLATIONS,
    # Section 2, training: frozen parts of the speech encoder and its learning rate.
    "nothing_frozen": {"optimiser.frozen": ()},
    "slow_encoder": {"optimiser.frozen": (), "optimiser.rate_factors": (("speech_encoder/*", 0.1),)},
}


def get_config(arg: str | None = None) -> ConfigDict:
    variant, ablation = parse_arg(arg, ABLATIONS)
    config = common_config("dee", variant)
    config.upstream.fer = ""  # model directory with the part fer
    config.pretrained = ConfigDict()
    # Model directory with imported weights of the speech encoder; empty for kind mel, which is trained from scratch.
    config.pretrained.speech = ""
    config.model = model = ConfigDict()  # keys are fields of DEE, except speech
    model.pooling = "gpo"  # gpo | mean | max: pooling over time
    model.dropout_rate = 0.1
    model.num_components = 1  # Gaussians per clip; above 1 only with loss.kind = mc_soft_contrastive
    model.dtype = "float32"  # float32 | bfloat16: compute type of the layers
    model.initial_scale = 5.0  # scale of the match logits; its logarithm with loss.kind = info_nce
    model.initial_shift = 5.0  # shift of the match logits
    model.speech = ConfigDict()  # speech encoder; keys besides kind and rate_hz are fields of its module
    config.loss = ConfigDict()
    config.loss.kind = "csd"  # csd | mc_soft_contrastive | info_nce
    # csd | wasserstein: distance in the logits of kind csd, and in retrieval except with info_nce.
    config.loss.distance = "csd"
    config.loss.num_samples = 8  # samples per Gaussian, for kind mc_soft_contrastive
    config.loss.chunk_rows = 0  # rows of the pair matrix that are in memory at once; 0 means all
    # Weight of the loss against pseudo-positives (alpha of PCME++) and, as published, of the divergence of both towers
    # from N(0, 1). Kind info_nce has neither.
    config.loss.smoothing = 0.0
    config.loss.kl_weight = 1e-6
    (_set_base if variant == "base" else _set_mini)(config)
    return finish(config, ABLATIONS, ablation)


def _set_base(config: ConfigDict) -> None:
    """Sets the published sizes and training: 140,891,278 parameters, 61,895,810 learn (docs/method.md, section 8).

    It needs imported weights of emotion2vec (docs/published.md). This repository records no run.
    """
    model = config.model
    model.speech.kind = "emotion2vec"
    model.speech.rate_hz = 50  # features per second
    model.embedding_dim = 128
    model.motion_dim = 512  # width of the motion tower
    model.audio_layers, model.motion_layers = 2, 6
    model.num_heads, model.mlp_dim = 8, 2048
    model.initial_log_variance = 0.0
    config.loss.matching = "diagonal"  # diagonal | same_emotion: pairs that count as matches
    config.num_steps = 105_000  # 300 epochs of MEAD
    config.data.window_frames = 250  # 10 s
    config.data.batch_size = 64
    config.optimiser.learning_rate = 1e-4
    # All of emotion2vec except blocks 6 and 7, as in the reference training.
    config.optimiser.frozen = (
        "speech_encoder/frontend/*",
        "speech_encoder/feature_*",
        "speech_encoder/position_branch/*",
        "speech_encoder/extra_tokens",
        "speech_encoder/alibi_scale",
        "speech_encoder/prenet_*",
        "speech_encoder/block_[0-5]/*",
    )


def _set_mini(config: ConfigDict) -> None:
    """Sets a small DEE that trains in four to five minutes of one CPU core (docs/dee.md).

    On test speakers R@1 is 0.52, 0.50, 0.45 from speech to motion and 0.85, 0.96, 0.86 from motion to speech with seeds
    0, 1, 2 (chance: 0.125), and the calibration error is 0.032, 0.028, 0.042.
    """
    model = config.model
    model.speech = mel_speech(dim=64, num_mels=80)
    model.speech.window_samples = 2048  # 128 ms resolve the pitch, which separates emotions (docs/dee.md)
    model.speech.hop_samples = 640  # 40 ms: one spectrum per feature
    model.dropout_rate = 0.0
    model.embedding_dim = 32
    model.motion_dim = 64  # width of the motion tower
    model.audio_layers, model.motion_layers = 1, 2
    model.num_heads, model.mlp_dim = 4, 128
    # Small initial variances, because their sum over channels is part of every distance.
    model.initial_log_variance = -5.0
    # A small corpus has many clips of one emotion, which the diagonal would treat as mismatches.
    config.loss.matching = "same_emotion"
    config.num_steps = 500
    config.checkpoint_every_steps = 250
    config.data.window_frames = 64  # 2.56 s
    config.data.batch_size = 32
    config.optimiser.learning_rate = 1e-3
    config.optimiser.warmup_steps = 50
