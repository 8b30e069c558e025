"""The locks: Linux namespaces, a view of the disk, Landlock, seccomp and limits.

``enter`` is called once, by the zygote, before it loads anything: from then on it sees a read-only
disk with Python on it and nothing of the teacher's. ``lock`` is called by each child, before the
first line of a student's code: private processes and temporary files, no capability, no system call
that could open a way out, and limits on what it may use.

Every step that cannot be taken raises ``Missing``, which says what to do about it. There is no mode
without it.

Sources: namespaces(7), user_namespaces(7), pivot_root(2), mount_setattr(2), landlock(7), prctl(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

# From <linux/sched.h>, <linux/mount.h>, <linux/prctl.h> and <linux/landlock.h>.
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x08000000, 0x10000000, 0x20000000
CLONE_NEWNET, CLONE_NEWTIME = 0x40000000, 0x00000080
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 4096, 16384, 1 << 18, 2
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _AT_RECURSIVE = 1, 2, 4, 0x8000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_MOUNT_SETATTR, _LANDLOCK = 442, 444  # the same numbers on every architecture

_libc = ctypes.CDLL(None, use_errno=True)

#: The user that a student's code is, inside; outside it is a user of its own where root grades.
STUDENT = 1
#: The folders a student's code may write to, gone with its process.
WRITABLE = ("/tmp", "/dev/shm")
#: Characters and devices that a program may expect to find.
_DEVICES = ("null", "zero", "full", "random", "urandom")
#: What the dynamic linker, fonts and clocks need from the system.
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/fonts", "/etc/localtime")


class Missing(RuntimeError):
    """Something that the sandbox is made of is not there; the message says what to do."""


@dataclass(frozen=True)
class Limits:
    """What one submission may use: bytes, processes and threads, and seconds.

    ``memory`` counts what its processes hold together beyond what was loaded before them; ``cells``
    and ``call`` are wall-clock seconds for the notebook's cells and for one call of a function,
    ``total`` for all of them.
    """

    memory: int = 1 << 30
    disk: int = 64 << 20
    file: int = 32 << 20
    processes: int = 32
    cells: float = 30.0
    call: float = 10.0
    total: float = 90.0


def _do(what: str, remedy: str, function: str, *arguments: object) -> int:
    """Call a function of the C library; a refusal is ``Missing`` with a remedy."""
    value = int(getattr(_libc, function)(*arguments))
    if value < 0:
        number = ctypes.get_errno()
        raise Missing(f"{what}: {os.strerror(number)}. {remedy}")
    return value


_NAMESPACES = (
    "Use Linux 5.14 or newer and allow user namespaces: sysctl kernel.unprivileged_userns_clone=1 "
    "on older Debian, kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu; in a container, "
    "start it with --privileged or grade outside it."
)


def unshare() -> None:
    """Put this process into namespaces of its own: users, mounts, network, IPC, host name, cgroup.

    Its next child is the first process of a process namespace. Raises ``Missing`` where the kernel
    does not let it.
    """
    flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    _do("namespaces", _NAMESPACES, "unshare", flags | CLONE_NEWCGROUP | CLONE_NEWPID)


def map_users(pid: int | str, outside: Sequence[int]) -> None:
    """Say which users outside the users inside the namespace of process ``pid`` are.

    One user is the student inside; of two, the first is root inside, for setting up. Raises ``OSError``
    where the kernel does not let it: only root maps more users than itself.
    """
    folder = Path(f"/proc/{pid}")
    if len(outside) == 1:
        (folder / "setgroups").write_text("deny")
    first = STUDENT if len(outside) == 1 else 0
    lines = "".join(f"{inside} {user} 1\n" for inside, user in enumerate(outside, first))
    (folder / "uid_map").write_text(lines)
    (folder / "gid_map").write_text(lines)


def enter(base: Path, shown: Sequence[Path], hidden: Iterable[Path]) -> None:
    """Replace the disk by a read-only view with the system, Python and ``shown`` on it.

    ``base`` is any empty folder, used for a moment; ``hidden`` lists files and folders below
    ``shown`` that are covered. Call it after ``unshare`` and ``map_users``.
    """
    remedy = _NAMESPACES
    _do("private mounts", remedy, "mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    root = os.fsencode(base)
    options = b"size=1m,mode=755"
    _do("tmpfs", remedy, "mount", b"tmpfs", root, b"tmpfs", _MS_NOSUID | _MS_NODEV, options)
    for path in [*map(Path, _SYSTEM), *shown]:
        _bind(path, base)
    for name in _DEVICES:
        _bind(Path("/dev") / name, base, device=True)
    for name in ("proc", "tmp", "dev/shm"):
        (base / name).mkdir(parents=True, exist_ok=True)
    # A container that masks parts of /proc does not let us mount one of our own: then there is none.
    _libc.mount(b"proc", root + b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None)
    for path in hidden:
        _cover(path, base)
    os.chdir(base)
    _do("pivot_root", remedy, "syscall", _pivot_root(), b".", b".")
    _do("leaving the old root", remedy, "umount2", b".", _MNT_DETACH)
    os.chdir("/")
    _read_only(b"/", _ATTR_RDONLY | _ATTR_NOSUID)
    _scratch("size=16m,mode=1777", shown)


def _scratch(options: str, shown: Iterable[Path]) -> None:
    """Put empty folders where programs expect to be able to write; what is shown below stays in sight."""
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    for folder in WRITABLE:
        below = [path for path in shown if path.is_relative_to(folder) and path.is_dir()]
        held = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in below]
        path = folder.encode()
        _do("tmpfs", "", "mount", b"tmpfs", path, b"tmpfs", flags, options.encode())
        for place, descriptor in zip(below, held, strict=True):
            place.mkdir(parents=True, exist_ok=True)
            os.fchdir(descriptor)  # its own path leads under the new folder now
            target = os.fsencode(place)
            _do(f"showing {place}", "", "mount", b".", target, None, _MS_BIND | _MS_REC, None)
            os.close(descriptor)
    os.chdir("/")


def _pivot_root() -> int:
    return {"x86_64": 155, "aarch64": 41, "riscv64": 41}.get(platform.machine(), 155)


def _bind(path: Path, base: Path, *, device: bool = False) -> None:
    target = base / path.relative_to("/")
    if target.is_symlink() or not path.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() and path.parent == Path("/"):  # /lib -> usr/lib
        target.symlink_to(path.readlink())
        return
    if path.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    flags = _MS_BIND | _MS_REC
    _do(f"showing {path}", "", "mount", os.fsencode(path), os.fsencode(target), None, flags, None)
    _read_only(os.fsencode(target), _ATTR_RDONLY | _ATTR_NOSUID | (0 if device else _ATTR_NODEV))


def _read_only(path: bytes, flags: int) -> None:
    attributes = struct.pack("<QQQQ", flags, 0, 0, 0)
    arguments = (-100, path, _AT_RECURSIVE, attributes, len(attributes))
    _do("read-only mounts", "Use Linux 5.12 or newer.", "syscall", _MOUNT_SETATTR, *arguments)


def _cover(path: Path, base: Path) -> None:
    target = base / path.relative_to("/")
    if target.is_dir():
        flags, options = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, b"size=4k,mode=755,ro"
        _do("tmpfs", "", "mount", b"tmpfs", os.fsencode(target), b"tmpfs", flags, options)
    elif target.exists():
        _do("cover", "", "mount", b"/dev/null", os.fsencode(target), None, _MS_BIND, None)


class Fork:
    """Forks children that are the first process of a process namespace of their own."""

    def __init__(self) -> None:
        self._own = os.pidfd_open(os.getpid())

    def __call__(self) -> int:
        """Fork; return 0 in the child and its process id in the parent."""
        _do("process namespace", _NAMESPACES, "unshare", CLONE_NEWPID)
        try:
            return os.fork()
        finally:
            # Only the next fork was to be in it. In the child this is refused, and does no harm.
            _libc.setns(self._own, CLONE_NEWPID)


def lock(limits: Limits, *, keep: int, own_user: bool, shown: Sequence[Path]) -> None:
    """Take from this process, for good, all that a student's code does not need.

    ``keep`` is the one descriptor that stays open: it becomes number 3, and 0 to 2 the null device.
    ``own_user`` says that there is a second user to become, ``shown`` is what ``enter`` was given.
    """
    null = os.open("/dev/null", os.O_RDWR)
    if null == 3:
        null = os.dup(null)
    os.dup2(keep, 3)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    last = os.sysconf("SC_OPEN_MAX")
    os.closerange(4, last if 0 < last < 1 << 20 else 1 << 20)

    _do("mounts", _NAMESPACES, "unshare", CLONE_NEWNS | CLONE_NEWIPC)
    if os.path.exists("/proc/self"):
        flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        _do("/proc", "", "mount", b"proc", b"/proc", b"proc", flags, None)
        # Where memory runs out, the kernel is to end this process and not the grader.
        Path("/proc/self/oom_score_adj").write_text("1000")
    _scratch(f"size={limits.disk},mode=1777,nr_inodes=4096", shown)

    _limit(limits)
    _drop(own_user)
    _landlock()
    _seccomp()


def _limit(limits: Limits) -> None:
    total, data = _held()
    for what, most in (
        (resource.RLIMIT_AS, total + 2 * limits.memory),
        (resource.RLIMIT_DATA, data + limits.memory),
        (resource.RLIMIT_FSIZE, limits.file),
        (resource.RLIMIT_NPROC, limits.processes),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_CPU, int(limits.total) + 1),
    ):
        resource.setrlimit(what, (most, most))


def _held() -> tuple[int, int]:
    """Return how many bytes of address space, and of data in it, this process has already."""
    page = resource.getpagesize()
    try:
        sizes = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 8 << 30, 1 << 30  # no /proc here: more than what is loaded before has ever been
    return int(sizes[0]) * page, int(sizes[5]) * page


def _drop(own_user: bool) -> None:
    capability = 0
    while _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if own_user:
        os.setgroups([])
        os.setresgid(STUDENT, STUDENT, STUDENT)
        os.setresuid(STUDENT, STUDENT, STUDENT)
    # Version 3 of capset(2): a header, then effective, permitted and inheritable, twice 32 bits.
    header, nothing = struct.pack("<Ii", 0x20080522, 0), bytes(24)
    _do("dropping capabilities", "", "capset", header, nothing)
    _do("no_new_privs", "", "prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Who started us may see how much memory we hold; changes of user and rights have hidden that.
    _do("dumpable", "", "prctl", _PR_SET_DUMPABLE, 1, 0, 0, 0)
    end_with_parent()  # after the user has changed: a change of user takes it back


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _do("pdeathsig", "", "prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def landlock_version() -> int:
    """Return the version of Landlock in this kernel. Raises ``Missing`` where it is off."""
    version = int(_libc.syscall(_LANDLOCK, None, 0, 1))
    if version < 1:
        raise Missing(
            f"Landlock: {os.strerror(ctypes.get_errno())}. Use Linux 5.13 or newer, with "
            "'landlock' in the kernel's lsm= list"
        )
    return version


def _landlock() -> None:
    version = landlock_version()
    # Access rights to files, by the version that brought them.
    rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    read = 0b1101  # execute, read a file, list a folder
    network = 0b11 if version >= 4 else 0  # bind and connect TCP: nowhere
    scope = 0b11 if version >= 6 else 0  # abstract sockets and signals: nobody outside
    attributes = struct.pack("<QQQ", rights, network, scope)
    size = 8 if version < 4 else 16 if version < 6 else 24
    remedy = "Use a kernel with Landlock."
    rules = _do("Landlock", remedy, "syscall", _LANDLOCK, attributes[:size], size, 0)
    for path, allowed in [("/", read), *((path, rights) for path in WRITABLE)]:
        _allow(rules, path, allowed)
    _allow(rules, "/dev/null", 0b110)  # write and read
    _do("Landlock", remedy, "syscall", _LANDLOCK + 2, rules, 0)
    os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = struct.pack("<Qi", rights, descriptor)
    _do("Landlock", "", "syscall", _LANDLOCK + 1, rules, 1, rule, 0)
    os.close(descriptor)


#: System calls that end in "not permitted": ways to other processes, other file systems, the network
#: or the kernel's own machinery, and memory that no limit counts.
REFUSED = (
    "acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init "
    "finit_module fsconfig fsmount fsopen fspick init_module io_uring_enter io_uring_register "
    "io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie memfd_create "
    "memfd_secret mount mount_setattr move_mount move_pages mq_open msgget name_to_handle_at "
    "open_by_handle_at open_tree perf_event_open personality pidfd_getfd pivot_root process_madvise "
    "process_vm_readv process_vm_writev ptrace quotactl quotactl_fd reboot request_key seccomp semget "
    "sethostname setdomainname setns settimeofday shmat shmget swapoff swapon syslog umount2 unshare "
    "userfaultfd vhangup landlock_create_ruleset"
).split()


def _seccomp() -> None:
    import pyseccomp

    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    refuse = pyseccomp.ERRNO(errno.EPERM)
    for name in REFUSED:
        try:
            rules.add_rule(refuse, name)
        except (OSError, ValueError):
            continue  # a call that this libseccomp or this architecture does not know
    # Sockets that reach no further than this process and its own: Python's pools of workers need them.
    rules.add_rule(refuse, "socket", pyseccomp.Arg(0, pyseccomp.NE, int(socket.AF_UNIX)))
    for option in (
        socket.SO_SNDBUF,
        socket.SO_RCVBUF,
    ):  # what waits in them is memory nobody counts
        rules.add_rule(refuse, "setsockopt", pyseccomp.Arg(2, pyseccomp.EQ, int(option)))
    # New processes and threads, but no new namespaces; clone3 hides its flags, so it is "not there"
    # and the C library falls back to clone.
    for flag in (
        CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID,
        CLONE_NEWNET, CLONE_NEWTIME,
    ):  # fmt: skip
        rules.add_rule(refuse, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag))
    rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    for request in (0x5412, 0x541C):  # TIOCSTI, TIOCLINUX: typing into somebody's terminal
        rules.add_rule(refuse, "ioctl", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xFFFFFFFF, request))
    rules.load()


def seccomp_version() -> str:
    """Return what libseccomp offers here. Raises ``Missing`` where it, or its binding, is not installed."""
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError) as error:
        raise Missing(
            f"seccomp: {error}. Install libseccomp (Debian and Ubuntu: apt install libseccomp2) and "
            "pyseccomp (make env)"
        ) from None
    return f"API {pyseccomp.get_api()}"
