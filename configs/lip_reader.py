"""Lip reader: classifies the mouth shape (viseme) in rendered pictures of the mouth (docs/method.md, section 4.2).

Stage 2 of DEEPTalk compares its features of generated and true motion.

python train.py --config=configs/lip_reader.py:variant=mini --workdir=outputs/lip_reader
"""

from ml_collections import ConfigDict

from configs.common import COMMON_ABLATIONS, common_config, finish, parse_arg

# docs/method.md, section 4.2; the published network has swish activations.
ABLATIONS = {
    "relu": {"model.activation": "relu"},
    "no_noise": {"augmentation.noise_std": 0.0},
    **COMMON_ABLATIONS,
}


def get_config(arg: str | None = None) -> ConfigDict:
    variant, ablation = parse_arg(arg, ABLATIONS)
    config = common_config("lip_reader", variant)
    config.model = model = ConfigDict()  # keys are fields of VisualSpeech, except crop_size
    model.dtype = "float32"  # float32 | bfloat16: compute type of the layers
    model.activation = "swish"  # relu | swish | prelu
    config.augmentation = ConfigDict()
    config.augmentation.noise_std = 0.02  # standard deviation of the noise on grey values, 0 to 1
    (_set_base if variant == "base" else _set_mini)(config)
    return finish(config, ABLATIONS, ablation)


def _set_base(config: ConfigDict) -> None:
    """Sets the size of the published visual speech network.

    The schedule is our own, because the published network was trained on LRS3; this repository records no run.
    """
    model = config.model
    model.crop_size = 88  # side of the pictures, pixels
    model.front_channels = 64  # channels of the 3-D convolution
    model.channels, model.num_blocks = (64, 128, 256, 512), (2, 2, 2, 2)  # ResNet-18
    config.num_steps = 20_000
    config.data.batch_size = 16
    config.optimiser.learning_rate = 3e-4
    config.optimiser.warmup_steps = 1000


def _set_mini(config: ConfigDict) -> None:
    """Sets a small network that trains within `make demo`.

    On test speakers its accuracy is 0.47 on frames (always the most frequent mouth shape: 0.22) and 0.27 averaged over
    classes (chance: 0.08; docs/stage2.md).
    """
    model = config.model
    model.crop_size = 32  # side of the pictures, pixels
    model.front_channels = 8
    model.channels, model.num_blocks = (16, 32, 48), (1, 1, 1)
    config.num_steps = 70
    config.checkpoint_every_steps = 70
    config.data.window_frames = 6  # the first convolution spans five frames
    config.data.batch_size = 12
    config.data.max_clip_frames = 125  # evaluation cuts clips to 5 s, because rendering is slow
    config.data.eval_batch_size = 8
    config.data.eval_clips = 32
    config.optimiser.learning_rate = 4e-3
    config.optimiser.warmup_steps = 8
