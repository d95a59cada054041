"""Google's own compiler makes a message class of a schema."""

from __future__ import annotations

import importlib.util
import subprocess
import sys


def compiled(folder, name, message):
    """The class of `message` in `folder/name.proto`."""
    command = ["-m", "grpc_tools.protoc", f"-I{folder}", f"--python_out={folder}", f"{name}.proto"]
    subprocess.run([sys.executable, *command], check=True, timeout=300)
    path = folder / f"{name}_pb2.py"
    spec = importlib.util.spec_from_file_location(f"{name}_{folder.name}_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, message)
