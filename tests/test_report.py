#!/usr/bin/env python3
"""The page that `make report` writes, in a real browser: python3 tests/test_report.py [PAGE [METRICS]]. Needs Chromium alone.

It loads without a console message or a request, fits phone and desk in both colour schemes, computes what predict.c computes,
shows the numbers of metrics.json, and every control does something, has a name, and can be used by keyboard.
"""
import json, pathlib, sys
from browser import Browser, Missing

page = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "out/report.html").resolve()
metrics = json.load(open(sys.argv[2] if len(sys.argv) > 2 else "out/demo/metrics.json"))
passed = failed = 0


def expect(good, what):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print("FAIL", what)


# Text whose contrast with what is behind it is below WCAG's AA: 4.5, or 3 for large text. SVG text counts with its fill.
CONTRAST = """(() => {
    const rgb = c => (c.match(/[\\d.]+/g) || []).map((v, i) => c.startsWith("color(") && i < 3 ? 255 * v : Number(v));
    const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
    const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length && (c.length < 4 || c[3] === 1)) return c.slice(0, 3); } return [255, 255, 255]; };
    const bad = [];
    for (const e of document.querySelectorAll("body *")) {
        if (e.closest("svg") || e.tagName === "SCRIPT" || e.disabled || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.getClientRects().length) continue;
        const s = getComputedStyle(e), a = light(rgb(s.color).slice(0, 3)), b = light(behind(e)), ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
        const size = parseFloat(s.fontSize), large = size >= 24 || size >= 18.66 && s.fontWeight >= 700;
        if (ratio < (large ? 3 : 4.5)) bad.push(ratio.toFixed(2) + " " + e.textContent.trim().slice(0, 40));
    }
    return bad;
})()"""
NAMELESS = """[...document.querySelectorAll("button, input, select, [tabindex], svg[role=img]")].filter(e =>
    !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.labels && e.labels.length || e.textContent.trim())).map(e => e.outerHTML.slice(0, 100))"""
AGREES = """data.checks.filter(c => { const p = predict_step(c.config, c.lora, c.B, c.T, c.recompute, c.threads, c.real_bytes);
    return p.peak !== c.peak || String(p.at_peak) !== String(c.at_peak) || String(p.own_peak) !== String(c.own_peak); }).length"""


def text(browser, name):
    return browser.run(f"document.getElementById('{name}').textContent")


def changes(browser, action, *watched):
    before = [browser.run(f"document.getElementById('{name}').innerHTML") for name in watched]
    browser.run(action) if isinstance(action, str) else action()
    return before != [browser.run(f"document.getElementById('{name}').innerHTML") for name in watched]


def slide(name, value):
    return f"(e => {{ e.value = {value}; e.dispatchEvent(new Event('input', {{ bubbles: true }})); }})({name})"


def check(browser):
    for width, height in ((1280, 900), (390, 844)):
        for dark in (False, True):
            browser.open(page.as_uri(), width, height, dark)
            where = f"{width} wide, {'dark' if dark else 'light'}"
            expect(browser.run("document.documentElement.scrollWidth <= innerWidth"), f"{where}: wider than the screen")
            bad = browser.run(CONTRAST)
            expect(not bad, f"{where}: too little contrast: {bad[:4]}")
            expect(not browser.complaints, f"{where}: {browser.complaints[:3]}")
    nameless = browser.run(NAMELESS)
    expect(not nameless, f"controls without a name: {nameless[:3]}")

    browser.open(page.as_uri())
    expect(browser.run("data.checks.length") >= 100 and browser.run(AGREES) == 0, "predict.c and its translation differ")
    expect(browser.run("data.metrics") == metrics, "the page's metrics are not those of metrics.json")
    for run in ("full", "c_attn", "all"):
        for kind, count in metrics[run]["peak_bytes"].items(): # the system's figure is not on the page
            expect(kind == "resident" or f"{count:,}" in text(browser, "measured"), f"{run}: the table lacks {kind}, {count:,}")
    expect(browser.run("document.querySelectorAll('#claim-list > li').length") == 10, "not ten claims")

    expect(changes(browser, "document.getElementById('next').click()", "what", "graph"), "Next does nothing")
    browser.run("document.getElementById('graph').focus()")
    expect(changes(browser, lambda: browser.key("ArrowRight"), "what", "graph"), "the arrow key does nothing")
    expect(changes(browser, lambda: browser.key("ArrowLeft"), "what", "graph"), "the arrow key back does nothing")
    for button in ("turn", "back", "last", "first"):
        expect(changes(browser, f"document.getElementById('{button}').click()", "what", "graph"), f"{button} does nothing")
    expect(changes(browser, slide("document.getElementById('step')", 9), "what"), "the step's slider does nothing")
    expect(changes(browser, "document.getElementById('numbers').click()", "matrices"), "no numbers are shown")
    for group, watched in (("net", "graph"), ("mode", "mode-note"), ("presets", "bars")):
        count = browser.run(f"document.querySelectorAll('#{group} button, #{group} input').length")
        expect(count >= 2, f"{group}: {count} choices")
        for i in reversed(range(count)): # the first or second is chosen at the start
            expect(changes(browser, f"document.querySelectorAll('#{group} button, #{group} input')[{i}].click()", watched), f"{group}: choice {i} does nothing")
    for i in reversed(range(browser.run("document.querySelectorAll('#controls input').length"))): # the only target cannot go
        control = f"document.querySelectorAll('#controls input')[{i}]"
        kind, highest = browser.run(f"[{control}.type, {control}.max]")
        expect(changes(browser, f"{control}.click()" if kind == "checkbox" else slide(control, highest), "bars"), f"control {i} does nothing")
    for i in range(3):
        slider = f"document.querySelectorAll('#timelines input')[{i}]"
        expect(changes(browser, slide(slider, 3), "timelines"), f"timeline {i}: its slider does nothing")
    expect(changes(browser, slide("document.getElementById('sample')", 0), "samples"), "the samples' slider does nothing")
    expect(not browser.complaints, f"using it: {browser.complaints[:3]}")


try:
    with Browser() as browser:
        check(browser)
except Missing as why:
    print(f"skipped: {why}")
    sys.exit(0)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0 or passed == 0)
