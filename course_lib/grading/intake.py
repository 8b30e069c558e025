"""Find submissions: in nbgrader's folders, in plain ones, and in what Moodle, Canvas and Gradescope give.

Folders and archives come from outside. Links are not followed, only regular files are read, nothing is
unpacked to disk, and sizes are counted while reading. What is wrong with one submission is said in its
``problem`` and becomes its result; what belongs to nobody becomes a warning.

Whose a submission is: nbgrader's and a plain folder's or file's name; Moodle's participant number, which
its grading worksheet has; Canvas' user id, which is the ``ID`` of its grade book; Gradescope's student id,
or the e-mail address where there is none. The person's name, where the platform says it, goes along.

All of this stands at the top of what a platform or a teacher has put together. Below a student's own
folder everything is the student's, and what looks there like a platform's mark is a warning.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from course_lib.grading import rebuild
from course_lib.grading.rebuild import Master

#: The most entries that an archive, or the folder of a student, may have.
MAX_MEMBERS = 20_000
#: The most notebooks of one student that are looked at.
MAX_FILES = 50
#: The most bytes that are unpacked from one archive.
MAX_UNPACKED = 8 << 30
#: The longest student id in characters, and in bytes, because it becomes the name of a folder.
MAX_ID, MAX_ID_BYTES = 100, 200
#: The deepest folder that is looked into.
_DEPTH = 6
#: The most bytes of a time stamp, of Gradescope's list, and of an archive's table of contents.
_MAX_STAMP, _MAX_YAML, _MAX_CONTENTS = 200, 16 << 20, 64 << 20

# "fgsm.ipynb"; some browsers save it as "fgsm.ipynb.txt".
_NOTEBOOK = re.compile(r"(?P<stem>.*)\.ipynb(?:\.(?:txt|json))?", re.IGNORECASE | re.DOTALL)
# "Ada Lovelace_12345_assignsubmission_file_", as a folder or in front of the file's own name. The first
# such mark is Moodle's, which leaves no underscore in a person's name; what follows is the student's.
_MOODLE = re.compile(
    r"(?P<name>.*?)_(?P<id>\d{1,20})_assignsubmission_(?P<kind>[a-z]+)_?(?P<rest>.*)"
)
_MARK = re.compile(r"_(\d{1,20})_assignsubmission_")
# "lovelaceada_LATE_1234_56789_fgsm-2.ipynb"
_CANVAS = re.compile(
    r"(?P<name>.+?)(?P<late>_LATE)?_(?P<id>\d{1,20})_(?P<file>\d{1,20})_(?P<rest>.+)"
)
_GRADESCOPE, _STAMPS = "submission_metadata.yml", "timestamp.txt"
# The folder that Gradescope packs its list and everybody's folder into.
_EXPORT = re.compile(r"assignment_\d{1,20}_export")
_PERSON = ("sid", "email", "name")
# What shells and nbgrader's pages read as more than a letter.
_NOT_IN_A_NAME = frozenset('<>"*?[]`')
# "fgsm-2", "fgsm (2)": a later copy.
_COPY = re.compile(r".*?(?:-(\d{1,6})| ?\((\d{1,6})\))")
_STAMP = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)\s*"
    r"(?:(?P<offset>Z|[+-]\d\d:?\d\d)|(?P<zone>[A-Za-z][A-Za-z0-9_+/-]{0,63}))?"
)
# Characters that count as printable and are not seen, and accents piled up to cover other lines.
_ACCENT = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
    f"|(?<={_ACCENT * 4}){_ACCENT}"
)
_EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Submission:
    """One student's notebook for one assignment.

    ``timestamp`` is when it was handed in, in UTC, where that is known; ``late`` where the platform says
    so. ``path`` says where it was found. ``problem`` says, to the student, why it could not be read; then
    ``data`` is empty. ``name`` is the person's name where the platform tells it, ``note`` says which other
    files were left out, to the teacher.
    """

    student: str
    assignment: str
    data: bytes
    timestamp: datetime | None
    path: str
    problem: str = ""
    late: bool = False
    name: str = ""
    note: str = ""


@dataclass(frozen=True)
class Intake(Iterator[Submission]):
    """The submissions, read one at a time, and what there is to say about the rest.

    Iterating yields ``submissions`` ordered by student. ``warnings`` is complete after the last one.
    """

    submissions: Iterator[Submission]
    warnings: list[str]

    def __next__(self) -> Submission:
        return next(self.submissions)


def printable(text: str, keep: str = "") -> str:
    r"""Return ``text`` with what cannot be seen, or turns text round, as an escape such as ``\u202e``.

    So are accents after the fourth on one letter. Characters in ``keep`` stay: usually a line break and
    a tab.
    """
    text = _BLANK.sub(lambda hit: hit[0] if hit[0] in keep else _escape(hit[0]), text)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _escape(one) for one in text)


def _escape(one: str) -> str:
    return one.encode("unicode_escape").decode()


def submissions(paths: Sequence[Path], names: Mapping[str, Master]) -> Intake:
    """Find the submissions for the assignments ``names`` in folders, archives and notebooks.

    A path is nbgrader's ``submitted``, a folder of ``<student>.ipynb`` or ``<student>/*.ipynb``, a
    notebook, or a zip from Moodle, Canvas or Gradescope, unpacked or not. To which assignment a notebook
    belongs, nbgrader's folder says, else its cells, else its name. Of several notebooks of a student for
    an assignment the latest counts. What lies at the top of a path says whose it is: name the folder with
    the students in it, and not a student's own, in which the names are the student's.

    Raises ``ValueError`` for a path that is not there or none of these, and without assignments.
    """
    if not names:
        raise ValueError("names: expected at least one assignment, got none")
    warnings: list[str] = []
    by_student: dict[str, dict[str, list[_Found]]] = {}
    for path in paths:
        for found in _look(path, names, warnings):
            student = unicodedata.normalize("NFC", found.student).strip()
            if why := unusable(student):
                warnings.append(f"{found.path}: left out, {why}")
                continue
            same = by_student.setdefault(student, {}).setdefault(found.student, [])
            if len(same) < MAX_FILES and all(found.path != other.path for other in same):
                same.append(found)
            elif len(same) == MAX_FILES:
                warnings.append(
                    f"{found.path}: left out, {student} has more than {MAX_FILES} files"
                )
    return Intake(_choose(by_student, names, warnings), warnings)


class _Unreadable(Exception):
    """Why a file was not read, to the student."""


_LINK = "what was handed in is a link to another file: hand in the notebook itself"
_IRREGULAR = "what was handed in is not a regular file: hand in the notebook itself"
_LARGE = (
    f"the file is larger than {rebuild.MAX_BYTES >> 20} MB: clear the outputs, save, and hand it in "
    "again"
)


class _Entry(NamedTuple):
    """A file in a folder or an archive: where, how it is read (at most so many bytes), or why not."""

    parts: tuple[str, ...]
    read: Callable[[int], bytes]
    problem: str = ""


@dataclass(frozen=True)
class _Found:
    """A notebook that a student may have handed in. ``order`` is larger for what came later."""

    student: str
    path: str
    read: Callable[[int], bytes]
    problem: str
    stem: str
    assignment: str = ""  # where nbgrader's folder says it
    hint: str = ""  # the names of folders or of the archive
    timestamp: datetime | None = None
    late: bool = False
    name: str = ""
    order: tuple[int, ...] = ()


def _wrapped(entries: Sequence[_Entry], stem: str, names: Mapping[str, Master]) -> bool:
    """Say whether an archive is one folder with the class in it, and not that of one student."""
    if len({entry.parts[0] for entry in entries}) != 1 or min(len(e.parts) for e in entries) < 2:
        return False
    inside = [entry.parts[1] for entry in entries if _NOTEBOOK.fullmatch(entry.parts[-1])]
    return entries[0].parts[0] in (stem, "submitted") or (
        len(inside) > 1 and not any(_stem(name) in names for name in inside)
    )


def unusable(student: str) -> str:
    """Say why a name cannot be a student's id, and so the name of a folder, or nothing."""
    if not student or student.startswith(".") or "/" in student or "\\" in student:
        return "no student's name can be read from where it lies"
    if printable(student) != student:
        return "the student's name has characters that cannot be printed"
    if len(student) > MAX_ID or len(student.encode()) > MAX_ID_BYTES:
        return f"the student's name is longer than {MAX_ID} characters"
    wrong = "".join(sorted(_NOT_IN_A_NAME & set(student)))
    if wrong or student != student.strip():
        return f"the student's name must not have {wrong or 'a space at an end'}"
    return ""


def _look(path: Path, names: Mapping[str, Master], warnings: list[str]) -> Iterator[_Found]:
    """Yield the notebooks in one path that a teacher named."""
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(f"no submissions in {str(path)!r}: {why}") from None
    absolute = Path(os.path.abspath(path))
    if stat.S_ISDIR(mode):
        entries = list(_walk(path, warnings))
        yield from _place(entries, absolute.parts, str(path), names, warnings)
    elif _NOTEBOOK.fullmatch(path.name):
        stem = _stem(path.name)
        above = absolute.parts[:-1]
        if stem in names and any(
            folder.is_symlink() for folder in (absolute.parent, absolute.parent.parent)
        ):
            # In nbgrader's folders these two say whose it is, for what.
            warnings.append(f"{printable(str(path))}: left out, its folder is a link")
            return
        entries = [
            _Entry((file.name,), _reader(path.parent, (file.name,)), _LINK * file.is_symlink())
            for file in (path, path.parent / _STAMPS)
            if os.path.lexists(file)
        ]
        yield from _place(entries, above, str(path.parent), names, warnings)
    elif stat.S_ISLNK(mode):
        warnings.append(f"{printable(str(path))}: left out, it is a link: name what it points to")
    elif stat.S_ISREG(mode) and path.suffix.lower() == ".zip":
        entries = list(_unzip(path, warnings))
        while _wrapped(entries, path.stem, names):
            entries = [entry._replace(parts=entry.parts[1:]) for entry in entries]
        yield from _place(entries, (path.stem,), str(path), names, warnings)
    else:
        raise ValueError(f"no submissions in {str(path)!r}: expected a folder, .ipynb or .zip")


# --- folders -----------------------------------------------------------------------------------


def _walk(top: Path, warnings: list[str]) -> Iterator[_Entry]:
    """Yield the files below a folder, without following a link on the way."""

    def below(descriptor: int, parts: tuple[str, ...], left: list[int]) -> Iterator[_Entry]:
        with os.scandir(descriptor) as scan:
            for item in scan:
                if _hidden(item.name):
                    continue
                here = (*parts, item.name)
                budget = left if parts else [MAX_MEMBERS]  # one student's files cost only hers
                budget[0] -= 1
                if budget[0] < 0:
                    if budget[0] == -1:
                        warnings.append(
                            f"{_shown(top, here[:1])}: more than {MAX_MEMBERS:,} files, the rest "
                            "was left out"
                        )
                    return
                if item.is_symlink():
                    yield _Entry(here, _reader(top, here), _LINK)
                elif item.is_dir(follow_symlinks=False):
                    if len(here) < _DEPTH:
                        yield from inside(descriptor, item.name, here, budget)
                elif item.is_file(follow_symlinks=False):
                    yield _Entry(here, _reader(top, here))
                else:
                    yield _Entry(here, _reader(top, here), _IRREGULAR)

    def inside(above: int, name: str, parts: tuple[str, ...], left: list[int]) -> Iterator[_Entry]:
        try:
            opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        except OSError as error:
            warnings.append(f"{_shown(top, parts)}: left out, {error.strerror}")
            return
        try:
            yield from below(opened, parts, left)
        finally:
            os.close(opened)

    try:
        descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise ValueError(f"no submissions in {str(top)!r}: {error.strerror}") from None
    try:
        yield from below(descriptor, (), [])
    finally:
        os.close(descriptor)


def _reader(top: Path, parts: tuple[str, ...]) -> Callable[[int], bytes]:
    return lambda most: _read_file(top, parts, most)


def _read_file(top: Path, parts: tuple[str, ...], most: int) -> bytes:
    """Read at most ``most`` bytes of a regular file; no step on the way may be a link."""
    try:
        folder = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in parts[:-1]:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                inner = os.open(part, flags, dir_fd=folder)
                os.close(folder)
                folder = inner
            # Opening a pipe must not wait for somebody to write into it.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            if not stat.S_ISREG(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode):
                raise _Unreadable(_IRREGULAR)
            descriptor = os.open(parts[-1], flags, dir_fd=folder)
        finally:
            os.close(folder)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _Unreadable(_IRREGULAR)
            return file.read(most)
    except OSError as error:
        raise _Unreadable(f"the file could not be read ({error.strerror})") from None


# --- archives ----------------------------------------------------------------------------------


class _Archive:
    """A zip, of which one member at a time is unpacked into memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._left = MAX_UNPACKED
        try:
            _table_of_contents(path)
            self.zip = zipfile.ZipFile(path)
        except (
            zipfile.BadZipFile,
            OSError,
            ValueError,
            NotImplementedError,
            struct.error,
        ) as error:
            raise ValueError(f"{str(path)!r} cannot be read as a zip: {error}") from None
        if len(self.zip.infolist()) > MAX_MEMBERS:
            raise ValueError(
                f"{str(path)!r} has {len(self.zip.infolist()):,} entries, more than {MAX_MEMBERS:,}: "
                "unpack it and name the folders"
            )

    def reader(self, member: zipfile.ZipInfo) -> Callable[[int], bytes]:
        return lambda most: self._read(member, most)

    def _read(self, member: zipfile.ZipInfo, most: int) -> bytes:
        if self._left <= 0:
            raise _Unreadable(
                f"the archive holds more than {MAX_UNPACKED >> 30} GB, and this came after that"
            )
        try:
            with self.zip.open(member) as file:
                data = file.read(most)
        # What a damaged or unknown compression raises is not one family.
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError):
            raise _Unreadable("the file cannot be unpacked: the archive is damaged") from None
        self._left -= len(data)
        return data


def _table_of_contents(path: Path) -> None:
    """Refuse an archive whose table of contents alone would fill the memory."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 65_557))
        tail = file.read()
    found = tail.rfind(b"PK\5\6")
    if found < 0 or len(tail) < found + 22:
        raise ValueError("it has no table of contents: was it cut off?")
    (size,) = struct.unpack_from("<I", tail, found + 12)
    if size > _MAX_CONTENTS:
        raise ValueError("its table of contents is too large: unpack it and name the folder")


def _unzip(path: Path, warnings: list[str]) -> Iterator[_Entry]:
    """Yield the members of a zip. Nothing is written to disk."""
    archive = _Archive(path)
    for member in archive.zip.infolist():
        name = member.filename.replace("\\", "/")
        if member.is_dir() or name.endswith("/"):
            continue
        parts = tuple(name.split("/"))
        if any(_hidden(part) for part in parts if part not in ("", ".", "..")):
            continue
        if name.startswith("/") or re.match(r"[A-Za-z]:", name) or {"", ".", ".."} & {*parts}:
            warnings.append(f"{_shown(path, (name,))}: left out, its name leads out of the archive")
            continue
        problem = ""
        mode = member.external_attr >> 16
        if stat.S_ISLNK(mode):
            problem = _LINK
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            problem = _IRREGULAR
        elif member.flag_bits & 0x41:
            problem = "the file is encrypted: hand it in without a password"
        elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            problem = (
                "the file is packed in a way that is not read here: hand in the notebook itself"
            )
        yield _Entry(parts, archive.reader(member), problem)


# --- whose it is -------------------------------------------------------------------------------


class _Group(NamedTuple):
    """What Gradescope says of one submission: ``(id, name)`` of everybody who made it, and when."""

    people: list[tuple[str, str]]
    timestamp: datetime | None


def _place(
    entries: Sequence[_Entry],
    base: tuple[str, ...],
    where: str,
    names: Mapping[str, Master],
    warnings: list[str],
) -> Iterator[_Found]:
    """Say of each notebook whose it may be. ``base`` is the path of what the entries lie in."""
    stamps = {entry.parts[:-1]: entry for entry in entries if entry.parts[-1] == _STAMPS}
    groups: dict[tuple[str, ...], _Group] = {}
    unlisted: list[str] = []  # lists of Gradescope's where none of them is
    for entry in entries:
        *folders, file = entry.parts
        if file != _GRADESCOPE:
            continue
        if folders and not (len(folders) == 1 and _EXPORT.fullmatch(folders[0])):
            unlisted.append(_shown(where, entry.parts))
        elif not entry.problem:
            listed = _gradescope(entry, where, warnings)
            groups |= {(*folders, key): group for key, group in listed.items()}
    unknown: dict[str, int] = {}
    marked: list[str] = []  # with a platform's mark where none counts
    untimed: list[str] = []  # with a time that counts for nobody
    others: dict[tuple[str, str, str], list[str]] = {}  # what came with no notebook
    seen: set[tuple[str, str, str]] = set()
    for entry in entries:
        shown = _shown(where, entry.parts)
        above = entry.parts[:-1]
        group = groups.get(above[:1]) or groups.get(above[:2])
        moodle = _MOODLE.fullmatch(entry.parts[0]) if group is None else None
        canvas = None
        if not above and not moodle:
            canvas = _CANVAS.fullmatch(entry.parts[0])
        file = entry.parts[-1]
        if moodle and not above:  # Moodle's flat form: the file's own name follows
            file = moodle["rest"] or file
        elif canvas:
            file = canvas["rest"]
        is_notebook = _NOTEBOOK.fullmatch(file) is not None
        if entry.problem == _LINK and not is_notebook:
            if entry.parts[-1] in names and len(entry.parts) == 2:  # nbgrader's assignment folder
                entry = entry._replace(parts=(*entry.parts, f"{entry.parts[-1]}.ipynb"))
                file, is_notebook = entry.parts[-1], True
            else:
                warnings.append(f"{shown}: left out, it is a link")
                continue
        stem = _stem(file)
        found = _Found("", shown, entry.read, entry.problem, stem, hint=base[-1] if base else "")
        people: list[tuple[str, str]] = []
        if moodle:
            if moodle["kind"] != "file":
                continue
            people = [(moodle["id"], moodle["name"].strip())]
            found = replace(found, order=(0, _copy(stem)))
        elif canvas:
            people = [(canvas["id"], canvas["name"])]
            order = (0, _copy(stem), int(canvas["file"]))
            found = replace(found, order=order, late=canvas["late"] is not None)
        elif group is not None:
            people = group.people
            found = replace(found, timestamp=group.timestamp, order=(0, _copy(stem)))
        if not is_notebook:
            if len(entry.parts) == 3 and entry.parts[1] in names and not people:
                people = [(entry.parts[0], "")]
                found = replace(found, assignment=entry.parts[1])
            elif (
                len(entry.parts) == 2
                and entry.parts[0] not in names
                and file not in (_GRADESCOPE, _STAMPS)
                and not people
            ):
                people = [(entry.parts[0], "")]  # a plain folder of a student's
            for who in people:
                others.setdefault((*who, found.assignment), []).append(file)
            continue
        told = {hit[1] for part in (*above[1:], file) for hit in _MARK.finditer(part)}
        if told - {moodle["id"] if moodle else ""} or (
            above and not people and _CANVAS.fullmatch(file)
        ):
            marked.append(shown)
        if not people:
            owner = _owner(entry.parts, base, names)
            if owner is None:
                unknown[entry.parts[1]] = unknown.get(entry.parts[1], 0) + 1
                continue
            student, assignment, hint = owner
            deep, exact = len(entry.parts), int(stem == assignment)
            order = (exact, -deep, _copy(stem)) if assignment else (0, -deep, _copy(stem))
            found = replace(found, assignment=assignment, hint=hint or found.hint, order=order)
            people = [(student, "")]
            # Of an assignment's folder in nbgrader's layout: further down lies what she has made.
            stamp = stamps.get(above[:2]) if assignment else None
            if stamp is not None and not found.problem:
                found = replace(found, timestamp=_stamp(stamp, where, warnings))
            if above in stamps and above and stamps[above] is not stamp:
                untimed.append(shown)
        for student, name in people:
            seen.add((student, name, found.assignment))
            yield replace(found, student=student, name=printable(name)[:MAX_ID])
    for folder, count in sorted(unknown.items()):
        files = "1 notebook" if count == 1 else f"{count:,} notebooks"
        warnings.append(
            f"{_shown(where, ('*', folder))}: {files} left out, there is no such assignment (there are "
            f"{', '.join(sorted(names))})"
        )
    if unlisted:
        warnings.append(
            f"{printable(where)}: Gradescope's list counts only at the top of what it gives, left out: "
            f"{_listed(unlisted)}"
        )
    if marked:
        warnings.append(
            f"{printable(where)}: named as Moodle or Canvas names files, which counts only at the top of "
            f"what it gives (name that folder, if these are of it): {_listed(marked)}"
        )
    if untimed:
        warnings.append(
            f"{printable(where)}: a {_STAMPS} was left out, it counts only in <student>/<assignment>, "
            f"beside {_listed(untimed)}"
        )
    for owner_of, files_there in others.items():
        if owner_of not in seen:
            of_whom = printable(" ".join(part for part in owner_of if part))[:200]
            warnings.append(
                f"{printable(where)}: no notebook of {of_whom}, but {_listed(files_there)}"
            )


def _owner(
    parts: tuple[str, ...], base: tuple[str, ...], names: Mapping[str, Master]
) -> tuple[str, str, str] | None:
    """Return student, assignment (where nbgrader's folder says it) and a hint for a notebook.

    None for a folder of another assignment in nbgrader's layout.
    """
    *folders, file = parts
    stem = _stem(file)
    above = (*("",) * 2, *base)
    if not folders:
        if stem not in names:
            return stem, "", ""
        if above[-1] in names:  # submitted/ada/fgsm/fgsm.ipynb
            return above[-2], above[-1], ""
        return above[-1], "", ""
    if len(folders) == 1:
        if folders[0] not in names:
            return folders[0], "", ""
        if stem in names:  # submitted/ada was named
            return above[-1], folders[0], ""
        return stem, "", folders[0]
    if folders[1] in names:
        return folders[0], folders[1], ""
    if folders[0] in names:
        return folders[1], "", folders[0]
    return None


def _gradescope(entry: _Entry, where: str, warnings: list[str]) -> dict[str, _Group]:
    """Read Gradescope's list of who handed in what; one that cannot be read is a warning."""
    import yaml

    # Made by a program in another language: its tagged objects become nothing instead of an error.
    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            # Merges of merges make gigabytes of a few lines. Aliases, which Ruby writes, cost nothing.
            if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
                raise yaml.YAMLError("a mapping is merged into another")
            super().flatten_mapping(node)

    Loader.add_multi_constructor("!", lambda *_: None)
    try:
        data = entry.read(_MAX_YAML + 1)
        if len(data) > _MAX_YAML:
            raise _Unreadable("it is too large")
        table = yaml.load(data, Loader)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError, _Unreadable):
        warnings.append(f"{_shown(where, entry.parts)}: who handed in what cannot be read")
        return {}
    groups = {}
    for key, facts in table.items() if isinstance(table, dict) else ():
        if not isinstance(key, str) or not isinstance(facts, dict):
            continue
        made = facts.get(":created_at", facts.get("created_at"))
        listed = facts.get(":submitters", facts.get("submitters"))
        people = []
        for person in listed if isinstance(listed, list) else ():
            if not isinstance(person, dict):
                continue
            sid, email, name = (
                str(value).strip() if isinstance(value, (str, int)) and value else ""
                for value in (person.get(f":{field}", person.get(field)) for field in _PERSON)
            )
            if sid or email:
                people.append((sid or email, name))
        if people:
            groups[key] = _Group(people, _time(made))
    return groups


def _time(value: Any) -> datetime | None:
    """Return a time in UTC from what YAML made of it; one without a zone is UTC."""
    if isinstance(value, str):
        return _parse_time(value)
    if not isinstance(value, datetime):
        return None
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (OverflowError, ValueError):
        return None


def _stamp(entry: _Entry, where: str, warnings: list[str]) -> datetime | None:
    """Read nbgrader's ``timestamp.txt``."""
    found = None
    if not entry.problem:
        with contextlib.suppress(_Unreadable):
            found = _parse_time(entry.read(_MAX_STAMP).decode("utf-8", errors="replace"))
    if found is None:
        warnings.append(f"{_shown(where, entry.parts)}: no time can be read from it")
    return found


def _parse_time(text: str) -> datetime | None:
    """Read ``2026-02-02 15:58:23.948203 Europe/Berlin`` or with an offset; without a zone it is UTC."""
    hit = _STAMP.fullmatch(text.strip())
    if hit is None:
        return None
    try:
        time = datetime.fromisoformat(hit["time"])
        if hit["offset"]:
            time = datetime.fromisoformat(f"{hit['time']}{hit['offset']}")
        else:
            zone = hit["zone"] or "UTC"
            time = time.replace(tzinfo=UTC if zone == "UTC" else ZoneInfo(zone))
        return time.astimezone(UTC)
    except (ValueError, OverflowError, KeyError, OSError):  # a zone that is not known is a KeyError
        return None


# --- which one counts --------------------------------------------------------------------------


def _choose(
    by_student: Mapping[str, Mapping[str, list[_Found]]],
    names: Mapping[str, Master],
    warnings: list[str],
) -> Iterator[Submission]:
    """Yield every student's submissions, one student after the other."""
    for student, spellings in sorted(by_student.items()):
        kept = student if student in spellings else min(spellings)
        for other in sorted(spellings.keys() - {kept}):
            warnings.extend(
                f"{found.path}: left out, its student's name {other!a} differs from {kept!a} only in "
                "how it is written"
                for found in spellings[other]
            )
        yield from _latest(student, spellings[kept], names, warnings)


def _latest(
    student: str, files: Sequence[_Found], names: Mapping[str, Master], warnings: list[str]
) -> Iterator[Submission]:
    """Yield of a student's files the one that counts for each assignment.

    Where folders say the assignment, paths and times decide and only that file is read. Else files are
    read one after the other, and one per assignment is held.
    """
    best: dict[str, tuple[tuple[Any, ...], _Found, bytes, str]] = {}
    paths: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
        sure = sorted((found for found in files if found.assignment == name), key=_later)
        paths[name] = [found.path for found in sure]
        if sure:
            best[name] = ((True, *_later(sure[-1])), sure[-1], *_body(sure[-1]))
    for found in files:
        if found.assignment:
            continue
        data, problem = _body(found)
        if len(files) == len(names) == 1:
            (name,), recognised = names, True  # nothing to decide, so nothing is parsed
        else:
            name, recognised = _assignment(found, data, names)
        if not name:
            why = problem or f"it belongs to no assignment (there are {', '.join(sorted(names))})"
            warnings.append(f"{found.path}: left out, {why}")
            continue
        paths[name].append(found.path)
        rank = (recognised, *_later(found))
        if name not in best or rank > best[name][0]:
            best[name] = (rank, found, data, problem)
        del data
    for name in names:
        if name not in best:
            continue
        _, found, data, problem = best.pop(name)
        left = [path for path in paths[name] if path != found.path]
        yield Submission(
            student=student,
            assignment=name,
            data=data,
            timestamp=found.timestamp,
            path=found.path,
            problem=problem,
            late=found.late,
            name=found.name,
            note=f"{found.path} was graded, and not {_listed(left)}" if left else "",
        )


def _later(found: _Found) -> tuple[Any, ...]:
    return (found.timestamp or _EARLIEST, found.order, found.stem, found.path)


def _body(found: _Found) -> tuple[bytes, str]:
    """Return a notebook's bytes, or why there are none."""
    if found.problem:
        return b"", found.problem
    try:
        data = found.read(rebuild.MAX_BYTES + 1)
    except _Unreadable as error:
        return b"", str(error)
    return (b"", _LARGE) if len(data) > rebuild.MAX_BYTES else (data, "")


def _assignment(found: _Found, data: bytes, names: Mapping[str, Master]) -> tuple[str, bool]:
    """Return the assignment whose cells a notebook has, else the one it is named after.

    And whether it is one of this assignment beyond doubt: named so, or with most of its cells.
    """
    shared = dict.fromkeys(names, 0)
    with contextlib.suppress(rebuild.Rejected):
        notebook = rebuild.parse(data)
        shared = {name: rebuild.overlap(master, notebook) for name, master in names.items()}
    most = max(shared.values())
    likely = [name for name in names if shared[name] == most]
    for text in (found.stem, found.hint):
        named = [name for name in likely if name.casefold() in text.casefold()]
        if named and (len(likely) > 1 or not most):
            return max(named, key=len), True
    if len(likely) > 1:
        return "", False
    own = likely[0].casefold() in found.stem.casefold()
    return likely[0], own or 2 * most > len(names[likely[0]].ids())


def _stem(file: str) -> str:
    hit = _NOTEBOOK.fullmatch(file)
    return hit["stem"] if hit else file


def _copy(stem: str) -> int:
    hit = _COPY.fullmatch(stem)
    return int(hit[1] or hit[2]) if hit else 0


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _shown(where: Path | str, parts: Sequence[str]) -> str:
    text = printable("/".join((str(where), *parts)))
    return text if len(text) <= 300 else f"{text[:150]}...{text[-147:]}"


def _listed(files: Sequence[str]) -> str:
    shown = ", ".join(printable(file)[-100:] for file in files[:5])
    return f"{shown} and {len(files) - 5} more" if len(files) > 5 else shown
