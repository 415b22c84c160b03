"""TH-VQVAE: the motion prior with a slow and a fast codebook (docs/method.md, section 3).

python train.py --config=configs/motion_prior.py:variant=mini --workdir=outputs/motion_prior
"""

from ml_collections import ConfigDict

from configs.common import COMMON_ABLATIONS, common_config, finish, parse_arg

# Sections are those of docs/method.md; docs/ablations.md has results.
ABLATIONS = {
    # Section 3, baselines: one codebook instead of two levels, and no codes.
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
    # Section 3, quantiser: update, initialisation and revival of the codes.
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
    # Section 3, gamma: bottom codes repeat less of the top codes. The prior alone improves, but its codes are harder to
    # predict (docs/ablations.md).
    "scaled_condition": {"model.top_condition_scale": 0.1},
    # Twice the steps with half the windows.
    "small_batches": {"data.batch_size": 32, "num_steps": 1400},
    # Section 0, size of each codebook; 256 as published.
    **{
        f"codes_{size}": {"model.codebook_size_top": size, "model.codebook_size_bottom": size}
        for size in (64, 128, 256, 512, 1024)
    },
    # Section 0, frames per bottom and per top code; 2 and 4 as published.
    "rate_2_8": {"model.frames_per_bottom_code": 2, "model.frames_per_top_code": 8},
    "rate_4_8": {"model.frames_per_bottom_code": 4, "model.frames_per_top_code": 8},
    # Section 3, loss: parameters instead of vertices, further terms, targets without smoothing.
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
    config.model = model = ConfigDict()  # keys are fields of MotionPrior, except kind and one_level
    model.dtype = "float32"  # float32 | bfloat16: compute type of the layers; codes are float32
    model.kind = "hierarchical"  # hierarchical | one_level | temporal_vae
    model.frames_per_bottom_code, model.frames_per_top_code = 2, 4  # for the hierarchical kind
    model.one_level = ConfigDict()
    # 3: as many codes per second as both levels of the hierarchy | 2: as many as its bottom level
    model.one_level.codes_per_4_frames = 3
    # bottom: a codebook of the size of the bottom level | both: of the sizes of both levels
    model.one_level.codebook = "bottom"
    model.num_heads = 8
    model.dropout_rate = 0.1
    model.codebook_update = "ema"  # ema: codes are running means of latents | gradient: codes are parameters
    model.ema_decay = 0.95
    model.ema_smoothing = "standard"  # standard | published | none: smoothing of the counts of codes
    model.commitment_weight = 0.25  # weight of the commitment loss, beta
    config.loss = ConfigDict()
    config.loss.reconstruction = "vertices"  # vertices | parameters_l1 | parameters_l2
    # The vertex error is in square metres: with 1e6 a loss of 1 is an error of 1 mm.
    config.loss.vertex_weight = 1e6
    config.loss.parameters_weight = 1.0  # weight of the reconstruction losses in parameters
    # Weights of the squared vertex error of lips and eyes alone, in units of vertex_weight.
    config.loss.lip_weight = config.loss.eye_weight = 0.0
    # Weights of the squared error of the gap between the lips and between the lids, square metres: closed lips and lids
    # are few vertices in few frames, and are what people notice.
    config.loss.lip_gap_weight = config.loss.lid_gap_weight = 0.0
    config.loss.velocity_weight = 0.0  # weight of the error of vertex displacements per frame, square metres
    # Weight of the error of second differences over time of the forehead and the brows, square metres: codes change
    # every two frames, and brows that move slowly show it as a tremble.
    config.loss.tremble_weight = 0.0
    config.loss.jaw_weight = 0.0  # weight of the squared error of the jaw pose, radians
    config.loss.kl_weight = 1e-3  # weight of the divergence of the temporal VAE from N(0, 1), nats per latent
    config.loss.smooth_targets = True  # Savitzky-Golay filter of the targets, window 5, order 2, as published
    (_set_base if variant == "base" else _set_mini)(config)
    return finish(config, ABLATIONS, ablation)


def _set_base(config: ConfigDict) -> None:
    """Sets the published sizes and training: 2,784,949 parameters (docs/method.md, section 8).

    This repository records no run.
    """
    model = config.model
    model.dim, model.mlp_dim, model.decoder_mlp_dim = 128, 256, 512
    model.codebook_size_top = model.codebook_size_bottom = 256
    model.codebook_initialisation = "uniform"  # uniform | first_batch | kmeans++
    model.start_after = 0  # updates before latents are quantised
    model.top_condition_scale = 1.0  # factor of the decoded top codes in the bottom codebook (gamma)
    model.revive_after = 0  # updates without use after which a code moves to a random latent; 0 means never
    config.num_steps = 130_000  # 1500 epochs of MEAD
    config.data.batch_size = 256
    config.optimiser.learning_rate = 5e-4
    config.optimiser.schedule = "constant"
    config.optimiser.warmup_steps = 4000
    config.optimiser.weight_decay = 0.01


def _see_gaps(loss: ConfigDict) -> None:
    """Sets the weights by which closed lips and lids are kept (docs/method.md, section 3)."""
    loss.smooth_targets = False  # a filter of five frames opens lips that close for two
    loss.lip_gap_weight = loss.lid_gap_weight = 1e5
    loss.velocity_weight = 4e6  # smoother motion, whose codes are easier to predict


def _set_mini(config: ConfigDict) -> None:
    """Sets a small prior that trains within `make demo`.

    On test speakers, seed 0, the vertex error is 0.285 mm, the lip error 2.05 mm, the closure rate of p, b, m 0.91, and
    eyes are closed in 1.5 % of the frames (truth: 2.2 %).
    """
    config.data.eval_clips = 96  # each emotion, intensity and test speaker once
    model = config.model
    model.dim, model.mlp_dim, model.decoder_mlp_dim = 64, 128, 256
    _see_gaps(config.loss)
    # Twice the published number of codes, because a small network leaves more information to them.
    model.codebook_size_top = model.codebook_size_bottom = 512
    model.codebook_initialisation = "first_batch"
    model.start_after = 0
    model.top_condition_scale = 1.0
    model.revive_after = 25  # without revival most top codes die in a short training (docs/ablations.md)
    model.dropout_rate = 0.0
    config.num_steps = 700
    config.checkpoint_every_steps = 175
    config.data.batch_size = 64
    config.optimiser.learning_rate = 1e-3  # at 3e-3 the codebooks collapse
    config.optimiser.warmup_steps = 50
    config.optimiser.weight_decay = 0.01
