"""How the file of a database comes to be: for its owner's eyes only.

For savers, stores and caches alike: what they hold are people's conversations. Decides the mode and the way; knows no
database.
"""

from __future__ import annotations

import contextlib
import os
import tempfile


def make_private(path: str) -> None:
    """An empty file that others must not read, if there is none; what SQLite puts beside it takes over the mode.

    Raises nothing: whoever opens the path then says what is wrong. It is made under another name: a process that opens and
    closes a file loses all its locks on it, also those of connections that somebody has opened meanwhile
    (sqlite.org/howtocorrupt.html, section 2.2).
    """
    if os.path.exists(path):
        return
    with contextlib.suppress(OSError):
        handle, made = tempfile.mkstemp(prefix=".sqlite-", dir=os.path.dirname(path) or ".")
        os.close(handle)
        try:
            os.link(made, path)
        except FileExistsError:
            pass  # somebody else was faster
        except OSError:
            # A file system without links.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        finally:
            os.unlink(made)
