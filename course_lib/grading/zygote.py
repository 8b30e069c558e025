"""The process that a student's process is forked from: locked away first, then loaded, then asked.

``python -m course_lib.grading.zygote <descriptor>`` is started by ``sandbox``. It moves into its own
namespaces and its view of the disk before it imports torch, so nothing that is loaded comes from
outside that view, and nothing in its memory is a secret. Then it waits: ``spawn`` with a descriptor
makes a child, which is locked and runs ``child``; ``reap`` ends it.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
from pathlib import Path

from course_lib.grading import child, jail, wire

#: Limits, whether there is a user for students, and the folders shown: Python's and the package's.
_Settings = tuple[jail.Limits, bool, tuple[Path, ...]]


def main() -> None:
    """Serve the grader on the descriptor named on the command line until it goes away."""
    control = socket.socket(fileno=int(sys.argv[1]))
    jail.end_with_parent()
    try:
        settings = _prepare(control)
    except (jail.Missing, OSError, ImportError) as error:
        wire.send(control, {"missing": f"{error}"}, {})
        return
    gc.collect()
    gc.freeze()
    _serve(control, jail.Fork(), settings)


def _prepare(control: socket.socket) -> _Settings:
    """Move in, load, and say so; nothing of the order, which names the grader's paths, stays."""
    order, _ = wire.receive(control)
    report = {"landlock": jail.landlock_version(), "seccomp": jail.seccomp_version()}
    jail.unshare()
    wire.send(control, {"unshared": True}, {})
    answer, _ = wire.receive(control)  # the grader has mapped users, or asks us to
    if not answer["mapped"]:
        jail.map_users("self", [int(order["user"])])
    _into_process_namespace()
    shown = tuple(Path(path) for path in order["shown"])
    jail.enter(Path(order["base"]), shown, map(Path, order["hidden"]))
    for name in order["preload"]:
        importlib.import_module(name)
    child.ready(order["absent"])
    wire.send(control, {"ready": report}, {})
    return jail.Limits(**order["limits"]), bool(answer["mapped"]), shown


def _into_process_namespace() -> None:
    """Go on in a child, the first process of the new namespace; what is left behind only waits."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    jail.end_with_parent()


def _serve(control: socket.socket, fork: jail.Fork, settings: _Settings) -> None:
    pid = 0
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        except OSError:
            return
        if data == b"s":
            pid = fork()
            if pid == 0:
                _become_child(control, descriptors[0], settings)
            os.close(descriptors[0])
            wire.send(control, {"pid": pid}, {})
        elif data == b"r" and pid:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            pid = 0
            wire.send(control, {"status": os.waitstatus_to_exitcode(status)}, {})
        else:
            return


def _become_child(control: socket.socket, descriptor: int, settings: _Settings) -> None:
    code = 1
    try:
        control.detach()
        limits, own_user, shown = settings
        jail.lock(limits, keep=descriptor, own_user=own_user, shown=shown)
        child.serve(socket.socket(fileno=3))
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
