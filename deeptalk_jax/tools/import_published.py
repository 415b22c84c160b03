"""Imports the published PyTorch checkpoints into a model directory; PyTorch is not needed.

    python -m deeptalk_jax.tools.import_published --generator=DEEPTalk.pth --out=outputs/published

DEEPTalk.pth alone is enough for infer.py. --fer, --dee and --prior add or replace the parts that have files of their
own (FER.pth, DEE.pt, TH-VQVAE.pth); --wav2vec2 and --emotion2vec add stand-alone speech encoders. The imported model
computes what the published code does, its quirks included: docs/published.md lists them and the options that turn
them off.
"""

import sys
from pathlib import Path

from absl import flags

from deeptalk_jax.cli import run_tool
from deeptalk_jax.errors import UserError

_FILES = {
    "generator": flags.DEFINE_string("generator", None, "DEEPTalk.pth: generator, DEE and TH-VQVAE."),
    "fer": flags.DEFINE_string("fer", None, "FER.pth."),
    "dee": flags.DEFINE_string("dee", None, "DEE.pt."),
    "prior": flags.DEFINE_string("prior", None, "TH-VQVAE.pth."),
    "wav2vec2": flags.DEFINE_string(
        "wav2vec2", None, "wav2vec 2.0 base: a folder, a file or a name on the hub."
    ),
    "emotion2vec": flags.DEFINE_string("emotion2vec", None, "emotion2vec_base.pt."),
}
_OUT = flags.DEFINE_string("out", None, "Model directory to write, or to add the parts to.")
_HEAD = flags.DEFINE_string(
    "head",
    None,
    "Head that infer.py shows the motion on: a FLAME file, which the weights are made for. By default that of an "
    "existing --out, else 'procedural'.",
)
flags.mark_flag_as_required("out")


def _import() -> None:
    import jax

    from deeptalk_jax.assembly.model_dir import INDEX, read_index, save_model
    from deeptalk_jax.head.load import load_head
    from deeptalk_jax.interop.published_parts import import_published

    files = {name: Path(flag.value) for name, flag in _FILES.items() if flag.value}
    if not files:
        raise UserError(f"give at least one file: {', '.join(f'--{name}=' for name in _FILES)}")
    if not _OUT.value:
        raise UserError("give a directory with --out=")
    held = read_index(_OUT.value)["head"] if (Path(_OUT.value) / INDEX).exists() else "procedural"
    head = _HEAD.value or held
    load_head(head)
    imported = import_published(files)
    save_model(_OUT.value, imported.parts, head=head, keep_others=True)
    for warning in imported.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for name, part in imported.parts.items():
        size = sum(leaf.size for leaf in jax.tree.leaves(part.variables["params"]))
        print(f"{name:<13} {size:>12,} parameters  from {imported.sources[name]}")
    print(f"written to {_OUT.value}")


if __name__ == "__main__":
    run_tool(_import)
