#!/usr/bin/env python3
"""Grades a whole class: python3 assignments/grade_all.py SUBMISSIONS OUT   (`make grade-all DIR=SUBMISSIONS` runs it)

SUBMISSIONS is a directory or a .zip: Gradescope's export (folders submission_N and submission_metadata.yml), Canvas's (files
name_id_id_file), or a folder, a .zip or a tree for each student. Links are not followed. In OUT go

    grades.csv          a row for each student: points in all, and for each task
    NAME.txt NAME.json  a sheet for each, and Gradescope's form of it
    similar.csv         pairs of students, those most alike first

SECRET (environment) and the name make a student's seed; BUG, TASK and JOBS as for `make grade`. Only this needs python3.

How alike two students are: their functions become tokens, with names and constants taken out; what the stubs gave, and what more than
half of a larger class has, is taken away; of the runs of five tokens that are left in the shorter one, so many are in the other, too.
A high share is a reason to read the two, and no proof of anything.
"""
import csv, json, os, re, shutil, subprocess, sys, tempfile, zipfile
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

RUN, FEWEST = 5, 25  # tokens in a run; a function with fewer tokens looks like everybody's
KEYWORDS = set("auto break case char const continue default do double else enum extern float for goto if inline int long register restrict return "
               "short signed sizeof static struct switch typedef union unsigned void volatile while".split())
CANVAS = re.compile(r"^([^_]+)_(?:LATE_)?(\d+)_(\d+)_(.+)$")


def regular(path):
    return path.is_file() and not path.is_symlink()


def open_zip(path, to):
    """Its regular files, by their own names below `to`; at most 200 MB."""
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if not m.is_dir() and (m.external_attr >> 28) in (0, 8)]
        if sum(m.file_size for m in members) > 200_000_000:
            raise zipfile.BadZipFile("holds more than 200 MB")
        for m in members:
            archive.extract(m, to)


def names_of_gradescope(top):
    """folder -> student, from submission_metadata.yml"""
    names, folder = {}, None
    metadata = top / "submission_metadata.yml"
    if regular(metadata):
        for line in metadata.read_text(errors="replace").splitlines():
            if re.match(r"^\S+:\s*$", line):
                folder = line.strip().rstrip(":")
            found = re.match(r"^[\s-]*:(email|name):\s*(.+?)\s*$", line)
            if found and folder and (found[1] == "email" or folder not in names):
                names[folder] = found[2].strip("'\"")
    return names


def submissions(top, scratch):
    """(name, path) of each"""
    entries = [e for e in sorted(top.iterdir()) if not e.name.startswith((".", "__MACOSX")) and not e.is_symlink()]
    folders = [e for e in entries if e.is_dir()]
    if len(entries) == 1 and folders:
        return submissions(folders[0], scratch)
    names, found, canvas = names_of_gradescope(top), [], {}
    for e in entries:
        match = CANVAS.match(e.name)
        if e.is_dir():
            found.append((names.get(e.name, e.name), e))
        elif regular(e) and match:
            canvas.setdefault(f"{match[1]}_{match[2]}", []).append((match[4], e))
        elif regular(e) and e.suffix == ".zip":
            found.append((e.stem, e))
    for name, files in canvas.items():
        folder = scratch / name
        folder.mkdir()
        for original, e in files:
            shutil.copy(e, folder / re.sub(r"-\d+(\.\w+)$", r"\1", original))  # a file that was handed in again has -1 at its end
        found.append((name, folder))
    return found


def grade(name, path, out, regions):
    sheet = re.sub(r"[^A-Za-z0-9.@_-]", "_", name)
    environment = dict(os.environ, STUDENT=str(path), NAME=name, SEED="", JSON=str(out / f"{sheet}.json"), REGIONS=str(regions / sheet))
    with open(out / f"{sheet}.txt", "w") as text:
        subprocess.run(["sh", "assignments/grade.sh"], env=environment, stdout=text, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        result = json.loads((out / f"{sheet}.json").read_text())
    except (OSError, ValueError):
        result = {"score": 0, "tests": []}
    return name, sheet, result


def tokens(text):
    text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.S)
    for t in re.findall(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|[A-Za-z_]\w*|\.?\d[\w.]*|[-+*/%&|^=<>!]=|\+\+|--|->|&&|\|\||<<|>>|\S', text):
        yield t if t in KEYWORDS or not (t[0].isalnum() or t[0] in "_.\"'") or t == "." else "name" if t[0].isalpha() or t[0] == "_" else "constant"


def runs(text):
    all_tokens = list(tokens(text))
    return {tuple(all_tokens[i:i + RUN]) for i in range(len(all_tokens) - RUN + 1)} if len(all_tokens) >= FEWEST else set()


def similar(students, regions):
    """(share, a, b, runs compared, tasks most alike), most alike first"""
    by_task = {}
    for name, sheet, _ in students:
        for file in sorted((regions / sheet).glob("*.c")):
            stub = Path("assignments/stubs") / file.name
            given = list(tokens(stub.read_text())) if stub.exists() else []
            given = {tuple(given[i:i + RUN]) for i in range(len(given) - RUN + 1)}
            own = runs(file.read_text(errors="replace")) - given
            if own:
                by_task.setdefault(file.stem, {})[name] = own
    pairs = {}
    for task, of in by_task.items():
        if len(of) >= 8:
            count = {}
            for own in of.values():
                for run in own:
                    count[run] = count.get(run, 0) + 1
            of = {name: {run for run in own if count[run] <= len(of) / 2} for name, own in of.items()}
        for a, b in combinations(sorted(of), 2):
            size = min(len(of[a]), len(of[b]))
            if size:
                both = len(of[a] & of[b])
                entry = pairs.setdefault((a, b), [0, 0, []])
                entry[0] += both
                entry[1] += size
                entry[2].append((both / size, task))
    rows = [(e[0] / e[1], a, b, e[1], " ".join(t for s, t in sorted(e[2], reverse=True) if s >= 0.5)) for (a, b), e in pairs.items()]
    return sorted(rows, key=lambda r: (-r[0], -r[3], r[1], r[2]))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.split("\n")[0])
    top, out = Path(sys.argv[1]), Path(sys.argv[2])
    if not top.exists():
        sys.exit(f"grade-all: DIR={top} is not there")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        regions = scratch / "regions"
        regions.mkdir()
        (scratch / "canvas").mkdir()
        if regular(top) and top.suffix == ".zip":
            open_zip(top, scratch / "class")
            top = scratch / "class"
        found = submissions(top, scratch / "canvas")
        if not found:
            sys.exit(f"grade-all: {top} holds no submission: a folder, a .zip or Canvas's files for each student")
        with ThreadPoolExecutor(int(os.environ.get("JOBS") or os.cpu_count() or 1)) as pool:
            first = [grade(*found[0], out, regions)]  # the reference is compiled here, once
            students = first + list(pool.map(lambda s: grade(*s, out, regions), found[1:]))
        tasks = [t["number"] for t in max((s[2].get("tests", []) for s in students), key=len)]
        with open(out / "grades.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["student", "labs", "extra"] + tasks)
            for name, _, result in students:
                points = {t["number"]: t["score"] for t in result.get("tests", [])}
                rows.writerow([name, sum(p for t, p in points.items() if t[0] == "L"), sum(p for t, p in points.items() if t[0] == "H")] +
                              [points.get(t, 0) for t in tasks])
        with open(out / "similar.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["share", "student", "and", "runs compared", "tasks at least half alike"])
            for share, *rest in similar(students, regions):
                rows.writerow([f"{share:.2f}"] + rest)
    print(f"{out}/grades.csv: {len(students)} students; their sheets are beside it, and similar.csv has pairs of them")


main()
