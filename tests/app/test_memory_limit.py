"""The memory that a server may use, read from the files of a machine or a container."""

from pathlib import Path

import pytest

from app.memory import memory_limit

MEMINFO = "MemTotal:        8000 kB\nMemFree:         1000 kB\n"
MACHINE = 8000 * 1024

FILES: dict[str, tuple[dict[str, str], int]] = {
    "no cgroup": ({}, MACHINE),
    "version 2, in a container": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "4096000\n"}, 4096000),
    "version 2, no limit": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, MACHINE),
    "version 2, a limit above": (
        {
            "proc/self/cgroup": "0::/user.slice/a.scope\n",
            "sys/fs/cgroup/user.slice/memory.max": "2000\n",
            "sys/fs/cgroup/user.slice/a.scope/memory.max": "3000\n",
        },
        2000,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "9:cpu,cpuacct:/x\n4:memory:/docker/1\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "5000\n",
        },
        5000,
    ),
    "version 1, no limit": (
        {
            "proc/self/cgroup": "4:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
        MACHINE,
    ),
    "a path outside": ({"proc/self/cgroup": "0::/../x\n", "sys/fs/memory.max": "7\n"}, MACHINE),
}


@pytest.mark.parametrize("name", FILES)
def test_limit_is_the_least_of_machine_and_cgroups(tmp_path, name):
    files, expected = FILES[name]
    for path, text in {"proc/meminfo": MEMINFO, **files}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert memory_limit(tmp_path) == expected


def test_machine_without_these_files_has_some_memory(tmp_path):
    assert memory_limit(tmp_path) >= 2**27
    assert memory_limit(Path("/")) >= 2**27
