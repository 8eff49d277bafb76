"""What Windows or macOS lacks is taken away from amos_ref, in every Python that has this folder on PYTHONPATH.

Python imports a module of this name by itself when it starts, so that children of a test lack it too; the variable
AMOS_REF_ELSEWHERE says "windows" or "macos". Whatever a module of amos_ref imports comes without the names below, and
behaves as on Windows where Windows behaves differently. Other packages, which have been made for these systems, and
the tests themselves keep everything.
"""

import builtins
import io
import os
import socket
import sys
import types

SYSTEM = os.environ.get("AMOS_REF_ELSEWHERE", "")
NO_POSIX = {
    "os": """fork forkpty killpg setsid getsid setpgid getpgid getpgrp tcgetpgrp wait wait3 wait4 waitid WNOHANG
        WIFEXITED WIFSIGNALED WEXITSTATUS WTERMSIG P_PID posix_spawn posix_spawnp register_at_fork
        getuid geteuid getgid getegid getgroups getresuid setuid setgid seteuid setegid chown fchown lchown fchmod
        fchdir chroot mkfifo mknod openpty ttyname uname getloadavg nice getpriority setpriority sync
        pread pwrite readv writev sendfile statvfs fstatvfs lockf sysconf confstr
        O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_NOCTTY O_SYNC O_DSYNC""",
    "signal": """SIGALRM SIGHUP SIGKILL SIGPIPE SIGUSR1 SIGUSR2 SIGCHLD SIGQUIT SIGSTOP SIGCONT SIGTSTP SIGTTIN SIGTTOU
        SIGVTALRM SIGPROF SIGXCPU SIGXFSZ SIGWINCH SIGBUS SIGIO SIGSYS SIGTRAP SIGURG setitimer getitimer ITIMER_REAL
        ITIMER_VIRTUAL ITIMER_PROF alarm pause pthread_kill pthread_sigmask siginterrupt sigpending sigwait
        SIG_BLOCK SIG_UNBLOCK SIG_SETMASK Sigmasks""",
    "select": "poll",
    "time": "tzset clock_gettime clock_gettime_ns clock_getres CLOCK_MONOTONIC CLOCK_REALTIME pthread_getcpuclockid",
    **dict.fromkeys("fcntl resource pwd grp termios tty pty posix syslog _posixsubprocess _posixshmem".split(), ""),
}
NO_LINUX = {
    "os": """sched_getaffinity sched_setaffinity pidfd_open memfd_create eventfd posix_fallocate posix_fadvise pipe2
        fdatasync getresuid O_TMPFILE O_PATH""",
    "signal": "sigwaitinfo sigtimedwait pidfd_send_signal SIGRTMIN SIGRTMAX",
    "select": "epoll",
}
if sys.version_info < (3, 12):
    NO_POSIX["os"] += " get_blocking set_blocking"
ABSENT = {
    name: {*NO_LINUX.get(name, "").split(), *(NO_POSIX.get(name, "").split() if SYSTEM == "windows" else ())}
    for name in (NO_POSIX if SYSTEM == "windows" else NO_LINUX)
}
ABSENT["_signal"] = ABSENT["signal"]
PLACES = ("/proc", "/sys", "/dev/fd", "/dev/shm", *(("/etc", "/dev/std") if SYSTEM == "windows" else ()))
PORTABLE = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}
DENIED = 13  # EACCES, which Windows gives for whatever a file or folder that is in use does not allow

real_import, real_open, real_stat = builtins.__import__, io.open, os.stat


class Lacking(types.ModuleType):
    """A module without some of its names, and with some of its functions changed."""

    def __init__(self, module, absent, changed):
        super().__init__(module.__name__)
        self.__dict__.update(changed, _module=module, _absent=absent)

    def __setattr__(self, name, value):
        setattr(self._module, name, value)

    def __getattr__(self, name):
        if name in self._absent:
            raise AttributeError(f"module {self._module.__name__!r} has no attribute {name!r} (taken away)")
        return getattr(self._module, name)

    def __dir__(self):
        return [name for name in dir(self._module) if name not in self._absent]


def is_elsewhere(path):
    return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(PLACES)


def refuse_in_use(*paths):
    """Raise PermissionError for a file that this process has open, or mapped into memory."""
    files = {(s.st_dev, s.st_ino) for s in map(real_stat, filter(os.path.exists, paths))}
    for fd in os.listdir("/proc/self/fd"):
        try:
            here = real_stat(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if (here.st_dev, here.st_ino) in files:
            raise PermissionError(DENIED, "The process cannot access the file because it is being used", *paths)
    with real_open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        mapped = {line.split(maxsplit=5)[-1].strip() for line in maps}
    if mapped & {os.path.realpath(path) for path in paths}:
        raise PermissionError(DENIED, "The requested operation cannot be performed on a file with a mapped section")


def changed_os(os):
    def in_use(name):
        def call(*paths, **options):
            refuse_in_use(*paths)
            return getattr(os, name)(*paths, **options)

        return call

    def open_file(path, flags, *rest, **options):
        if SYSTEM == "windows" and os.path.isdir(path):
            raise PermissionError(DENIED, "Permission denied", path)
        if is_elsewhere(path):
            raise FileNotFoundError(2, "No such file or directory", path)
        return os.open(path, flags, *rest, **options)

    return {"open": open_file, "name": "nt", "O_BINARY": 0} | {
        name: in_use(name) for name in "replace rename unlink remove".split()
    }


def changed_signal(signal):
    def set_handler(number, handler):
        if number not in {getattr(signal, name) for name in PORTABLE}:
            raise ValueError("invalid signal value")
        return signal.signal(number, handler)

    return {"signal": set_handler, "valid_signals": lambda: {getattr(signal, name) for name in PORTABLE}}


def changed_selectors(selectors):
    def sockets_only(name):
        class Sockets(getattr(selectors, name)):
            def select(self, timeout=None):
                for key in self.get_map().values():
                    if not isinstance(key.fileobj, socket.socket):
                        raise OSError(10038, "An operation was attempted on something that is not a socket")
                return super().select(timeout)

        return Sockets

    return {name: sockets_only(name) for name in ("DefaultSelector", "SelectSelector")}


def changed_select(select):
    def select_sockets(*lists):
        if any(not isinstance(x, socket.socket) for some in lists[:3] for x in some):
            raise OSError(10038, "An operation was attempted on something that is not a socket")
        return select.select(*lists)

    return {"select": select_sockets}


def changed_subprocess(subprocess):
    class Popen(subprocess.Popen):
        def __init__(self, *args, preexec_fn=None, pass_fds=(), start_new_session=False, process_group=-1, **options):
            options.pop("creationflags", None)
            if preexec_fn is not None:
                raise ValueError("preexec_fn is not supported on Windows platforms")
            if pass_fds:
                raise AssertionError("pass_fds not supported on Windows.")
            super().__init__(*args, **options)

        def send_signal(self, sig):
            if sig in (9, 15) and sys._getframe(1).f_globals["__name__"] == "subprocess":  # kill, terminate
                super().send_signal(sig)
            elif self.poll() is None:
                raise ValueError(f"Unsupported signal: {sig}")

    return {"Popen": Popen, "CREATE_NEW_PROCESS_GROUP": 0, "CREATE_NO_WINDOW": 0}


def changed_ctypes(ctypes):
    def load(name, *args, **options):
        if name is None:
            raise TypeError("bad argument type for built-in operation")
        return ctypes.CDLL(name, *args, **options)

    return {"CDLL": load}


CHANGED = {
    "os": changed_os,
    "signal": changed_signal,
    "_signal": changed_signal,
    "selectors": changed_selectors,
    "select": changed_select,
    "subprocess": changed_subprocess,
    "ctypes": changed_ctypes,
    "sys": lambda sys: {"platform": "win32"},
}
if SYSTEM == "macos":
    CHANGED = {"os": lambda os: {"open": changed_os(os)["open"]}, "sys": lambda sys: {"platform": "darwin"}}
made = {}


def lacking(name):
    """Return the module of this name as it is elsewhere."""
    if name not in made:
        module = real_import(name)
        made[name] = Lacking(module, ABSENT.get(name, set()), CHANGED.get(name, lambda module: {})(module))
    return made[name]


def ours(names):
    return bool(names) and str(names.get("__name__")).partition(".")[0] == "amos_ref"


def import_elsewhere(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and ours(globals):
        if name in ABSENT and not ABSENT[name]:
            raise ModuleNotFoundError(f"No module named {name!r} (taken away)", name=name)
        if name in ABSENT or name in CHANGED:
            return lacking(name)
    return real_import(name, globals, locals, fromlist, level)


def open_elsewhere(file, *args, **options):
    if is_elsewhere(file):
        frame = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__") == "pathlib":
            frame = frame.f_back
        if frame is not None and ours(frame.f_globals):
            raise FileNotFoundError(2, "No such file or directory", file)
    return real_open(file, *args, **options)


if __name__ == "sitecustomize" and SYSTEM:  # and not where a test imports it to look at it
    builtins.__import__ = import_elsewhere
    builtins.open = io.open = open_elsewhere
