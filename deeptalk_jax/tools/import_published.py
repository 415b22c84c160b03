"""Imports the published PyTorch checkpoints into a model directory, without PyTorch.

    deeptalk import-published --generator=DEEPTalk.pth --out=outputs/published

`python -m deeptalk_jax.tools.import_published` is the same command. DEEPTalk.pth alone is enough for infer.py. The
flags --fer, --dee and --prior add or replace parts from their own files (FER.pth, DEE.pt, TH-VQVAE.pth); --wav2vec2 and
--emotion2vec add stand-alone speech encoders. The imported model reproduces the published code, including its
peculiarities. docs/published.md lists them with the options that turn them off.
"""

import sys
from pathlib import Path

from absl import flags

from deeptalk_jax.cli import run_tool
from deeptalk_jax.errors import UserError

_FILES = {
    "generator": flags.DEFINE_string(
        "generator", None, "Path of DEEPTalk.pth, which contains the generator, DEE and TH-VQVAE."
    ),
    "fer": flags.DEFINE_string("fer", None, "Path of FER.pth."),
    "dee": flags.DEFINE_string("dee", None, "Path of DEE.pt."),
    "prior": flags.DEFINE_string("prior", None, "Path of TH-VQVAE.pth."),
    "wav2vec2": flags.DEFINE_string(
        "wav2vec2", None, "wav2vec 2.0 base: a folder, a file, or a name on the Hugging Face hub."
    ),
    "emotion2vec": flags.DEFINE_string("emotion2vec", None, "Path of emotion2vec_base.pt."),
}
_OUT = flags.DEFINE_string("out", None, "Model directory to create, or to add the parts to.")
_HEAD = flags.DEFINE_string(
    "head",
    None,
    "Head on which infer.py shows the motion: a file of FLAME 2020, for which the weights were trained. Default: the "
    "head of an existing --out directory, otherwise none; infer.py then needs --head for videos.",
)


def _import() -> None:
    import jax

    from deeptalk_jax.assembly.model_dir import save_model
    from deeptalk_jax.interop.published_parts import head_and_basis, import_published

    files = {name: Path(flag.value) for name, flag in _FILES.items() if flag.value}
    if not files:
        raise UserError(
            f"no file to import; pass at least one of {', '.join(f'--{name}=' for name in _FILES)}"
        )
    if not _OUT.value:
        raise UserError("no output directory; pass one with --out=")
    head, basis = head_and_basis(_OUT.value, _HEAD.value, files)
    imported = import_published(files)
    save_model(_OUT.value, imported.parts, head=head, basis=basis, keep_others=True)
    for warning in imported.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for name, part in imported.parts.items():
        size = sum(leaf.size for leaf in jax.tree.leaves(part.variables["params"]))
        print(f"{name:<13} {size:>12,} parameters  from {imported.sources[name]}")
    print(f"written to {_OUT.value}")


def main() -> None:
    """Runs the tool and exits."""
    run_tool(_import, required=["out"])


if __name__ == "__main__":
    main()
