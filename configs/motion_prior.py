"""TH-VQVAE: the motion prior with a slow and a fast codebook (SPEC section 3).

python train.py --config=configs/motion_prior.py:variant=mini --workdir=outputs/motion_prior
"""

from ml_collections import ConfigDict

from configs.common import COMMON_ABLATIONS, common_config, finish, parse_arg

ABLATIONS = {
    # Section 3, baselines: without the hierarchy, and without codes.
    "one_level_equal_rate": {
        "model.kind": "one_level",
        "model.one_level.codes_per_4_frames": 3,
        "model.one_level.codebook": "bottom",
    },
    "one_level_equal_codes": {
        "model.kind": "one_level",
        "model.one_level.codes_per_4_frames": 2,
        "model.one_level.codebook": "both",
    },
    "temporal_vae": {"model.kind": "temporal_vae"},
    # Section 3, "EMA quantizer": how the codes move, start, and are kept in use.
    "gradient_codebook": {
        "model.codebook_update": "gradient",
        "model.codebook_initialisation": "uniform",
        "model.revive_after": 0,
    },
    "kmeans_codebooks": {"model.codebook_initialisation": "kmeans++"},
    "uniform_codebooks": {"model.codebook_initialisation": "uniform"},
    "late_start": {"model.codebook_initialisation": "first_batch", "model.start_after": 200},
    "no_revival": {"model.revive_after": 0},
    "revival": {"model.revive_after": 25},
    "published_smoothing": {"model.ema_smoothing": "published"},
    "no_ema_smoothing": {"model.ema_smoothing": "none"},
    # Section 3, quantizer_bottom: less of its distance for what the top codes have said. Alone the better prior,
    # but codes that do not repeat one another are harder to predict (docs/ablations.md).
    "scaled_condition": {"model.top_condition_scale": 0.1},
    # Twice the steps on half the windows.
    "small_batches": {"data.batch_size": 32, "num_steps": 1400},
    # Size of each codebook; section 0 has the published one.
    **{
        f"codes_{size}": {"model.codebook_size_top": size, "model.codebook_size_bottom": size}
        for size in (64, 128, 256, 512, 1024)
    },
    # Section 0: frames of a bottom and of a top code, 2 and 4 in the paper.
    "rate_2_8": {"model.frames_per_bottom_code": 2, "model.frames_per_top_code": 8},
    "rate_4_8": {"model.frames_per_bottom_code": 4, "model.frames_per_top_code": 8},
    # Section 3, options of the loss.
    "parameters_l1": {"loss.reconstruction": "parameters_l1"},
    "parameters_l2": {"loss.reconstruction": "parameters_l2"},
    "lips": {"loss.lip_weight": 5e5},
    "velocity": {"loss.velocity_weight": 1e6},
    "jaw": {"loss.jaw_weight": 10.0},
    "raw_targets": {"loss.smooth_targets": False},
    **COMMON_ABLATIONS,
}


def get_config(arg: str | None = None) -> ConfigDict:
    variant, ablation = parse_arg(arg, ABLATIONS)
    config = common_config("motion_prior", variant)
    config.model = model = ConfigDict()
    model.dtype = "float32"  # of the layers: float32 | bfloat16; parameters, codes and losses are float32
    model.kind = "hierarchical"  # hierarchical | one_level | temporal_vae
    model.frames_per_bottom_code, model.frames_per_top_code = 2, 4  # of the hierarchical kind
    model.one_level = ConfigDict()
    model.one_level.codes_per_4_frames = (
        3  # as many codes per second as the hierarchy; 2: as its bottom level
    )
    model.one_level.codebook = "bottom"  # bottom: as large as that level's | both: as both levels' together
    model.num_heads = 8
    model.dropout_rate = 0.1
    model.codebook_update = "ema"  # ema | gradient
    model.ema_decay = 0.95
    model.ema_smoothing = "standard"  # standard | published | none
    model.commitment_weight = 0.25  # beta
    config.loss = ConfigDict()
    config.loss.reconstruction = "vertices"  # vertices | parameters_l1 | parameters_l2
    config.loss.vertex_weight = 1e6  # squared metres: 1 is an error of 1 mm
    config.loss.parameters_weight = 1.0  # of the two other reconstruction losses
    config.loss.lip_weight = config.loss.eye_weight = (
        0.0  # of squared vertex distances there, as vertex_weight
    )
    config.loss.velocity_weight = 0.0  # of all vertices' displacements per frame, squared metres
    config.loss.jaw_weight = 0.0  # of the jaw's squared error, radians
    config.loss.kl_weight = 1e-3  # of the temporal VAE's divergence from N(0, 1), nats per latent
    config.loss.smooth_targets = True  # Savitzky-Golay, window 5, order 2
    if variant == "base":
        model.dim, model.mlp_dim, model.decoder_mlp_dim = 128, 256, 512
        model.codebook_size_top = model.codebook_size_bottom = 256
        model.codebook_initialisation = "uniform"  # uniform | first_batch | kmeans++
        model.start_after = 0  # updates before latents are quantised
        model.top_condition_scale = 1.0  # of the decoded top codes in the bottom codebook
        model.revive_after = 0  # updates without use
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
        model.start_after = 0
        model.top_condition_scale = 1.0
        model.revive_after = 25
        model.dropout_rate = 0.0
        config.num_steps = 700
        config.checkpoint_every_steps = 175
        config.data.batch_size = 64
        config.optimiser.learning_rate = 1e-3  # at 3e-3 the codes collapse
        config.optimiser.warmup_steps = 50
        config.optimiser.weight_decay = 0.01
    return finish(config, ABLATIONS, ablation)
