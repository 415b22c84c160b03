"""DEEPTalk stage 1: predicts codes of the motion prior from speech, identity and emotion (docs/method.md, section 4).

python train.py --config=configs/deeptalk.py:variant=mini --workdir=outputs/deeptalk \
        --config.upstream.dee=outputs/dee/model --config.upstream.motion_prior=outputs/motion_prior/model
"""

from ml_collections import ConfigDict

from configs.common import COMMON_ABLATIONS, common_config, finish, mel_speech, parse_arg
from deeptalk_jax.types import VISEME_CLASSES

# Sections are those of docs/method.md.
ABLATIONS = {
    # Section 4.1: identities are never replaced by the mean identity.
    "no_identity_dropout": {"identity_dropout_rate": 0.0},
    # Section 4.1: the paper trains stage 1 with the vertex error alone, without a teacher for the codes.
    "vertices_only": {"loss.codes_weight": 0.0},
    # Section 4.1: the published stage-1 config also has this term.
    "emotion": {"loss.emotion_weight": 1e-4},
    **COMMON_ABLATIONS,
    # Section 9: inference of the released code, which imported checkpoints use (docs/published.md).
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
    config.upstream.dee = ""  # model directory with the parts fer and dee
    config.upstream.motion_prior = ""  # model directory with the part motion_prior
    config.pretrained = ConfigDict()
    # Model directory with imported weights of the speech encoder; empty for kind mel, which is trained from scratch.
    config.pretrained.speech = ""
    config.data.num_identities = 24  # training speakers of the data set; the embedded corpus has 24
    # Emotion vectors in training. window: DEE's mean of the speech of the window, as published | clip: of the whole
    # clip, as at inference, because an emotion is hard to hear in the 1.28 s of a window.
    config.emotion_context = "window"
    # Share of the windows that get the centroid of the clip's label and intensity instead; needs labels.
    config.emotion_label_rate = 0.0
    # Temperature of the Gumbel-softmax, which changes linearly over the run; as published.
    config.tau_start, config.tau_end = 2.0, 0.1
    config.model = model = ConfigDict()  # keys are fields of IndexPredictor, except speech
    # float32 | bfloat16: compute type of the layers, also of DEE, the prior and the lip reader in the training step.
    model.dtype = "float32"
    model.num_identities = 32  # length of the identity vector, as published
    model.num_heads = 8
    model.dropout_rate = 0.1
    model.num_visemes = (
        0  # classes of a viseme head on the speech encoder, for loss.viseme_weight; 0 means no head
    )
    model.speech = ConfigDict()  # speech encoder; keys besides kind and rate_hz are fields of its module
    config.loss = ConfigDict()
    config.loss.emotion_consistency = "csd"  # csd | mean: kind of both emotion terms below
    config.loss.emotion_weight = 0.0  # weight of the consistency of generated motion with the speech
    config.loss.viseme_weight = (
        0.0  # weight of the cross-entropy of the viseme head, nats; needs viseme labels
    )
    # Weights of the squared error of the gap between the lips and between the lids, square metres.
    config.loss.lip_gap_weight = config.loss.lid_gap_weight = 0.0
    config.loss.motion_emotion_weight = 0.0  # weight of the consistency of generated with true motion
    # Rules of inference, see inference/options.py; model directories of imported checkpoints have the published values.
    config.inference = inference = ConfigDict()
    # pooled: the emotions of 10 s windows, pooled by precision | first_10s: that of the first 10 s of the encoded clip
    inference.emotion_windows = "pooled"
    inference.waveform_padding = "none"  # none | published: zeros behind each clip that count as audio
    inference.max_window_s = 20.48  # longest window of the generator, seconds; published: 48.0
    # standard_deviation | log_variance: quantity that alpha scales
    inference.alpha_mode = "standard_deviation"
    (_set_base if variant == "base" else _set_mini)(config)
    return finish(config, ABLATIONS, ablation)


def _set_base(config: ConfigDict) -> None:
    """Sets the published sizes and training: 5,675,008 parameters learn (docs/method.md, section 8).

    It needs imported weights of wav2vec 2.0 (docs/published.md), which stay frozen. This repository records no run.
    """
    model = config.model
    model.speech.kind = "wav2vec2"
    model.speech.rate_hz = 25  # features per second
    model.speech.rounding = "published"  # published | exact: rounding of lengths from 50 Hz to 25 Hz
    model.feature_dim, model.mlp_dim = 128, 256
    model.predictor_dim, model.num_layers = 256, 6
    config.identity_dropout_rate = 0.0  # probability that a window gets the mean identity
    config.loss.vertex_weight = 1.0  # weight of the vertex error, square metres
    config.loss.lip_weight = 0.0  # weight of the vertex error of the lips, square metres
    config.loss.codes_weight = 0.0  # weight of the cross-entropy against the codes of the prior, nats
    config.data.num_identities = 32  # training speakers of MEAD
    config.num_steps = 140_000
    config.data.batch_size = 16
    config.optimiser.learning_rate = 1e-4
    config.optimiser.schedule = "step"
    config.optimiser.frozen = ("speech_encoder/*",)
    config.optimiser.decay_every_steps = 70_000  # 50 epochs
    config.optimiser.decay_factor = 0.5


def _hear_many_voices(speech: ConfigDict) -> None:
    """Sets the variation of voices by which a model of synthetic speech understands other voices.

    Of 36 clips of three recorded voices (Debian's flite), a viseme head on the speech encoder recognises 43 % of the
    frames without it, 50 % with `subtract_band_means` and 53 % with `max_band_shift` too.
    """
    speech.num_layers = 2
    speech.subtract_band_means = True
    speech.max_band_shift, speech.max_band_blur = 3.0, 0.5
    speech.noise_rate, speech.response_std = 0.3, 0.2


def _set_mini(config: ConfigDict) -> None:
    """Sets a small generator that trains within `make demo`.

    On test speakers, seed 0, the lip error is 4.65 mm (mean pose: 6.34), the closure rate of p, b, m 0.58, the mean
    gain of a named emotion 0.61, and the agreement of the emotion with the speech 0.73 (docs/measures.md).
    """
    model = config.model
    config.data.eval_clips = 96  # each emotion, intensity and test speaker once
    model.speech = mel_speech(dim=96, num_mels=64)
    _hear_many_voices(model.speech)
    model.num_visemes = len(VISEME_CLASSES)
    model.dropout_rate = 0.0
    model.feature_dim, model.mlp_dim = 64, 128
    model.predictor_dim, model.num_layers = 128, 2
    # Some windows get the mean identity, because unknown speakers get it at inference.
    config.identity_dropout_rate = 0.3
    # The vertex error is in square metres: with 1e6 a loss of 1 is an error of 1 mm.
    config.loss.vertex_weight = 1e6
    # The lips are a twentieth of the vertices and most of what people watch.
    config.loss.lip_weight = 5e5
    config.loss.lip_gap_weight = 2e5
    config.loss.viseme_weight = 2.0  # the embedded corpus knows the viseme of every frame
    # A run of minutes needs the codes of the prior as a teacher.
    config.loss.codes_weight = 0.3
    config.emotion_context = "clip"
    config.emotion_label_rate = 0.5
    config.num_steps = 900
    config.checkpoint_every_steps = 180
    config.data.window_frames = 64  # 2.56 s
    config.data.batch_size = 16
    config.optimiser.learning_rate = 2e-3
    # The emotion vectors of a data set differ little: the map of the emotion has to amplify what tells them apart.
    config.optimiser.rate_factors = (("emotion_map/*", 5.0),)
    config.optimiser.warmup_steps = 50
    config.optimiser.max_gradient_norm = 1.0
