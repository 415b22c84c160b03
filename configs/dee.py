"""DEE: the probabilistic emotion space of speech and motion (SPEC section 2).

python train.py --config=configs/dee.py:variant=mini --workdir=outputs/dee --config.upstream.fer=outputs/fer/model
"""

from ml_collections import ConfigDict

from configs.common import COMMON_ABLATIONS, common_config, finish, mel_speech, parse_arg

ABLATIONS = {
    # Section 2, options of the method family.
    "pooling_mean": {"model.pooling": "mean"},
    "pooling_max": {"model.pooling": "max"},
    "same_emotion": {"loss.matching": "same_emotion"},
    "diagonal": {"loss.matching": "diagonal"},
    "wasserstein": {"loss.distance": "wasserstein"},
    "mc_soft_contrastive": {"loss.kind": "mc_soft_contrastive"},
    # In few dimensions samples spread instead of all lying equally far: the variance means ambiguity (docs/dee.md).
    "mc_8_dimensions": {
        "loss.kind": "mc_soft_contrastive",
        "model.embedding_dim": 8,
        "model.initial_log_variance": -3.0,
    },
    # Point embeddings; the logits' scale starts at 1 / 0.07 as in CLIP.
    "info_nce": {"loss.kind": "info_nce", "model.initial_scale": 2.6593},
    "pseudo_positives": {"loss.smoothing": 0.1},
    "mixture": {"loss.kind": "mc_soft_contrastive", "loss.num_samples": 4, "model.num_components": 2},
    # The bottleneck term that keeps variances from vanishing; 1e-6 as published.
    "no_bottleneck": {"loss.kl_weight": 0.0},
    "strong_bottleneck": {"loss.kl_weight": 1e-4},
    # Less memory for the same loss.
    "chunked_loss": {"loss.chunk_rows": 8},
    **COMMON_ABLATIONS,
    # Section 2, published training: what of the speech encoder learns, and how fast.
    "nothing_frozen": {"optimiser.frozen": ()},
    "slow_encoder": {"optimiser.frozen": (), "optimiser.rate_factors": (("speech_encoder/*", 0.1),)},
}


def get_config(arg: str | None = None) -> ConfigDict:
    variant, ablation = parse_arg(arg, ABLATIONS)
    config = common_config("dee", variant)
    config.upstream.fer = ""
    config.pretrained = ConfigDict()
    config.pretrained.speech = ""  # model directory with the part that model.speech.kind names; none for mel
    config.model = model = ConfigDict()
    model.pooling = "gpo"  # gpo | mean | max
    model.dropout_rate = 0.1
    model.num_components = (
        1  # Gaussians of the mixture that a clip becomes; above 1 for mc_soft_contrastive only
    )
    model.dtype = "float32"  # of the layers: float32 | bfloat16; parameters and losses are float32
    model.initial_scale = 5.0  # of the match logits; with loss.kind = info_nce the logarithm of their scale
    model.initial_shift = 5.0  # of the match logits
    model.speech = ConfigDict()
    config.loss = ConfigDict()
    config.loss.kind = "csd"  # csd | mc_soft_contrastive | info_nce
    config.loss.distance = (
        "csd"  # csd | wasserstein; of the logits of kind csd, and of retrieval unless info_nce
    )
    config.loss.num_samples = 8  # of every Gaussian of a mixture, for kind mc_soft_contrastive
    config.loss.chunk_rows = 0  # rows of the batch-by-batch matrix in memory at once; 0: all of them
    config.loss.smoothing = 0.0  # weight of the loss against pseudo-positives (alpha); not for info_nce
    config.loss.kl_weight = 1e-6  # of both towers' divergence from N(0, 1); not for info_nce
    (_set_base if variant == "base" else _set_mini)(config)
    return finish(config, ABLATIONS, ablation)


def _set_base(config: ConfigDict) -> None:
    """Sizes and training of the publication."""
    model = config.model
    model.speech.kind = "emotion2vec"
    model.speech.rate_hz = 50
    model.embedding_dim = 128
    model.motion_dim = 512
    model.audio_layers, model.motion_layers = 2, 6
    model.num_heads, model.mlp_dim = 8, 2048
    model.initial_log_variance = 0.0
    config.loss.matching = "diagonal"  # diagonal | same_emotion
    config.num_steps = 105_000  # 300 epochs of MEAD at batch 64
    config.data.window_frames = 250  # 10 s
    config.data.batch_size = 64
    config.optimiser.learning_rate = 1e-4
    # As in the reference training, of emotion2vec only blocks 6 and 7 learn.
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
    """Minutes on a CPU."""
    model = config.model
    model.speech = mel_speech(dim=64, num_mels=80)
    model.speech.window_samples = 2048  # 128 ms show the pitch, which tells emotions apart (docs/dee.md)
    model.speech.hop_samples = 640  # of the features: each frame of the spectrum is one
    model.dropout_rate = 0.0
    model.embedding_dim = 32
    model.motion_dim = 64
    model.audio_layers, model.motion_layers = 1, 2
    model.num_heads, model.mlp_dim = 4, 128
    # Small variances at the start: their sum over channels enters every distance.
    model.initial_log_variance = -5.0
    config.loss.matching = "same_emotion"
    config.num_steps = 500
    config.checkpoint_every_steps = 250
    config.data.window_frames = 64
    config.data.batch_size = 32
    config.optimiser.learning_rate = 1e-3
    config.optimiser.warmup_steps = 50
