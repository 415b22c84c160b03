"""TH-VQVAE: the motion prior with a slow and a fast codebook (SPEC section 3).

python train.py --config=configs/motion_prior.py:variant=mini --workdir=outputs/motion_prior
"""

from ml_collections import ConfigDict

from configs.common import common_config, finish, parse_arg

ABLATIONS = {
    # Section 3, "EMA quantizer": the published smoothing, start and lack of revival, one at a time.
    "published_smoothing": {"model.ema_smoothing": "published"},
    "uniform_codebooks": {"model.codebook_initialisation": "uniform"},
    "no_revival": {"model.revive_after": 0},
    "raw_targets": {"loss.smooth_targets": False},
}


def get_config(arg: str | None = None) -> ConfigDict:
    variant, ablation = parse_arg(arg, ABLATIONS)
    config = common_config("motion_prior", variant)
    config.model = model = ConfigDict()
    model.num_heads = 8
    model.dropout_rate = 0.1
    model.ema_decay = 0.95
    model.ema_smoothing = "standard"  # standard | published
    config.loss = ConfigDict()
    config.loss.vertex_weight = 1e6  # squared metres: 1 is an error of 1 mm
    config.loss.commitment_top_weight = 1.0
    config.loss.commitment_bottom_weight = 1.0
    config.loss.smooth_targets = True  # Savitzky-Golay, window 5, order 2
    model.commitment_weight = 0.25
    if variant == "base":
        model.dim, model.mlp_dim, model.decoder_mlp_dim = 128, 256, 512
        model.codebook_size_top = model.codebook_size_bottom = 256
        model.codebook_initialisation = "uniform"
        model.revive_after = 0
        config.num_steps = 130_000  # 1500 epochs of MEAD at batch 256
        config.data.batch_size = 256
        config.optimiser.learning_rate = 5e-4
        config.optimiser.schedule = "constant"
        config.optimiser.warmup_steps = 4000
        config.optimiser.weight_decay = 0.01
    else:
        config.data.eval_clips = 96  # every emotion, intensity and held-out speaker once
        model.dim, model.mlp_dim, model.decoder_mlp_dim = 64, 128, 256
        # Twice the published codes: a small network leaves more to them.
        model.codebook_size_top = model.codebook_size_bottom = 512
        model.codebook_initialisation = "first_batch"
        model.revive_after = 25
        model.dropout_rate = 0.0
        config.num_steps = 700
        config.checkpoint_every_steps = 175
        config.data.batch_size = 64
        config.optimiser.learning_rate = 1e-3  # at 3e-3 the codes collapse
        config.optimiser.warmup_steps = 50
        config.optimiser.weight_decay = 0.01
    return finish(config, ABLATIONS, ablation)
