"""FER: emotion of a single frame of motion (SPEC section 1).

python train.py --config=configs/fer.py:variant=mini --workdir=outputs/fer
"""

from ml_collections import ConfigDict

from configs.common import COMMON_ABLATIONS, common_config, finish, parse_arg

ABLATIONS = {
    # Section 1: the published feature path leaves the batch norms out.
    "published_features": {"model.feature_path": "published"},
    "no_augmentation": {"augmentation.sample_rate": 0.0},
    **COMMON_ABLATIONS,
}


def get_config(arg: str | None = None) -> ConfigDict:
    variant, ablation = parse_arg(arg, ABLATIONS)
    config = common_config("fer", variant)
    config.model = ConfigDict()
    # Of the hidden layers: float32 | bfloat16; parameters and losses are float32.
    config.model.dtype = "float32"
    config.model.num_classes = 8
    config.model.dropout_rate = 0.3
    config.model.feature_layer = 5
    config.augmentation = ConfigDict()
    config.augmentation.sample_rate = 0.5  # share of the samples that get noise
    config.augmentation.entry_rate = 0.7  # share of their entries that do
    config.augmentation.noise_std = 0.02  # in units of expression coefficients and radians
    # Labelled single frames (npz or csv, see data_pipeline/frames.py) instead of the corpus's; {split} in the name
    # stands for train, validation or test. "": the corpus.
    config.data.frames_file = ""
    config.data.frames_keys = ConfigDict()  # names of the file's arrays
    config.data.frames_keys.expression = "expression"
    config.data.frames_keys.jaw_pose = "jaw_pose"
    config.data.frames_keys.emotion = "emotion"
    if variant == "base":
        config.model.hidden_dims = (256, 512, 1024, 512, 256, 128, 64)
        config.model.feature_path = "published"
        config.num_steps = 100_000  # 200 epochs over the frames
        config.data.window_frames = 1
        config.data.batch_size = 1024
        config.optimiser.learning_rate = 1e-3
    else:
        config.model.hidden_dims = (64, 128, 256, 128, 128, 64, 32)
        config.model.feature_path = "normalised"
        config.num_steps = 200
        config.checkpoint_every_steps = 100
        config.data.window_frames = 16  # frames of one clip look alike: many clips, few frames of each
        config.data.batch_size = 64
        config.optimiser.learning_rate = 3e-3
    return finish(config, ABLATIONS, ablation)
