"""Run two commands at the same time: `python .ci/together.py COMMAND -- COMMAND`.

The second one writes to the terminal. When both have ended, the output of the first one follows: all of it if
it failed, otherwise its last lines. The exit code is 0, or that of a failed command. Ctrl-C ends both.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time

STOP_SECONDS = 20


def main(arguments: list[str]) -> int:
    at = arguments.index("--")
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        beside = subprocess.Popen(
            arguments[:at], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            code = subprocess.call(arguments[at + 1 :])
            beside_code = beside.wait()
        except KeyboardInterrupt:
            return 130
        finally:
            if beside.poll() is None:
                os.killpg(beside.pid, signal.SIGINT)
                beside.wait(STOP_SECONDS)
        output.seek(0)
        text = output.read().decode(errors="replace")
    shown = text if beside_code else "\n".join(text.splitlines()[-12:])
    print(
        f"{' '.join(arguments[:at])} ({time.monotonic() - began:.0f} s, beside the above):\n{shown}",
        flush=True,
    )
    return code or beside_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
