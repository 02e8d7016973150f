"""The command line: ``faltung train``, ``predict``, ``evaluate``, ``describe``, ``check``, ``trace`` and ``cache``.

Whatever goes wrong becomes one line on stderr and an exit code: 0 done; 1 the check failed; 2 bad input or usage; 70 an
error in Faltung itself; 130 stopped by Ctrl-C; 141 the reader of the output has gone.
"""

import io
import os
import sys
import traceback
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    >>> main(["--version"])
    faltung ...
    0
    """
    import typer

    from faltung.cli.app import app
    from faltung.errors import FaltungError

    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files and classes may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    command = typer.main.get_command(app)
    try:
        with command.make_context("faltung", arguments) as context:
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as end:
        return end.exit_code
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at its end
        return 141
    except FaltungError as error:
        return _fail(f"error: {error}", 2)
    except MemoryError as error:
        return _fail(f"error: {str(error) or 'out of memory'}; use smaller images or a smaller batch", 2)
    except Exception as error:
        if (usage := getattr(error, "format_message", None)) is not None:  # the base of typer's usage errors has moved
            path = getattr(getattr(error, "ctx", None), "command_path", "faltung")
            return _fail(f"error: {usage().rstrip('.')}; see {path} --help", 2)
        problem = f"error: {type(error).__name__}: {error}; this is a fault of Faltung"
        return _fail(f"{problem}, set FALTUNG_DEBUG=1 for the traceback", 70)


def _fail(message: str, code: int) -> int:
    if os.environ.get("FALTUNG_DEBUG"):
        traceback.print_exc()
    print(f"faltung: {' '.join(message.split())}", file=sys.stderr)
    return code
