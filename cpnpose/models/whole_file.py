"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cpnpose.errors import OutputError


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write to, in the folder of ``target``; it becomes ``target``, replacing it, when the block ends well.

    The folder is made if need be. If the block raises, nothing is left behind and ``target`` stays as it was.

    Raises:
        OutputError: the folder or file cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{target}: cannot write it ({reason}); check the folder and its free space") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
