#!/usr/bin/env python3
"""Checks every import of our targets against what Package.swift declares for them, and the direction of the rooms.

The compiler lets a target import what only a sibling depends on; the next change of that sibling would break it.
"""
import json
import pathlib
import re
import subprocess
import sys

# Part of the toolchain, not of the package graph.
SYSTEM = {"Foundation", "FoundationEssentials", "FoundationNetworking", "Dispatch", "Glibc", "Synchronization", "Musl", "Testing", "Swift"}
# Rooms in which Foundation is not welcome: they are pure or hot.
WITHOUT_FOUNDATION = {"ProgressCore", "RedisLink", "WebSocketWire", "Telemetry", "JobStore"}
IMPORT = re.compile(
    r"^\s*(?:@\w+(?:\([^)]*\))?\s+)*(?:public |internal |package |private |fileprivate )?import "
    r"(?:struct |class |enum |protocol |func |var |let |typealias )?([A-Za-z_]\w*)",
    re.M,
)
# What a test writes for a generator of its own is not our import.
MULTILINE_STRING = re.compile(r'"""\n.*?"""', re.S)

root = pathlib.Path(__file__).resolve().parent.parent
package = json.loads(subprocess.check_output(["swift", "package", "dump-package"], cwd=root))
problems = []
executables = {target["name"] for target in package["targets"] if target["type"] == "executable"}
for target in package["targets"]:
    name = target["name"]
    declared = {name}
    for dependency in target["dependencies"]:
        kind, value = next(iter(dependency.items()))
        declared.add(value[0])
    folder = root / (target.get("path") or ("Tests" if target["type"] == "test" else "Sources") + "/" + name)
    used = set()
    for file in sorted(folder.rglob("*.swift")):
        for module in IMPORT.findall(MULTILINE_STRING.sub("", file.read_text())):
            used.add(module)
            if module not in declared and module not in SYSTEM:
                problems.append(f"{file.relative_to(root)}: imports {module}, which Package.swift does not declare for {name}")
            if name in WITHOUT_FOUNDATION and module.startswith("Foundation"):
                problems.append(f"{file.relative_to(root)}: {name} does without Foundation")
    # Tests that start an executable depend on it to have it built, and never import it.
    for module in sorted(declared - used - {name} - executables):
        if target["type"] not in ("system-target",) and list(folder.rglob("*.swift")):
            problems.append(f"Package.swift: {name} declares {module} and never imports it")
print("\n".join(problems) if problems else "imports match Package.swift")
sys.exit(1 if problems else 0)
