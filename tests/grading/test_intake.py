from __future__ import annotations

import json
import os
import socket
import stat
import struct
import subprocess
import sys
import unicodedata
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from course_lib.grading import intake, rebuild


def notebook(name: str, text: str = "pass") -> bytes:
    """Return a notebook with two answer cells of assignment ``name``."""
    cells = [
        {
            "cell_type": "code",
            "source": text,
            "metadata": {
                "nbgrader": {"grade_id": f"{name}_{part}", "solution": True, "grade": False}
            },
        }
        for part in ("one", "two")
    ]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


NAMES = {name: rebuild.load(name, notebook(name)) for name in ("fgsm", "pca")}
FGSM = {"fgsm": NAMES["fgsm"]}


def put(top: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return top


def pack(path: Path, files: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return path


def read(
    *paths: Path, names: dict[str, rebuild.Master] = NAMES
) -> tuple[list[intake.Submission], list[str]]:
    found = intake.submissions(paths, names)
    return list(found), found.warnings


def who(found: Iterable[intake.Submission]) -> list[tuple[str, str]]:
    return [(one.student, one.assignment) for one in found]


def test_nbgraders_folders(tmp_path: Path) -> None:
    top = put(
        tmp_path / "submitted",
        {
            "ada/fgsm/fgsm.ipynb": b"not parsed, so it need not be a notebook",
            "ada/fgsm/timestamp.txt": b"2026-02-02 15:58:23.948203 America/Los_Angeles",
            "ada/fgsm/draft.ipynb": notebook("fgsm"),
            "ada/fgsm/.ipynb_checkpoints/fgsm-checkpoint.ipynb": b"{}",
            "ada/pca/pca.ipynb": notebook("pca"),
            "bob/fgsm/fgsm.ipynb": notebook("fgsm"),
            "bob/fgsm/timestamp.txt": b"2026-02-02 15:58:23 UTC",
            "bob/old/old.ipynb": notebook("pca"),
            "eve/fgsm/homework.ipynb": notebook("fgsm"),
            "joe/fgsm/fgsm.py": b"",
        },
    )
    found, warnings = read(top)
    assert who(found) == [("ada", "fgsm"), ("ada", "pca"), ("bob", "fgsm"), ("eve", "fgsm")]
    assert found[0].data.startswith(b"not parsed")
    assert found[0].timestamp == datetime(2026, 2, 2, 23, 58, 23, 948203, UTC)
    assert found[2].timestamp == datetime(2026, 2, 2, 15, 58, 23, tzinfo=UTC)
    assert "draft.ipynb" in found[0].note and found[1].note == ""
    assert len(warnings) == 2
    assert "old" in warnings[0] and "no such assignment" in warnings[0]
    assert "joe" in warnings[1] and "fgsm.py" in warnings[1]
    for inner in (top / "ada", top / "ada" / "fgsm", top / "ada" / "fgsm" / "fgsm.ipynb"):
        assert ("ada", "fgsm") in who(read(inner)[0])


def test_plain_folders_and_single_files(tmp_path: Path) -> None:
    top = put(
        tmp_path / "class",
        {
            "ada.ipynb": notebook("fgsm"),
            "bob/anything.ipynb": notebook("pca"),
            "cyd/fgsm.ipynb.txt": b"no json, but its name says what it is",
            "dan.ipynb": notebook("other"),
            "readme.md": b"",
            ".hidden.ipynb": notebook("fgsm"),
            "pca/eve.ipynb": notebook("pca"),
        },
    )
    found, warnings = read(top)
    assert who(found) == [("ada", "fgsm"), ("bob", "pca"), ("cyd", "fgsm"), ("eve", "pca")]
    assert len(warnings) == 1 and "dan.ipynb" in warnings[0] and "fgsm, pca" in warnings[0]
    assert who(read(top / "ada.ipynb")[0]) == [("ada", "fgsm")]
    # With one assignment there is nothing to decide: what is not of it will be told so.
    assert ("dan", "fgsm") in who(read(top, names=FGSM)[0])


def test_cells_decide_before_names(tmp_path: Path) -> None:
    both = json.loads(notebook("fgsm"))
    both["cells"] += json.loads(notebook("pca"))["cells"]
    top = put(
        tmp_path,
        {
            "ada/pca.ipynb": notebook("fgsm"),
            "bob/pca-final.ipynb": json.dumps(both).encode(),
            "cyd/pca.ipynb": b"{",
        },
    )
    assert who(read(top)[0]) == [("ada", "fgsm"), ("bob", "pca"), ("cyd", "pca")]


def test_another_assignments_notebook_does_not_replace_the_right_one(tmp_path: Path) -> None:
    top = put(tmp_path, {"ada/a.ipynb": notebook("fgsm"), "ada/z.ipynb": notebook("pca")})
    (found,), _ = read(top, names=FGSM)
    assert found.data == notebook("fgsm") and "z.ipynb" in found.note


def test_a_student_without_a_notebook_is_named(tmp_path: Path) -> None:
    files = {"ada/fgsm.ipynb": notebook("fgsm"), "ada/notes.txt": b"", "emil/fgsm.py": b"x = 1"}
    found, warnings = read(put(tmp_path, files))
    assert who(found) == [("ada", "fgsm")]
    (warning,) = warnings
    assert "no notebook of emil, but fgsm.py" in warning


@pytest.mark.parametrize("unpacked", [False, True])
def test_moodle(tmp_path: Path, unpacked: bool) -> None:
    part = "_assignsubmission_"
    path = pack(
        tmp_path / "course-fgsm-987.zip",
        [
            (f"Ada Lovelace_12345{part}file_/fgsm.ipynb", notebook("fgsm", "a")),
            (f"Ada Lovelace_12345{part}onlinetext_/onlinetext.html", b"<p>hello"),
            (f"Ada Lovelace_777{part}file_/hw/fgsm.ipynb", notebook("fgsm", "b")),
            (f"Émilie du Châtelet_9{part}file_/fgsm.ipynb", notebook("fgsm", "c")),
            (f"Flat Form_10{part}file_fgsm.ipynb", notebook("fgsm", "d")),
            (f"No Notebook_11{part}file_/fgsm.pdf", b"%PDF"),
        ],
    )
    if unpacked:
        zipfile.ZipFile(path).extractall(tmp_path / "x")
        path = tmp_path / "x"
    found, warnings = read(path)
    assert [(one.student, one.name) for one in found] == [
        ("10", "Flat Form"),
        ("12345", "Ada Lovelace"),
        ("777", "Ada Lovelace"),
        ("9", "Émilie du Châtelet"),
    ]
    assert [json.loads(one.data)["cells"][0]["source"] for one in found] == ["d", "a", "b", "c"]
    assert len(warnings) == 1 and "No Notebook" in warnings[0] and "fgsm.pdf" in warnings[0]


def test_canvas(tmp_path: Path) -> None:
    path = pack(
        tmp_path / "submissions.zip",
        [
            ("lovelaceada_1234_56789_fgsm.ipynb", notebook("fgsm", "old")),
            ("lovelaceada_LATE_1234_56799_fgsm-2.ipynb", notebook("fgsm", "new")),
            ("lovelaceada_1234_56790_fgsm-1.ipynb", notebook("fgsm", "older")),
            ("lovelaceada_1234_1_pca.ipynb", notebook("pca")),
            ("lovelaceada_99_56791_fgsm.ipynb", notebook("fgsm")),
            ("turingalan_5_6_essay.docx", b""),
        ],
    )
    found, warnings = read(path)
    assert who(found) == [("1234", "fgsm"), ("1234", "pca"), ("99", "fgsm")]
    assert b'"new"' in found[0].data and found[0].late and not found[1].late
    assert found[0].name == "lovelaceada" and "56790_fgsm-1" in found[0].note
    assert len(warnings) == 1 and "essay.docx" in warnings[0]


METADATA = b"""---
submission_123:
  :submitters:
  - :name: Ada Lovelace
    :sid: '00123'
    :email: ada@uni.example
  - :name: Alan Turing
    :sid:
    :email: alan@uni.example
  :created_at: 2026-02-02 15:58:23.948203000 Z
  :status: processed
  :odd: !ruby/object:Gem::Version {version: 1}
submission_124:
  :submitters:
  - :name: Eve
    :sid: ../../eve
  :created_at: never
"""


def test_gradescope(tmp_path: Path) -> None:
    top = "assignment_1_export"
    path = pack(
        tmp_path / "export.zip",
        [
            (f"{top}/submission_metadata.yml", METADATA),
            (f"{top}/submission_123/fgsm.ipynb", notebook("fgsm")),
            (f"{top}/submission_124/fgsm.ipynb", notebook("fgsm")),
            (f"{top}/submission_125/fgsm.ipynb", notebook("fgsm")),
        ],
    )
    found, warnings = read(path)
    assert [(one.student, one.name) for one in found] == [
        ("00123", "Ada Lovelace"),
        ("alan@uni.example", "Alan Turing"),
        ("submission_125", ""),
    ]
    assert found[0].timestamp == datetime(2026, 2, 2, 15, 58, 23, 948203, UTC)
    assert len(warnings) == 1 and "submission_124" in warnings[0]


def test_gradescopes_list_is_found_above_a_single_submission(tmp_path: Path) -> None:
    top = "assignment_1_export"
    files = {
        f"{top}/submission_metadata.yml": METADATA,
        f"{top}/submission_123/fgsm.ipynb": notebook("fgsm"),
    }
    path = pack(tmp_path / "export.zip", files.items())
    zipfile.ZipFile(path).extractall(tmp_path / "x")
    for where in (path, tmp_path / "x", tmp_path / "x" / top):
        found, warnings = read(where)
        assert [one.student for one in found] == ["00123", "alan@uni.example"] and not warnings


#: A class of Bob, who is 222, and Eve, who is 111: where their files lie, and what a platform adds.
LAYOUTS: dict[str, tuple[str, dict[str, bytes]]] = {
    "nbgrader": ("{}/fgsm", {}),
    "plain": ("{}", {}),
    "Moodle": ("Somebody_{}_assignsubmission_file_", {}),
    "Gradescope": (
        "submission_{}",
        {
            "submission_metadata.yml": b"submission_222: {':submitters': [{':sid': '222'}]}\n"
            b"submission_111: {':submitters': [{':sid': '111'}]}\n"
        },
    ),
}
THEFT = "{}: {{':submitters': [{{':sid': '{}'}}], ':created_at': 2030-01-01 10:00:00 Z}}\n"
#: What Eve hands in as well, to be taken for Bob.
OWN_MARKS = {
    "a list of Gradescope's": "submission_metadata.yml",
    "a list further down": "assignment_1_export/submission_metadata.yml",
    "a name of Moodle's": "Bob_222_assignsubmission_file_fgsm-9.ipynb",
    "a folder of Moodle's": "Bob_222_assignsubmission_file_/fgsm.ipynb",
    "a name of Canvas'": "bob_222_99999_fgsm-9.ipynb",
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("extra", OWN_MARKS.values(), ids=OWN_MARKS)
@pytest.mark.parametrize(("folder", "more"), LAYOUTS.values(), ids=LAYOUTS)
def test_nothing_that_a_student_hands_in_says_whose_it_is(
    tmp_path: Path, folder: str, more: dict[str, bytes], extra: str, packed: bool
) -> None:
    keys = ["222", "111", "fgsm", "submission_222", "submission_111", folder.format(222)]
    swap = "".join(THEFT.format(key, "111" if "222" in key else "222") for key in keys)
    files = more | {
        f"{folder.format(222)}/fgsm.ipynb": notebook("fgsm", "bob"),
        f"{folder.format(111)}/fgsm.ipynb": notebook("fgsm", "eve"),
        f"{folder.format(111)}/{extra}": (
            swap.encode() if extra.endswith(".yml") else notebook("fgsm", "eve")
        ),
    }
    top = put(tmp_path / "submitted", files)
    found, warnings = read(pack(tmp_path / "submitted.zip", files.items()) if packed else top)
    assert {one.student: json.loads(one.data)["cells"][0]["source"] for one in found} == {
        "222": "bob",
        "111": "eve",
    }
    assert all(one.timestamp is None for one in found)
    # A file's name says nothing where Moodle or Gradescope has said whose it is.
    quiet = extra.startswith("bob_222") and "_" in folder
    assert any(extra in line for line in warnings) != quiet


def test_the_first_mark_in_a_flat_name_is_moodles(tmp_path: Path) -> None:
    part = "assignsubmission_file_"
    files = {
        f"Bob B_222_{part}fgsm.ipynb": notebook("fgsm", "bob"),
        f"Eve E_111_{part}x_222_{part}fgsm-9.ipynb": notebook("fgsm", "eve"),
        f"Ada A_333_{part}Ada A_333_{part}fgsm.ipynb": notebook("fgsm", "ada"),
    }
    found, warnings = read(pack(tmp_path / "m.zip", files.items()))
    assert {one.student: json.loads(one.data)["cells"][0]["source"] for one in found} == {
        "222": "bob",
        "111": "eve",
        "333": "ada",
    }
    assert [one.name for one in found] == ["Eve E", "Bob B", "Ada A"]
    assert len(warnings) == 1 and "fgsm-9" in warnings[0] and "Ada" not in warnings[0]


@pytest.mark.parametrize(
    "text",
    [
        b"a: &a [x]\nb: *a\nc: !!python/object/apply:os.system ['touch pwned']",
        b"\t: :\n - [",
        b"[" * 5000,
        b"1: 2026-99-99 00:00:00",
        b"- a list",
        b"a: &a {':submitters': [{':sid': eve}]}\nsubmission_1: {<<: *a}",
        b"a: &a {':submitters': [{':sid': eve}]}\nsubmission_1: {!!merge x: *a}",
        b"submission_1: {':submitters': [1, {':sid': [3]}, {':name': x}], ':created_at': 3}",
    ],
)
def test_a_bad_list_of_gradescopes_costs_only_the_names(tmp_path: Path, text: bytes) -> None:
    put(tmp_path, {"submission_metadata.yml": text, "submission_1/fgsm.ipynb": notebook("fgsm")})
    found, _ = read(tmp_path)
    assert who(found) == [("submission_1", "fgsm")] and found[0].data == notebook("fgsm")
    assert not Path("pwned").exists()


def test_mappings_merged_into_mappings_are_refused_at_the_first(tmp_path: Path) -> None:
    bomb = "a0: &a0 {k: v}\n" + "".join(
        f"a{i + 1}: &a{i + 1}\n  <<: [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(3)
    )
    put(tmp_path, {"submission_metadata.yml": bomb.encode(), "ada/fgsm.ipynb": notebook("fgsm")})
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    intake.submissions([tmp_path], NAMES)  # what is imported once is not counted
    sys.setprofile(count)
    try:
        found = intake.submissions([tmp_path], NAMES)
    finally:
        sys.setprofile(None)
    assert steps < 5000 and "cannot be read" in found.warnings[0]


def test_what_ruby_writes_once_and_names_again_is_read(tmp_path: Path) -> None:
    listed = b"""
submission_1: {':submitters': &1 [&2 {':sid': ada}], ':created_at': &3 2026-02-02 10:00:00 Z}
submission_2: {':submitters': *1, ':created_at': *3, ':history': [*2, *2]}
"""
    put(
        tmp_path,
        {
            "submission_metadata.yml": listed,
            "submission_1/fgsm.ipynb": notebook("fgsm"),
            "submission_2/pca.ipynb": notebook("pca"),
        },
    )
    found, warnings = read(tmp_path)
    assert who(found) == [("ada", "fgsm"), ("ada", "pca")] and not warnings
    assert {one.timestamp for one in found} == {datetime(2026, 2, 2, 10, tzinfo=UTC)}


def test_a_class_zipped_in_a_folder_is_no_single_student(tmp_path: Path) -> None:
    names = ["top/ada.ipynb", "top/bob.ipynb"]
    path = pack(tmp_path / "a.zip", [(name, notebook("fgsm")) for name in names])
    assert who(read(path)[0]) == [("ada", "fgsm"), ("bob", "fgsm")]
    names = ["ada/fgsm/fgsm.ipynb", "ada/pca/pca.ipynb"]
    path = pack(tmp_path / "b.zip", [(name, b"{}") for name in names])
    assert who(read(path)[0]) == [("ada", "fgsm"), ("ada", "pca")]
    names = ["c/submitted/ada/fgsm/fgsm.ipynb", "c/submitted/bob/fgsm/fgsm.ipynb"]
    path = pack(tmp_path / "c.zip", [(name, b"{}") for name in names])
    assert who(read(path)[0]) == [("ada", "fgsm"), ("bob", "fgsm")]


def test_links_are_never_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.ipynb"
    secret.write_bytes(notebook("fgsm", "secret"))
    top = put(tmp_path / "submitted", {"ada/fgsm/fgsm.ipynb": notebook("fgsm", "secret")})
    (top / "bob" / "fgsm").mkdir(parents=True)
    (top / "bob" / "fgsm" / "fgsm.ipynb").symlink_to(secret)
    (top / "bob" / "fgsm" / "timestamp.txt").symlink_to(secret)
    (top / "cyd").mkdir()
    (top / "cyd" / "fgsm").symlink_to(top / "ada" / "fgsm")
    (top / "dan").symlink_to(top / "ada")
    (top / "eve.ipynb").symlink_to(secret)
    found, warnings = read(top)
    assert who(found) == [(name, "fgsm") for name in ("ada", "bob", "cyd")]
    assert all(b"secret" not in one.data for one in found[1:])
    assert all("link" in one.problem for one in found[1:])
    for name in ("dan", "eve.ipynb"):  # nothing says for which assignment they would be
        assert any(name in line and "link" in line for line in warnings)
    assert ("eve", "fgsm") in who(read(top, names=FGSM)[0])
    # The same where a shell's wildcard named them.
    (top / "loop").symlink_to(top / "loop")
    for name in (
        "bob/fgsm",
        "cyd/fgsm/fgsm.ipynb",
        "dan",
        "dan/fgsm/fgsm.ipynb",
        "eve.ipynb",
        "loop",
    ):
        assert all(b"secret" not in one.data for one in read(top / name)[0])


def test_a_file_that_becomes_a_link_after_it_was_found_is_not_read(tmp_path: Path) -> None:
    top = put(tmp_path / "s", {"ada/fgsm/fgsm.ipynb": b"{}", "bob/fgsm/fgsm.ipynb": b"{}"})
    found = intake.submissions([top], NAMES)
    (top / "ada" / "fgsm").rename(tmp_path / "moved")
    (top / "ada" / "fgsm").symlink_to(tmp_path / "moved")
    (top / "bob" / "fgsm" / "fgsm.ipynb").unlink()
    os.mkfifo(top / "bob" / "fgsm" / "fgsm.ipynb")
    assert all(one.problem and not one.data for one in found)


def test_only_regular_files_of_a_bearable_size_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "MAX_BYTES", 1000)
    top = put(tmp_path, {"big.ipynb": b"x" * 1001, "fits.ipynb": b"x" * 1000})
    os.mkfifo(top / "pipe.ipynb")
    (top / "folder.ipynb").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(top / "socket.ipynb"))
        found, _ = read(top, names=FGSM)
    problems = {one.student: one.problem for one in found}
    assert set(problems) == {"big", "fits", "pipe", "socket"}
    assert "larger" in problems["big"] and problems["fits"] == ""
    assert "not a regular file" in problems["pipe"] and "not a regular file" in problems["socket"]


def test_an_unreadable_file_or_folder_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = put(tmp_path, {"ada.ipynb": b"{}", "bob/x.ipynb": b"{}", "cyd.ipynb": b"{}"})
    opens = os.open

    def refuse(path: str, flags: int, **more: int) -> int:
        if path in ("ada.ipynb", "bob"):
            raise PermissionError(13, "Permission denied", path)
        return opens(path, flags, **more)

    monkeypatch.setattr(os, "open", refuse)
    found, warnings = read(top, names=FGSM)
    assert [(one.student, bool(one.problem)) for one in found] == [("ada", True), ("cyd", False)]
    assert len(warnings) == 1 and "bob" in warnings[0]


def member(name: str, **fields: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def test_what_a_zip_may_hold(tmp_path: Path) -> None:
    path = pack(
        tmp_path / "z.zip",
        [
            (member("ok.ipynb"), b"{}"),
            (member("link.ipynb", external_attr=(stat.S_IFLNK | 0o777) << 16), b"/etc/passwd"),
            (member("pipe.ipynb", external_attr=(stat.S_IFIFO | 0o777) << 16), b""),
            (member("odd.ipynb", compress_type=zipfile.ZIP_LZMA), b"{}"),
            (member("locked.ipynb"), b"{}"),
            (member("../../up.ipynb"), b"{}"),
            (member("/etc/root.ipynb"), b"{}"),
            (member("C:\\windows.ipynb"), b"{}"),
            (member("a//b.ipynb"), b"{}"),
            (member("__MACOSX/._ok.ipynb"), b"{}"),
            (member("win\\fgsm.ipynb"), b"{}"),
        ],
    )
    data = bytearray(path.read_bytes())
    at = data.rfind(b"locked.ipynb") - 46  # its entry in the table of contents
    assert data[at : at + 4] == b"PK\1\2"
    struct.pack_into("<H", data, at + 8, 1)  # the flag that says it is encrypted
    path.write_bytes(data)
    found, warnings = read(path, names=FGSM)
    problems = {one.student: one.problem for one in found}
    assert problems.pop("ok") == problems.pop("win") == ""
    assert set(problems) == {"link", "pipe", "odd", "locked"} and all(problems.values())
    assert "encrypted" in problems["locked"] and "link" in problems["link"]
    assert len(warnings) == 4 and all("leads out" in line for line in warnings)


def test_bombs_are_counted_while_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "MAX_BYTES", 50_000)
    monkeypatch.setattr(intake, "MAX_UNPACKED", 120_000)
    path = pack(tmp_path / "z.zip", [(f"s{i}.ipynb", b"\0" * 5_000_000) for i in range(5)])
    data = path.read_bytes()
    assert len(data) < 30_000
    # A header that lies about the size changes nothing.
    path.write_bytes(data.replace(struct.pack("<I", 5_000_000), struct.pack("<I", 10)))
    found, _ = read(path, names=FGSM)
    assert len(found) == 5 and all(one.problem and not one.data for one in found)
    path.write_bytes(data)
    found, _ = read(path, names=FGSM)
    assert ["larger than" in one.problem for one in found] == [True] * 3 + [False] * 2
    assert all("more than" in one.problem for one in found[3:])


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_MEMBERS", 10)
    path = pack(tmp_path / "z.zip", [(f"s{i}.ipynb", b"{}") for i in range(11)])
    with pytest.raises(ValueError, match="11 entries"):
        read(path)
    top = put(tmp_path / "c", {f"ada/{i}.ipynb": b"{}" for i in range(12)} | {"bob.ipynb": b"{}"})
    found, warnings = read(top, names=FGSM)
    assert who(found) == [("ada", "fgsm"), ("bob", "fgsm")]
    assert len(warnings) == 1 and "more than 10 files" in warnings[0]


@pytest.mark.parametrize("cut", [0, 10, 100, -1])
def test_a_damaged_zip_is_one_clear_error_or_a_problem(tmp_path: Path, cut: int) -> None:
    path = pack(tmp_path / "z.zip", [("ada.ipynb", notebook("fgsm"))])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"z\.zip"):
        read(path)


def test_a_damaged_member_is_its_owners_problem(tmp_path: Path) -> None:
    path = pack(tmp_path / "z.zip", [("ada.ipynb", os.urandom(500)), ("bob.ipynb", b"{}")])
    data = bytearray(path.read_bytes())
    data[100] ^= 0xFF
    path.write_bytes(data)
    found, _ = read(path, names=FGSM)
    assert [bool(one.problem) for one in found] == [True, False]


@pytest.mark.parametrize(
    "name",
    [
        "x" * 101,
        "ümlaut" * 18,
        "a\x1b[31mb",
        "a\u202eb",
        "a\nb",
        " ",
        "a\u2028b",
        b"\xff\xfe".decode(errors="surrogateescape"),
    ],
)
def test_names_that_are_no_ids_are_warned_of_in_plain_sight(tmp_path: Path, name: str) -> None:
    put(tmp_path, {f"{name}/fgsm.ipynb": notebook("fgsm"), "bob.ipynb": notebook("fgsm")})
    found, warnings = read(tmp_path)
    assert who(found) == [("bob", "fgsm")]
    assert len(warnings) == 1 and warnings[0].isprintable()


def test_two_spellings_of_a_name_are_not_merged(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    put(tmp_path, {f"{apart}.ipynb": notebook("fgsm"), f"{composed}.ipynb": notebook("fgsm", "c")})
    found, warnings = read(tmp_path)
    assert who(found) == [(composed, "fgsm")] and b'"c"' in found[0].data
    assert len(warnings) == 1 and "only in how it is written" in warnings[0]


def test_the_latest_counts_wherever_it_lies(tmp_path: Path) -> None:
    for part, time in (("old", b"2026-01-01 10:00:00 UTC"), ("new", b"2026-01-01 10:00:00 -0700")):
        files = {"fgsm.ipynb": notebook("fgsm", part), "timestamp.txt": time}
        put(tmp_path / part / "ada" / "fgsm", files)
    for order in (("old", "new"), ("new", "old"), ("new", "old", "new")):
        (found,), _ = read(*(tmp_path / part for part in order))
        assert b'"new"' in found.data and "old" in found.note


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-07-01 10:00:00 UTC", 10),
        ("2026-07-01T10:00:00Z", 10),
        ("2026-07-01 10:00:00+02:00", 8),
        ("2026-07-01 10:00:00.5 Europe/Berlin\n", 8),
        ("2026-07-01 10:00", 10),
        ("2026-07-01 10:00:00 ../../../etc/passwd", None),
        ("2026-07-01 10:00:00 Nowhere/Land", None),
        ("0001-01-01 00:00:00 +1400", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_time_stamps(tmp_path: Path, text: str, hour: int | None) -> None:
    put(tmp_path, {"ada/fgsm/fgsm.ipynb": b"{}", "ada/fgsm/timestamp.txt": text.encode()})
    (found,), warnings = read(tmp_path)
    assert (found.timestamp.hour if found.timestamp else None) == hour
    assert (len(warnings) == 1) == (hour is None)


OFFICIAL, OWN = b"2026-03-30 10:00:00 UTC", b"2026-01-01 10:00:00 UTC"
#: A time that a student has handed in: where it lies, where the notebook lies.
OWN_TIMES = {
    "in a folder below": ("fgsm/sub/timestamp.txt", "fgsm/sub/fgsm.ipynb"),
    "in other letters": ("fgsm/TimeStamp.TXT", "fgsm/fgsm.ipynb"),
    "further down": ("fgsm/fgsm/fgsm/timestamp.txt", "fgsm/fgsm/fgsm/fgsm.ipynb"),
}


@pytest.mark.parametrize(("own", "lies"), OWN_TIMES.values(), ids=OWN_TIMES)
def test_only_nbgrader_says_when(tmp_path: Path, own: str, lies: str) -> None:
    files = {"fgsm/timestamp.txt": OFFICIAL, own: OWN, lies: notebook("fgsm")}
    top = put(tmp_path / "submitted", {f"eve/{name}": data for name, data in files.items()})
    pack(tmp_path / "s.zip", [(f"submitted/eve/{name}", data) for name, data in files.items()])
    for where in (top, tmp_path / "s.zip"):
        (found,), warnings = read(where)
        assert found.student == "eve" and found.timestamp == datetime(2026, 3, 30, 10, tzinfo=UTC)
        assert len(warnings) == ("/" in lies.removeprefix("fgsm/"))


def test_a_plain_folder_says_no_time(tmp_path: Path) -> None:
    put(tmp_path, {"eve/fgsm.ipynb": notebook("fgsm"), "eve/timestamp.txt": OWN})
    (found,), warnings = read(tmp_path)
    assert found.timestamp is None
    assert len(warnings) == 1 and "timestamp.txt was left out" in warnings[0]


@pytest.mark.parametrize("name", ["missing", "fgsm.py", "nul\0"])
def test_a_path_that_is_none_of_these_is_named(tmp_path: Path, name: str) -> None:
    put(tmp_path, {"fgsm.py": b""})
    with pytest.raises(ValueError, match="no submissions in"):
        read(tmp_path / name)
    with pytest.raises(ValueError, match="names"):
        read(tmp_path, names={})


def test_bodies_are_read_one_at_a_time(tmp_path: Path) -> None:
    put(tmp_path, {f"s{i}/fgsm/fgsm.ipynb": b"{}" for i in range(3)})
    found = intake.submissions([tmp_path], NAMES)
    assert next(found).student == "s0"
    put(tmp_path, {"s2/fgsm/fgsm.ipynb": b"written after the first was read"})
    assert [one.data[:7] for one in found] == [b"{}", b"written"]


def test_finding_loads_nothing_heavy() -> None:
    code = "import sys; from course_lib.grading import intake; print({'torch', 'yaml'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
