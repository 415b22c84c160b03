"""Animates sound files: `deeptalk animate` for a clone that is not installed (deeptalk_jax/tools/animate.py).

python infer.py --model=outputs/demo/model --audio=speech.wav --out=outputs/animated --formats=npz,mp4
"""

from deeptalk_jax.tools.animate import main

if __name__ == "__main__":
    main()
