"""Small trained weights, each with a card that says what it is and the recipe that made it.

A checkpoint is two files: ``<name>.safetensors`` (weights, which cannot run code when opened) and
``<name>.json`` (its card, with the SHA-256 of the weights); some have a third, ``<name>.film``, that
shows their training. ``course train NAME`` makes them anew.

Chapter: book/welcome/how_to_use.md
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

#: Where the checkpoints that ship with the course lie; ``COURSE_CHECKPOINTS`` names another folder
#: that is looked in first, which is where ``course train`` writes.
SHIPPED = Path(__file__).parent


@dataclass(frozen=True)
class Card:
    """What a checkpoint is, what made it, what it reached, and what it must not be used for."""

    name: str
    summary: str
    architecture: str
    data: str
    recipe: str
    seed: int
    steps: int
    seconds: float
    machine: str
    measures: dict[str, float]
    licence: str
    limits: str
    parameters: int
    sha256: str
    versions: dict[str, str] = field(default_factory=dict)
    film_sha256: str = ""

    def to_markdown(self) -> str:
        """Return the card as Markdown, for the book's page of models."""
        rows = {
            "Architecture": f"{self.architecture}, {self.parameters:,} parameters",
            "Data": self.data,
            "Recipe": f"`course train {self.name}` (seed {self.seed}, {self.steps:,} steps)",
            "Took": f"{self.seconds:,.0f} s on {self.machine}",
            "Reached": ", ".join(f"{key} {value:.4g}" for key, value in self.measures.items()),
            "Licence": self.licence,
            "Limits": self.limits,
            "Versions": ", ".join(f"{key} {value}" for key, value in self.versions.items()),
            "SHA-256": f"`{self.sha256}`",
        }
        lines = [
            f"## {self.name}",
            "",
            self.summary,
            "",
            f"| Card | `checkpoints.card({self.name!r})` |",
            "|---|---|",
        ]
        lines += [f"| {key} | {value} |" for key, value in rows.items() if value]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, eq=False)
class Film:
    """A training as it went: the same noise drawn at several steps, and the losses of every step.

    ``steps``: (T,), rising; ``frames``: (T, N, C, H, W) in [0, 1]; ``losses``: a name each, (S,).
    """

    steps: Tensor
    frames: Tensor
    losses: dict[str, Tensor]


def folders() -> list[Path]:
    """Return the folders that checkpoints are looked for in, first match wins."""
    own = os.environ.get("COURSE_CHECKPOINTS")
    return [*([Path(own)] if own else []), SHIPPED]


def names() -> list[str]:
    """Return the names of all checkpoints that can be loaded, sorted."""
    return sorted({path.stem for folder in folders() for path in folder.glob("*.safetensors")})


def _find(name: str) -> Path:
    for folder in folders():
        path = folder / f"{name}.safetensors"
        if path.is_file():
            return path
    raise ValueError(f"name: no checkpoint {name!r}; there are {', '.join(names()) or 'none yet'}")


def card(name: str) -> Card:
    """Return the card of the checkpoint ``name``.

    Raises ``ValueError`` for a name that is not there or a card that cannot be read.
    """
    path = _find(name).with_suffix(".json")
    try:
        return Card(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"the card {path.name} of checkpoint {name!r} cannot be read: {error}"
        ) from error


def film(name: str) -> Film:
    """Return the recording of the training that made the checkpoint ``name``.

    Raises ``ValueError`` for an unknown name, a checkpoint with no recording, and one that is
    truncated or was changed.
    """
    path = _find(name).with_suffix(".film")
    if not card(name).film_sha256:
        raise ValueError(f"name: the checkpoint {name!r} has no film of its training")
    content = _verified(name, path, card(name).film_sha256)
    parts = safetensors.torch.load(content)
    steps, frames = parts.pop("steps"), parts.pop("frames")
    return Film(steps, frames.float() / 255, {key: value.float() for key, value in parts.items()})


def load(name: str, module: Module) -> Module:
    """Fill ``module`` with the weights of the checkpoint ``name`` and return it in evaluation mode.

    The weights are checked against the card's SHA-256 first, and must fit the module exactly: the
    module is untouched unless all of it can be filled.

    Raises ``ValueError`` for an unknown name, weights that are truncated or were changed, and a
    module of another architecture.
    """
    path = _find(name)
    content = _verified(name, path, card(name).sha256)
    try:
        weights = safetensors.torch.load(content)
    except Exception as error:
        raise ValueError(
            f"checkpoint {name!r}: {path.name} is no safetensors file: {error}"
        ) from error
    _check_fit(name, module, weights)
    # Half precision on disk is a matter of size only; the module keeps its own dtype.
    module.load_state_dict(weights, strict=True)
    return module.eval()


def _verified(name: str, path: Path, sha256: str) -> bytes:
    """Return the file's bytes if they are those that the card speaks of."""
    content = path.read_bytes() if path.is_file() else b""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"checkpoint {name!r}: {path.name} has {len(content):,} bytes with SHA-256 {found[:12]}..., "
            f"its card says {sha256[:12]}...: it was cut short or changed. Restore it from "
            f"the package or make it anew with: course train {name}"
        )
    return content


def _check_fit(name: str, module: nn.Module, weights: dict[str, Tensor]) -> None:
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    wrong = [
        f"{key}: checkpoint {found.get(key, 'has none')}, module {expected.get(key, 'has none')}"
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    ]
    if wrong:
        raise ValueError(
            f"checkpoint {name!r} does not fit {type(module).__name__}: " + "; ".join(wrong[:5])
        )


def save(
    folder: Path, name: str, module: nn.Module, about: dict[str, Any], film: Film | None = None
) -> Card:
    """Write ``module``'s weights and their card into ``folder``, both or neither, and return the card.

    ``about`` holds the card's fields except ``name``, ``parameters`` and the hashes. ``film``: a
    recording of the training; its pictures are kept in 256 levels, its losses in half precision.

    Raises ``ValueError`` for weights with NaN or infinity and for missing fields, ``OSError`` when
    the disk is full; what was there before is then still there.
    """
    weights = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    broken = [key for key, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(f"module: weights that are not finite: {', '.join(broken)}")
    content = safetensors.torch.save(weights)
    reel = b"" if film is None else _develop(film)
    try:
        made = Card(
            name=name,
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            sha256=hashlib.sha256(content).hexdigest(),
            film_sha256=hashlib.sha256(reel).hexdigest() if reel else "",
            **about,
        )
    except TypeError as error:
        raise ValueError(f"about: {error}") from error
    text = json.dumps(asdict(made), indent=2, ensure_ascii=False) + "\n"
    # A kill between two renames leaves files whose hashes differ, which `load` refuses by name.
    files = {".json": text.encode(), ".film": reel, ".safetensors": content}
    write(folder, {f"{name}{suffix}": part for suffix, part in files.items() if part})
    return made


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write ``files``, by name, into ``folder``: each is on the disk before any gets its name.

    Raises ``OSError`` when the disk is full; what was there before is then still there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pending: list[tuple[str, Path]] = []
    try:
        for name, content in files.items():
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}")
            pending.append((temporary, folder / name))
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for temporary, final in pending:
            os.chmod(temporary, 0o644)
            os.replace(temporary, final)
    finally:
        for temporary, _ in pending:
            Path(temporary).unlink(missing_ok=True)


def _develop(film: Film) -> bytes:
    frames = (film.frames.clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
    losses = {key: value.half().contiguous() for key, value in film.losses.items()}
    return safetensors.torch.save({"steps": film.steps, "frames": frames, **losses})
