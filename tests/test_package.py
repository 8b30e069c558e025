"""The package as a whole: what may import what, what an import costs, what a wheel holds."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import course_lib

PACKAGE = Path(course_lib.__file__).parent
ROOT = PACKAGE.parent

GROUND = {"device", "data", "metrics", "plots", "checkpoints", "classifiers"}
PARTS = {"pca", "autoencoders", "gans", "attacks", "detection"}
APART = {"figures", "grading"}  # know none of the five parts
ROOF = {
    "recipes",
    "experiments",
    "publish",
    "cli",
    "bootstrap",
    "forge",
    "report_card",
    "write_texts",
}


def imports_of(path: Path) -> set[str]:
    """The first names below course_lib that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrows"
            if node.module == "course_lib":
                found |= {alias.name for alias in node.names}
            elif node.module and node.module.startswith("course_lib."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.split(".")[1]
                for alias in node.names
                if alias.name.startswith("course_lib.")
            }
    return found - {"__version__"}


def files() -> list[tuple[str, Path]]:
    return sorted(
        (path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path)
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "__init__.py"
    )


def test_every_module_has_its_floor() -> None:
    assert {part for part, _ in files()} <= GROUND | PARTS | APART | ROOF


@pytest.mark.parametrize(("part", "path"), files(), ids=lambda value: str(value)[-40:])
def test_arrows(part: str, path: Path) -> None:
    allowed = {part}
    if part in GROUND:
        allowed |= GROUND
    elif part in PARTS or part in APART:
        allowed |= GROUND | {part}
    else:
        allowed |= GROUND | PARTS | APART | ROOF
    assert imports_of(path) <= allowed


def test_the_arrow_test_sees_a_wrong_arrow(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "def f():\n    from course_lib.gans import training\n    import course_lib.pca\n"
        "    from course_lib import attacks\n"
    )
    assert imports_of(wrong) == {"gans", "pca", "attacks"}


def test_modules_name_their_chapter() -> None:
    for part in sorted(GROUND | PARTS):
        path = PACKAGE / f"{part}.py"
        path = path if path.is_file() else PACKAGE / part / "__init__.py"
        if not path.is_file():
            continue
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        named = [
            line.split("Chapter:")[1].strip()
            for line in docstring.splitlines()
            if "Chapter:" in line
        ]
        assert named, f"{path} names no chapter"
        assert all((ROOT / chapter).is_file() for chapter in named), named


def test_import_pulls_in_nothing_heavy() -> None:
    code = "import sys, course_lib; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "matplotlib", "lightning_fabric"} & set(run.stdout.split())


def test_submodules_load_when_asked_for() -> None:
    assert course_lib.metrics.__name__ == "course_lib.metrics"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = course_lib.nonsense


def test_wheel_works_outside_the_repository(tmp_path: Path) -> None:
    """The wheel, unpacked elsewhere, loads its data and its checkpoints."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 40e6
    target = tmp_path / "environment"
    venv.create(target, system_site_packages=False, with_pip=False)
    site = next(target.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(site)
    assert not [
        name for name in names if name.split("/")[0] in ("solutions", "assignments", "tests")
    ]
    # The dependencies come from the environment that runs the tests; course_lib must not.
    here = next(path for path in map(Path, sys.path) if (path / "torch").is_dir())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = (
        "import sys; sys.path.append(sys.argv[1]);"
        "import course_lib; assert 'environment' in course_lib.__file__, course_lib.__file__;"
        "from course_lib import data, checkpoints, classifiers, publish;"
        "assert len(data.mnist('test')) == 2000;"
        "checkpoints.load('digit-net', classifiers.DigitNet());"
        "print(len(data.cards()), *checkpoints.names())"
    )
    run = subprocess.run(
        [str(target / "bin" / "python"), "-c", code, str(here)],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    assert run.returncode == 0, run.stderr
    assert "digit-net" in run.stdout
