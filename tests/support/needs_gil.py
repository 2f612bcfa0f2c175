"""An extension module that does not declare itself safe without the GIL: it turns the GIL on."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

_SOURCE = """
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "needs_gil", NULL, 0, NULL};
PyMODINIT_FUNC PyInit_needs_gil(void) { return PyModule_Create(&module); }
"""


def build(folder: Path) -> None:
    """Compiles `needs_gil` into the folder; skips the test where nothing compiles."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    source = folder / "needs_gil.c"
    source.write_text(_SOURCE)
    include = f"-I{sysconfig.get_path('include')}"
    built = folder / f"needs_gil{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run([compiler, "-shared", "-fPIC", include, source, "-o", built], check=True)
