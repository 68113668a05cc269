#!/usr/bin/env python3
"""Builds the engine with one fault at a time, and demands that the test named for it notices.

    python3 tests/mutants.py [--tenth [K]] [--list] [NAME...]

The faults are in tests/mutants/*.txt, one paragraph each:

    and_for_or                                                  its name
    Real bug 1: a result requires grad only if all inputs do.   what is wrong, in words
    file: autograd.c
    in: static Tensor *record_into                              optional: only from the line that begins so to the next } at a line's start
    test: test_engine gradients_pass_through_frozen_weights     program and test; in front of them: float, the build; plain, kernels.c for fast/
                                                                (in double); else double
    - requires_grad |= n.in[i]->requires_grad;                  what is replaced: it must be there exactly once
    + requires_grad &= n.in[i]->requires_grad;                  by this; several pairs may follow each other

For each mutant one file is rebuilt and the named test run, first without the fault, where it must pass. What it says is shown. A mutant that
is not noticed by its own test fails the run, even if other tests notice it (which is told): its test must be named or written. So does one
that does not build, and, whichever are chosen, each that does not apply because the code has moved. --tenth takes one mutant in ten, the K-th tenth of 0 to 9; without K the
commit says which, the next commit takes the next tenth, and the first line tells K. Ends with `N passed, N failed`. Needs nothing but
Python's standard library.
"""
import concurrent.futures
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys

root = pathlib.Path(__file__).resolve().parent.parent
work = root / "build/mutants"
SECONDS = 300  # a mutant may loop for ever


def read_mutants():
    mutants = []
    for path in sorted((root / "tests/mutants").glob("*.txt")):
        for number, paragraph in enumerate(re.split(r"\n\s*\n", path.read_text().strip())):
            lines = [line for line in paragraph.splitlines() if not line.startswith("#")]
            if not lines:
                continue
            m = {"name": lines[0], "what": "", "in": "", "hunks": []}
            for line in lines[1:]:
                key, _, value = line.partition(": ")
                if line.startswith("- "):
                    if not m["hunks"] or m["hunks"][-1][1]:
                        m["hunks"].append(([], []))
                    m["hunks"][-1][0].append(line[2:])
                elif (line.startswith("+ ") or line == "+") and m["hunks"]:
                    m["hunks"][-1][1].append(line[2:])
                elif key in ("file", "in", "test"):
                    m[key] = value
                else:
                    m["what"] = (m["what"] + " " + line).strip()
            words = m.get("test", "").split()
            m["real"] = words.pop(0) if words[:1] in (["float"], ["double"], ["plain"]) else "double"
            if len(words) != 2 or "file" not in m or not m["hunks"] or not m["hunks"][-1][1] or " " in m["name"]:
                sys.exit(f"{path}: paragraph {number + 1}, {m['name']}: name, text, file:, test: PROGRAM TEST, - and + lines are needed")
            m["program"], m["expected"] = words
            mutants.append(m)
    names = [m["name"] for m in mutants]
    if len(set(names)) != len(names):
        sys.exit("two mutants have the same name: " + ", ".join(sorted({n for n in names if names.count(n) > 1})))
    return mutants


def mutated(m, text):
    """The text with the fault, or what stands in the way."""
    for before, after in m["hunks"]:
        before, after = "\n".join(before), "\n".join(after)
        begin, end = 0, len(text)
        if m["in"]:
            if text.count("\n" + m["in"]) != 1:
                return None, f"\"{m['in']}\" begins {text.count(chr(10) + m['in'])} lines of {m['file']}, not one"
            begin = text.index("\n" + m["in"])
            end = text.index("\n}", begin)
        count = text[begin:end].count(before)
        if count != 1:
            return None, f"\"{before}\" is in {m['in'] or m['file']} {count} times, not once"
        text = text[:begin] + text[begin:end].replace(before, after) + text[end:]
    return text, None


def build(tree, real, targets):
    kind = ["REAL=double", "PLAIN=1"] if real == "plain" else [f"REAL={real}"]
    result = subprocess.run(["make", "-s", *kind, f"BUILD=build/{real}", *[f"build/{real}/{t}" for t in targets]], cwd=tree, capture_output=True, text=True)
    return None if result.returncode == 0 else next((line for line in result.stderr.splitlines() if "error" in line), result.stderr[-300:])


def run(tree, real, program, test):
    """(passed, what the test said)"""
    environment = {**os.environ, "TEST": test} if test else dict(os.environ)
    environment.pop("MAKEFLAGS", None)
    try:
        result = subprocess.run([f"build/{real}/{program}"], cwd=tree, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return False, [f"FAIL {test or program}: not at its end after {SECONDS} s"]
    lines = (result.stdout + result.stderr).splitlines()
    ran = any(re.match(rf"(ok  |FAIL) {test or '.*'}\b", line) for line in lines)
    return result.returncode == 0 and ran, lines


def tenth_of_commit():
    """(which tenth this commit takes, why): by its number in the history, or by its hash where the history is cut off."""
    def git(*words):
        return subprocess.run(["git", "-C", root, *words], capture_output=True, text=True).stdout.strip()
    if git("rev-parse", "--is-shallow-repository") == "false":
        count = int(git("rev-list", "--count", "HEAD"))
        return count % 10, f"commit number {count}"
    commit = git("rev-parse", "HEAD")
    return int(commit or "0", 16) % 10, f"commit {commit[:12]}" if commit else "no commit"


def all_tests():
    return sorted(p.stem for p in (root / "tests").glob("test_*.c"))


def try_mutant(m, tree):
    """(good, lines to print)"""
    path = tree / m["file"]
    original = path.read_text()
    times = path.stat()
    text, _ = mutated(m, original)
    shutil.rmtree(tree / "build", ignore_errors=True)
    shutil.copytree(work / "base/build" / m["real"], tree / "build" / m["real"], copy_function=shutil.copy2)
    try:
        path.write_text(text)
        problem = build(tree, m["real"], [m["program"]])
        if problem:
            return False, [f"FAIL {m['name']}: does not build: {problem}"]
        passed, lines = run(tree, m["real"], m["program"], m["expected"])
        if not passed:
            verdict = next((line for line in lines if re.match(rf"FAIL {m['expected']}\b", line)), None)
            if verdict is None:
                return False, [f"FAIL {m['name']}: {m['program']} ended before {m['expected']}: {lines[-1] if lines else ''}"]
            said = [line.strip() for line in lines if line.startswith("     ")][1:2] or [line for line in lines if re.match(r"[\w/]+\.c:\d+: ", line)][:1]
            return True, [f"ok   {m['name']}: {m['program']} {m['expected']} noticed: {verdict.partition(': ')[2]}", *[f"         {line[:160]}" for line in said]]
        others = []
        build(tree, m["real"], all_tests())
        for program in filter(lambda name: (tree / "build" / m["real"] / name).exists(), all_tests()):
            good, lines = run(tree, m["real"], program, None)
            if not good:
                others += [f"{program} {name}" for name in re.findall(r"^FAIL (\w+)", "\n".join(lines), re.M)] or [program]
        return False, [f"FAIL {m['name']}: {m['program']} {m['expected']} did not notice; " + (f"noticed by {', '.join(others[:6])}" if others else "NO TEST DID")]
    finally:
        path.write_text(original)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def main():
    arguments = sys.argv[1:]
    mutants = read_mutants()
    passed = failed = 0
    for m in mutants[:]:
        path = root / m["file"]
        problem = mutated(m, path.read_text())[1] if path.exists() else f"there is no {m['file']}"
        if problem:
            print(f"FAIL {m['name']}: does not apply: {problem}")
            mutants.remove(m)
            failed += 1
    if "--list" in arguments:
        for m in mutants:
            print(f"{m['file']:18} {m['name']:36} {m['program']} {m['expected']}")
        sys.exit(failed > 0)
    if arguments[:1] == ["--tenth"]:
        if len(arguments) > 2 or not re.fullmatch("[0-9]?", "".join(arguments[1:])):
            sys.exit("--tenth takes one number from 0 to 9, or none")
        k, why = (int(arguments[1]), "as asked") if arguments[1:] else tenth_of_commit()
        print(f"tenth {k} of the mutants ({why}): again with --tenth {k}", flush=True)
        mutants = mutants[k::10]
    elif arguments:
        unknown = set(arguments) - {m["name"] for m in mutants}
        if unknown:
            sys.exit(f"no such mutant: {', '.join(sorted(unknown))}")
        mutants = [m for m in mutants if m["name"] in arguments]

    # the code without faults, built once for each type, and a copy of its sources for each worker
    shutil.rmtree(work, ignore_errors=True)
    workers = os.cpu_count() or 1
    trees = queue.Queue()
    for name in ["base", *[str(i) for i in range(workers)]]:
        tree = work / name
        tree.mkdir(parents=True)
        for pattern in ("Makefile", "*.[ch]", "*/*.[ch]"):
            for path in root.glob(pattern):
                target = tree / path.relative_to(root)
                target.parent.mkdir(exist_ok=True)
                shutil.copy2(path, target)
        if name != "base":
            trees.put(tree)
    for real in sorted({m["real"] for m in mutants}):
        programs = sorted({m["program"] for m in mutants if m["real"] == real})
        problem = build(work / "base", real, programs)
        if problem:
            sys.exit(f"{real}: the code without faults does not build: {problem}")
        for program, test in sorted({(m["program"], m["expected"]) for m in mutants if m["real"] == real}):
            good, lines = run(work / "base", real, program, test)
            if not good:
                failed += 1
                print(f"FAIL without a fault, {real} {program} {test} fails or does not exist: {lines[-1] if lines else ''}", flush=True)

    def job(m):
        tree = trees.get()
        try:
            return try_mutant(m, tree)
        finally:
            trees.put(tree)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for good, lines in pool.map(job, mutants):
            passed, failed = passed + good, failed + (not good)
            print("\n".join(lines), flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)


main()
