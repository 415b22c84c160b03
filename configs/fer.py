"""FER: classifies the emotion of single motion frames; its features are the input of DEE (docs/method.md, section 1).

python train.py --config=configs/fer.py:variant=mini --workdir=outputs/fer
"""

from ml_collections import ConfigDict

from configs.common import COMMON_ABLATIONS, common_config, finish, parse_arg

ABLATIONS = {
    # docs/method.md, section 1: the published feature path leaves out batch norm.
    "published_features": {"model.feature_path": "published"},
    # docs/method.md, section 1: noise on half of the frames.
    "no_augmentation": {"augmentation.sample_rate": 0.0},
    **COMMON_ABLATIONS,
}


def get_config(arg: str | None = None) -> ConfigDict:
    variant, ablation = parse_arg(arg, ABLATIONS)
    config = common_config("fer", variant)
    config.model = ConfigDict()  # keys are fields of FER
    config.model.dtype = "float32"  # float32 | bfloat16: compute type of the hidden layers
    config.model.num_classes = 8  # emotions
    config.model.dropout_rate = 0.3
    config.model.feature_layer = 5  # hidden layer (from 0) that gives the features, before its activation
    config.augmentation = ConfigDict()
    config.augmentation.sample_rate = 0.5  # probability that a frame gets noise
    config.augmentation.entry_rate = 0.7  # probability that an entry of such a frame gets noise
    config.augmentation.noise_std = 0.02  # standard deviation, expression coefficients and radians
    # File of labelled single frames (npz or csv, see docs/dee.md) that replaces the corpus; `{split}` in the name
    # stands for train, validation or test. Empty to use the corpus.
    config.data.frames_file = ""
    config.data.frames_keys = ConfigDict()  # names of the arrays in that file
    config.data.frames_keys.expression = "expression"
    config.data.frames_keys.jaw_pose = "jaw_pose"
    config.data.frames_keys.emotion = "emotion"
    (_set_base if variant == "base" else _set_mini)(config)
    return finish(config, ABLATIONS, ablation)


def _set_base(config: ConfigDict) -> None:
    """Sets the published sizes and training: 1,374,024 parameters (docs/method.md, section 8).

    The publication trains on FLAME fits of AffectNet, which `data.frames_file` can read. This repository records no
    run.
    """
    config.model.hidden_dims = (256, 512, 1024, 512, 256, 128, 64)
    # published | normalised: whether features skip batch norm; imported DEE weights need the published path
    config.model.feature_path = "published"
    config.num_steps = 100_000  # 200 epochs of the frames
    config.data.window_frames = 1
    config.data.batch_size = 1024
    config.optimiser.learning_rate = 1e-3


def _set_mini(config: ConfigDict) -> None:
    """Sets a small model that trains within `make demo`.

    All stages of the demo together take nine to thirteen minutes on two CPU cores (README.md).
    """
    config.model.hidden_dims = (64, 128, 256, 128, 128, 64, 32)
    # Batch norm is kept, which gives the better input for a DEE that is trained here.
    config.model.feature_path = "normalised"
    config.num_steps = 200
    config.checkpoint_every_steps = 100
    config.data.window_frames = 16  # few frames of many clips, because frames of one clip look alike
    config.data.batch_size = 64
    config.optimiser.learning_rate = 3e-3
