#!/usr/bin/env python3
"""Takes the picture of the three lanes for README.md from the page itself, light and dark: python3 web/picture.py out/page.html"""
import pathlib, sys, time

root = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root / "tests"))
from browser import Browser

with Browser() as browser:
    for name, dark in ("light", False), ("dark", True):
        browser.open(pathlib.Path(sys.argv[1]).resolve().as_uri(), width=1240, height=900, dark=dark)
        for _ in range(600):
            if browser.run("document.querySelectorAll('#lanes svg').length > 0"):
                break
            time.sleep(0.1)
        time.sleep(1)
        box = browser.run("(() => { const r = document.getElementById('lanes').getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; })()")
        x, y, width, height = box
        browser.picture(str(root / "plots" / f"lanes_{name}.png"), clip={"x": x - 12, "y": y, "width": width + 24, "height": height + 8})
