from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tgrec.training import allocator, keep_freed_memory

# The growth in MiB over products of many shapes, in a process that has not multiplied before.
GROWTH = """
import runpy, sys, torch
torch.set_num_threads(1)
runpy.run_path(sys.argv[1])["keep_freed_memory"]()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
def product(rows):
    return torch.ones(rows, 64, dtype=torch.bfloat16) @ torch.ones(64, 64, dtype=torch.bfloat16)
product(1)
before = resident()
for rows in range(2, 600):
    product(rows)
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_products_of_many_shapes_leave_nothing_behind() -> None:
    file = allocator.__file__
    clean = {k: v for k, v in os.environ.items() if k not in allocator.PRODUCT_CACHES}
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, file], capture_output=True, text=True, env=clean, check=True
    )
    assert float(done.stdout) < 120  # 280 or more with either cache as it is


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = allocator.PRODUCT_CACHES
    monkeypatch.setenv(first, "7")
    monkeypatch.setenv(second, "7")
    monkeypatch.delenv(second)
    keep_freed_memory()
    assert os.environ[first] == "7"
    assert os.environ[second] == allocator.PRODUCT_CACHES[second]
