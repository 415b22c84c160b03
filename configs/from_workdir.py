"""The config of a run that exists: `--config=configs/from_workdir.py:WORKDIR`.

`eval.py --workdir=WORKDIR` uses it if no other config is given.
"""

import json

from etils import epath
from ml_collections import ConfigDict


def get_config(workdir: str) -> ConfigDict:
    """Returns the config of the file `config.json` in a work directory.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    path = epath.Path(workdir) / "config.json"
    try:
        return ConfigDict(json.loads(path.read_text())).lock()
    except FileNotFoundError as error:
        raise ValueError(f"{workdir} is not the work directory of a run (it has no config.json)") from error
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
