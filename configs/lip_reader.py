"""Lip reader: the mouth shape class of every frame of a rendered mouth (SPEC section 4).

python train.py --config=configs/lip_reader.py:variant=mini --workdir=outputs/lip_reader
"""

from ml_collections import ConfigDict

from configs.common import COMMON_ABLATIONS, common_config, finish, parse_arg

ABLATIONS = {
    "relu": {"model.activation": "relu"},
    "no_noise": {"augmentation.noise_std": 0.0},
    **COMMON_ABLATIONS,
}


def get_config(arg: str | None = None) -> ConfigDict:
    variant, ablation = parse_arg(arg, ABLATIONS)
    config = common_config("lip_reader", variant)
    config.model = model = ConfigDict()
    model.dtype = "float32"  # of the layers: float32 | bfloat16; parameters and losses are float32
    model.activation = "swish"  # relu | swish | prelu
    config.augmentation = ConfigDict()
    config.augmentation.noise_std = 0.02  # of the grey of every pixel, 0 to 1
    if variant == "base":
        model.crop_size = 88  # pixels
        model.front_channels = 64
        model.channels, model.num_blocks = (64, 128, 256, 512), (2, 2, 2, 2)
        config.num_steps = 20_000
        config.data.batch_size = 16
        config.optimiser.learning_rate = 3e-4
        config.optimiser.warmup_steps = 1000
    else:
        model.crop_size = 32
        model.front_channels = 8
        model.channels, model.num_blocks = (16, 32, 48), (1, 1, 1)
        config.num_steps = 70
        config.checkpoint_every_steps = 70
        config.data.window_frames = 6
        config.data.batch_size = 12
        config.data.max_clip_frames = 125  # of evaluation: 5 s
        config.data.eval_batch_size = 8
        config.data.eval_clips = 32
        config.optimiser.learning_rate = 4e-3
        config.optimiser.warmup_steps = 8
    return finish(config, ABLATIONS, ablation)
