"""Make the environment that ``make`` needs, from nothing but Python and this checkout.

It runs before anything is installed, so it uses the standard library alone, and it is written for old
Pythons too, because its first duty is to say that a Python is too old. It finds uv or installs it into
``.tools``, makes ``.venv``, installs exactly what ``requirements.lock`` lists (hashes checked), then
this package, and leaves a stamp so that the next call costs nothing.

    python3 course_lib/bootstrap.py            the environment as locked
    TORCH=cpu python3 course_lib/bootstrap.py  torch without CUDA, 5 GB less
"""

import hashlib
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
TOOLS = os.path.join(ROOT, ".tools")
LOCK = os.path.join(ROOT, "requirements.lock")
OLDEST = (3, 11)
NEEDED_GB = {"": 9.0, "cpu": 3.0}
#: What CUDA brings: left out when torch is asked for without it.
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")


def stop(message):
    """End with one clear line."""
    sys.exit("error: " + message)


def say(message):
    """Show a step as it starts."""
    print("-- " + message, flush=True)


def check_machine(backend):
    """Refuse, in words, a Python that is too old, one without venv, and a disk that is too full."""
    if sys.version_info < OLDEST:
        stop(
            "this needs Python %d.%d or newer, and %s is %d.%d. Install a newer one, or name it: "
            "make PYTHON=python3.12 ..." % (*OLDEST, sys.executable, *sys.version_info[:2])
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        stop("this Python has no venv module. On Debian and Ubuntu: sudo apt install python3-venv")
    if backend not in NEEDED_GB:
        stop("TORCH=%s is not known: leave it out, or say TORCH=cpu" % backend)
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < NEEDED_GB[backend]:
        stop(
            "the environment needs about %.0f GB and this disk has %.1f GB free. Free some space%s."
            % (
                NEEDED_GB[backend],
                free,
                "" if backend else ", or say TORCH=cpu, which needs %.0f GB" % NEEDED_GB["cpu"],
            )
        )


def run(command, doing):
    """Run one step; if it fails, say what it was doing and the likely cause."""
    environment = dict(os.environ, VIRTUAL_ENV=VENV)
    environment.pop("PYTHONPATH", None)
    try:
        result = subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    except OSError as error:
        stop("%s: %s cannot be started (%s)" % (doing, command[0], error))
    errors = result.stderr.decode(errors="replace")
    if result.returncode:
        sys.stderr.write(errors)
        stop("%s failed: %s" % (doing, likely_cause(errors)))


def likely_cause(text):
    """Name the usual reasons a package client gives up, from what it wrote."""
    lower = text.lower()
    if "no space left" in lower:
        return "the disk is full. Free some space and run the same command again."
    if "hash" in lower and "mismatch" in lower:
        return "a package is not the one that was locked (its hash differs). Nothing was installed from it."
    if "certificate" in lower:
        return (
            "the registry's certificate is not trusted here, as happens behind a proxy that opens TLS. "
            "If this machine's own certificates know it: UV_SYSTEM_CERTS=1 make ..."
        )
    network = (
        "dns",
        "connect",
        "network",
        "timed out",
        "timeout",
        "resolve host",
        "name resolution",
    )
    if any(word in lower for word in network):
        return (
            "the package registry cannot be reached. Check the network (or a proxy: HTTPS_PROXY) and "
            "run the same command again; what was downloaded is kept."
        )
    return "see the lines above."


def find_uv():
    """Return uv's path, installing it into .tools if this machine has none."""
    found = shutil.which("uv")
    if found:
        return found
    own = os.path.join(TOOLS, "bin", "uv")
    if not os.path.exists(own):
        say("uv is not here: installing it into .tools")
        run([sys.executable, "-m", "venv", TOOLS], "making .tools")
        pip = [os.path.join(TOOLS, "bin", "python"), "-m", "pip", "install", "--quiet", "uv"]
        run(pip, "installing uv")
    return own


def without_cuda(lock):
    """Split a lock file: the pins of torch and torchvision, and the rest without CUDA's packages."""
    blocks, current = [], []
    for line in lock.splitlines():
        if line and not line[0].isspace() and current:
            blocks.append(current)
            current = []
        current.append(line)
    blocks.append(current)
    torch, rest = [], []
    for block in blocks:
        name = block[0].split("==")[0].strip()
        if name in ("torch", "torchvision"):
            torch.append(block[0].rstrip(" \\"))
        elif not name.startswith(CUDA_PREFIXES):
            rest.append("\n".join(block))
    return torch, "\n".join(rest) + "\n"


def digest(backend):
    """Return what the environment depends on: the lock, the metadata and the Python."""
    total = hashlib.sha256((backend + sys.version).encode())
    for name in ("requirements.lock", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            total.update(file.read())
    return total.hexdigest()


def main():
    """Bring .venv up to date, or do nothing if it is."""
    backend = os.environ.get("TORCH", "")
    stamp = os.path.join(VENV, ".course-stamp")
    if sys.version_info >= OLDEST and os.path.exists(stamp):
        with open(stamp) as file:
            if file.read() == digest(backend):
                return
    check_machine(backend)
    uv = find_uv()
    if not os.path.exists(os.path.join(VENV, "bin", "python")):
        say("making .venv")
        run(
            [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, VENV],
            "making .venv",
        )
    if backend == "cpu":
        with open(LOCK) as file:
            torch, rest = without_cuda(file.read())
        filtered = os.path.join(VENV, "requirements.cpu.lock")
        with open(filtered, "w") as file:
            file.write(rest)
        say("installing torch without CUDA")
        run([uv, "pip", "install", "--torch-backend=cpu", "--no-deps", *torch], "installing torch")
        say("installing what requirements.lock lists, hashes checked")
        run(
            [
                uv,
                "pip",
                "install",
                "--require-hashes",
                "--no-deps",
                "--compile-bytecode",
                "-r",
                filtered,
            ],
            "installing the requirements",
        )
    else:
        say(
            "installing what requirements.lock lists, hashes checked (about 6 GB with CUDA's libraries)"
        )
        run(
            [uv, "pip", "sync", "--require-hashes", "--compile-bytecode", LOCK],
            "installing the requirements",
        )
    say("installing this package")
    run(
        [uv, "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", "."],
        "installing this package",
    )
    with open(stamp + ".part", "w") as file:
        file.write(digest(backend))
    os.replace(stamp + ".part", stamp)


if __name__ == "__main__":
    main()
