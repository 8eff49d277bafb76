"""Run a command, and let nothing that it started outlive it. Linux only; run as a program, it knows nothing of Amos.

    python -I -S guard.py CONTROL STATUS MEMORY COMMAND ...

CONTROL is a descriptor that is closed when the command is to end, or when whoever asked for it has ended, even by
SIGKILL. STATUS takes the number of the error if the command cannot be started, and is closed if it can. MEMORY is how
many bytes of data each process may have, or 0. The guard is the reaper of all that the command starts: what is
orphaned, in whichever session, becomes its child, and all its children are killed at the end. It ends as the command
did.
"""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time

ASKS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # to end, which the guard does when its control is closed
SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36  # of <linux/prctl.h>


def main() -> None:
    """Run the command."""
    control, status, memory = map(int, sys.argv[1:4])
    prctl = ctypes.CDLL(None).prctl
    prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    allowed = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = memory if memory and (allowed == resource.RLIM_INFINITY or memory < allowed) else allowed

    for number in ASKS:
        signal.signal(number, signal.SIG_IGN)

    def prepare() -> None:
        for number in ASKS:
            signal.signal(number, signal.SIG_DFL)
        prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")  # where memory runs out, this is what the kernel ends

    try:
        worker = subprocess.Popen(sys.argv[4:], start_new_session=True, preexec_fn=prepare)
    except OSError as error:
        os.write(status, str(error.errno).encode())
        os._exit(127)
    os.close(status)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):  # so that the command's ends of the pipes are closed when it has ended
        os.dup2(null, fd)
    threading.Thread(target=_wait_for_the_end, args=(control,), daemon=True).start()
    code = worker.wait()
    kill_children()
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _wait_for_the_end(control: int) -> None:
    os.read(control, 1)
    kill_children()
    os._exit(0)


def kill_children() -> None:
    """Kill every child, and every orphan that becomes one, until there is none."""
    with contextlib.suppress(ChildProcessError):  # there is none
        while True:
            for child in [child for child in _children() if _kill(child)]:  # all are looked for once, not once for each
                with contextlib.suppress(ChildProcessError):  # the other thread has it
                    os.waitpid(child, 0)
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.01)


def _kill(child: int) -> bool:
    with contextlib.suppress(OSError):  # it is of another user
        os.kill(child, signal.SIGKILL)
        return True
    return False


def _children() -> list[int]:
    me, found = str(os.getpid()), []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = file.read().rpartition(b")")[2].split()[1].decode()
        except OSError:
            continue
        if parent == me:
            found.append(int(name))
    return found


if __name__ == "__main__":
    main()
