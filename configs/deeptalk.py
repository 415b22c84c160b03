"""DEEPTalk: codes of the motion prior from speech, identity and emotion (SPEC section 4, stage 1).

python train.py --config=configs/deeptalk.py:variant=mini --workdir=outputs/deeptalk \
        --config.upstream.dee=outputs/dee/model --config.upstream.motion_prior=outputs/motion_prior/model
"""

from ml_collections import ConfigDict

from configs.common import COMMON_ABLATIONS, common_config, finish, mel_speech, parse_arg

ABLATIONS = {
    "no_identity_dropout": {"identity_dropout_rate": 0.0},
    # Section 4: the published stage 1 learns from the vertices alone.
    "vertices_only": {"loss.codes_weight": 0.0},
    # Section 4: the published stage-1 config also carries this term.
    "emotion": {"loss.emotion_weight": 1e-4},
    **COMMON_ABLATIONS,
    # Section 9: how the released code runs its model; what imported checkpoints get (docs/published.md).
    "published_inference": {
        "inference.emotion_windows": "first_10s",
        "inference.waveform_padding": "published",
        "inference.max_window_s": 48.0,
        "inference.alpha_mode": "log_variance",
    },
}


def get_config(arg: str | None = None) -> ConfigDict:
    variant, ablation = parse_arg(arg, ABLATIONS)
    config = common_config("deeptalk", variant)
    config.upstream.dee = ""
    config.upstream.motion_prior = ""
    config.pretrained = ConfigDict()
    config.pretrained.speech = ""  # model directory with the part that model.speech.kind names; none for mel
    config.data.num_identities = 24  # training speakers of the data set
    config.tau_start, config.tau_end = 2.0, 0.1  # of the Gumbel-softmax, falling linearly over the run
    config.model = model = ConfigDict()
    # Of the layers, and of DEE, the prior and the lip reader in the step: float32 | bfloat16; losses are float32.
    model.dtype = "float32"
    model.num_identities = 32  # length of the identity vector
    model.num_heads = 8
    model.dropout_rate = 0.1
    model.speech = ConfigDict()
    config.loss = ConfigDict()
    config.loss.emotion_consistency = "csd"  # of speech or true motion with generated motion: mean | csd
    config.loss.emotion_weight = 0.0  # of the generated motion's consistency with the speech
    config.loss.motion_emotion_weight = 0.0  # of its consistency with the true motion
    # How the trained model is run; imported models hold the published values, see inference/options.py.
    config.inference = inference = ConfigDict()
    # pooled: 10 s windows, pooled by precision | first_10s: the whole clip is encoded, its first 10 s are kept
    inference.emotion_windows = "pooled"
    inference.waveform_padding = "none"  # none | published: zeros behind every clip that count as sound
    inference.max_window_s = 20.48  # longest stretch that the generator sees at once; published: 48.0
    inference.alpha_mode = "standard_deviation"  # what alpha scales: standard_deviation | log_variance
    (_set_base if variant == "base" else _set_mini)(config)
    return finish(config, ABLATIONS, ablation)


def _set_base(config: ConfigDict) -> None:
    """Sizes and training of the publication."""
    model = config.model
    model.speech.kind = "wav2vec2"
    model.speech.rate_hz = 25
    model.speech.rounding = "published"  # of 50 Hz lengths to 25 Hz: published | exact
    model.feature_dim, model.mlp_dim = 128, 256
    model.predictor_dim, model.num_layers = 256, 6
    config.identity_dropout_rate = 0.0
    config.loss.vertex_weight = 1.0
    config.loss.lip_weight = 0.0
    config.loss.codes_weight = 0.0
    config.data.num_identities = 32
    config.num_steps = 140_000
    config.data.batch_size = 16
    config.optimiser.learning_rate = 1e-4
    config.optimiser.schedule = "step"
    config.optimiser.frozen = ("speech_encoder/*",)
    config.optimiser.decay_every_steps = 70_000  # 50 epochs
    config.optimiser.decay_factor = 0.5


def _set_mini(config: ConfigDict) -> None:
    """Minutes on a CPU."""
    model = config.model
    config.data.eval_clips = 96  # every emotion, intensity and held-out speaker once
    model.speech = mel_speech(dim=96, num_mels=64)
    model.dropout_rate = 0.0
    model.feature_dim, model.mlp_dim = 64, 128
    model.predictor_dim, model.num_layers = 128, 2
    # Share of the windows that see the mean identity, which is what an unknown speaker gets.
    config.identity_dropout_rate = 0.3
    config.loss.vertex_weight = 1e6  # squared metres: 1 is an error of 1 mm
    config.loss.lip_weight = 5e5  # the lips are a twentieth of the vertices and most of what people watch
    # Cross-entropy against the prior's own codes: a teacher that a run of minutes needs.
    config.loss.codes_weight = 0.3
    config.num_steps = 640
    config.checkpoint_every_steps = 160
    config.data.batch_size = 32
    config.optimiser.learning_rate = 2e-3
    config.optimiser.warmup_steps = 50
    config.optimiser.max_gradient_norm = 1.0
