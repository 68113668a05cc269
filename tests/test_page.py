#!/usr/bin/env python3
"""The page that `make page` writes, in a real browser: python3 tests/test_page.py [PAGE [PAGE_HASH]]. Needs Chromium alone.

The engine in it trains to the bits of this machine's own build (PAGE_HASH, the program tests/page_hash.c); what it predicts it
measures; the lanes show what the engine did; and the page can be used by mouse and keyboard, at a desk and on a phone, in light
and dark, without a console line or a request.
"""
import pathlib, subprocess, sys, time
from browser import Browser, Missing

page = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "out/page.html").resolve()
native = sys.argv[2] if len(sys.argv) > 2 else None
passed = failed = 0


def expect(good, what):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print("FAIL", what)


# Text whose contrast with what is behind it is below WCAG's AA: 4.5, or 3 for large text; and text of less than 11 pixels.
CONTRAST = """(() => {
    const rgb = c => (c.match(/[\\d.]+/g) || []).map(Number);
    const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
    const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length && (c.length < 4 || c[3] === 1)) return c.slice(0, 3); } return [255, 255, 255]; };
    const box = e => { const r = e.tagName === "text" && [...e.parentElement.querySelectorAll("rect")].filter(r => { const a = r.getBoundingClientRect(), b = e.getBoundingClientRect(); return a.left <= b.left && a.right >= b.right && a.top <= b.top + 3 && getComputedStyle(r).fill.startsWith("rgb"); }).pop();
        return r ? rgb(getComputedStyle(r).fill).slice(0, 3) : behind(e.closest("svg") || e); };
    const bad = [];
    for (const e of document.querySelectorAll("body *")) {
        if (e.tagName === "SCRIPT" || e.disabled || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.getClientRects().length) continue;
        const s = getComputedStyle(e), svg = e.closest("svg"), zoom = svg && svg.viewBox.baseVal ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
        const a = light(rgb(svg ? s.fill : s.color).slice(0, 3)), b = light(svg ? box(e) : behind(e)), ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
        const size = parseFloat(s.fontSize) * zoom, large = size >= 24 || size >= 18.66 && s.fontWeight >= 700;
        if (ratio < (large ? 3 : 4.5)) bad.push("contrast " + ratio.toFixed(2) + ": " + e.textContent.trim().slice(0, 40));
        if (size < 10.99) bad.push(size.toFixed(1) + " px: " + e.textContent.trim().slice(0, 40));
    }
    return bad;
})()"""
NAMELESS = """[...document.querySelectorAll("button, input, textarea, select, [tabindex], svg[role=img], [role=region]")].filter(e =>
    !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.labels && e.labels.length && e.labels[0].textContent.trim() || e.textContent.trim())).map(e => e.outerHTML.slice(0, 100))"""
# The same training as tests/page_hash.c, through the page's own engine.
HASHES = """(async () => {
    const e = engine("bits"), out = [];
    for (const [L, H, C, T, B, n] of [[2, 2, 64, 32, 8, 30], [4, 4, 128, 64, 12, 3]]) {
        await e.call("text_choose", [0, T], "builtin:tales");
        await e.call("model_make", [L, H, C, T]);
        for (const [targets, rate, text] of [[0, 3e-3, "tales"], [15, 1e-2, "pirate"]]) {
            await e.call("text_choose", [0, T], "builtin:" + text);
            await e.call("train_begin", [8, targets, n, rate, B], text);
            await e.train(n, () => 0);
            out.push((await e.call("state")).all);
        }
    }
    return out;
})()"""


def until(browser, condition, what, seconds=180):
    deadline = time.time() + seconds
    while not browser.run(f"Boolean({condition})"):
        if time.time() > deadline:
            expect(False, f"{what}: nothing after {seconds} s")
            return
        time.sleep(0.1)


def load(browser, width=1280, height=800, **more):
    browser.open(page.as_uri(), width, height, **more)
    until(browser, "document.documentElement.dataset.ready || !document.getElementById('trouble').hidden", "the page is ready")


def html(browser, name):
    return browser.run(f"document.getElementById('{name}').innerHTML")


# Does it, waits for the engine, and says whether what is watched has changed.
def changes(browser, action, watched):
    before = html(browser, watched)
    browser.run(action) if isinstance(action, str) else action()
    deadline = time.time() + 20
    while html(browser, watched) == before and time.time() < deadline:
        time.sleep(0.05)
    return html(browser, watched) != before


def slide(name, value):
    return f"(e => {{ e.value = {value}; e.dispatchEvent(new Event('input', {{ bubbles: true }})); }})(document.getElementById('{name}'))"


def click(selector):
    return f"document.querySelector({selector!r}).dispatchEvent(new MouseEvent('click', {{ bubbles: true }}))"


def choose(group, value):
    return f"document.querySelector('#{group} input[value=\"{value}\"]').click()"


def looks(browser):
    for width, height in ((1280, 800), (390, 844)):
        for dark in (False, True):
            load(browser, width, height, dark=dark)
            where = f"{width} wide, {'dark' if dark else 'light'}"
            expect(browser.run("document.documentElement.scrollWidth <= innerWidth"), f"{where}: wider than the screen")
            expect(browser.run("document.getElementById('lanes').getBoundingClientRect().bottom <= innerHeight"), f"{where}: the picture is not whole above the fold")
            expect(browser.run("V.p === 2 * V.data[0].stations.length"), f"{where}: it does not open at the end of backward")
            for net in (1, 0):
                expect(changes(browser, choose("net", net), "lanes"), f"{where}: net {net} does nothing")
                bad = browser.run(CONTRAST)
                expect(not bad, f"{where}: hard to read: {bad[:4]}")
            expect(not browser.complaints, f"{where}: {browser.complaints[:3]}")
    for width in (600, 820, 1024, 1700):
        load(browser, width)
        expect(browser.run("document.documentElement.scrollWidth <= innerWidth"), f"{width} wide: wider than the screen")
        expect(not browser.complaints, f"{width} wide: {browser.complaints[:3]}")
    expect(not browser.run(NAMELESS), f"controls without a name: {browser.run(NAMELESS)[:3]}")


def lanes(browser):
    load(browser)
    for net in (0, 1):
        if net:
            changes(browser, choose("net", 1), "lanes")
        full, lora, cut = browser.run("V.data.map(m => m.counts)")
        matrices = browser.run("V.data[1].stations.filter(s => s.matrix).length")
        adapters = browser.run("V.data[1].tensors.filter(t => t.leaf === 'adapters').length")
        expect(full["wgrad"] == matrices and lora["wgrad"] == 0 and lora["dgrad"] == matrices - 1, f"net {net}: matrices with a gradient: {full}, {lora}")
        expect(lora["adapter_gradients"] == adapters and cut["adapter_gradients"] == (0 if net else 2), f"net {net}: adapters with a gradient: {lora}, {cut}")
        filled = browser.run("[0, 1, 2].map(l => document.querySelectorAll(`[data-lane='${l}'][data-role=W] .socket.flow`).length)")
        expect(filled == [matrices, 0, 0], f"net {net}: filled sockets {filled}")
        said = browser.run("[...document.querySelectorAll('.now')].map(n => n.textContent.replace(/.*computed: /, ''))")
        expect(said == [f"{m['wgrad']} dW, {m['adapter_gradients']} dA and dB" for m in (full, lora, cut)], f"net {net}: it says {said}")
        crossings = browser.run("[0, 1, 2].map(l => document.querySelectorAll(`[data-lane='${l}'] .crossing`).length)")
        expect(crossings == [full["dgrad"], lora["dgrad"], 0], f"net {net}: drawn crossings {crossings}")
    changes(browser, choose("net", 0), "lanes")
    expect(browser.run("V.data[1].grads.every((g, i) => V.data[1].tensors[i].leaf !== 'adapters' || g.norm > 0)"), "some adapter's gradient is 0 though B is not")
    changes(browser, choose("when", 0), "lanes")
    expect(browser.run("V.data[1].grads.every((g, i) => !/lora.*A$/.test(V.data[1].tensors[i].name) || g.norm === 0)"), "in the first step some dA is not 0")
    expect(browser.run("document.getElementById('lanes-note').textContent.includes('B is 0')"), "the first step's reason is not told")
    changes(browser, choose("when", 6), "lanes")
    peaks = browser.run("V.data.map(m => m.peak)")
    expect(peaks[0] > peaks[1], f"peaks {peaks}")
    browser.run("document.activeElement.blur()")
    for key in ("ArrowLeft", "ArrowRight"):
        expect(changes(browser, lambda: browser.key(key), "lanes"), f"{key} does nothing while the focus is nowhere")
    browser.run("document.querySelector('#net input:checked').focus()")
    expect(changes(browser, lambda: browser.key("ArrowLeft"), "lanes"), "ArrowLeft does nothing while the focus is on a choice")
    for button in ("next", "back"):
        expect(changes(browser, click(f"#{button}"), "lanes"), f"{button} does nothing")
    expect(changes(browser, slide("step", 3), "lanes"), "the scrubber does nothing")
    for step in range(browser.run("2 * V.data[0].stations.length") + 1):
        browser.run(slide("step", step))
    browser.run("document.querySelector('svg.lane .hit').focus()")
    browser.key("ArrowDown")
    expect(changes(browser, lambda: browser.key("Enter"), "sheet") and not browser.run("document.getElementById('sheet').hidden"), "Enter on a layer shows nothing")
    expect(browser.run("document.getElementById('sheet').contains(document.activeElement)"), "the focus does not go to the details")
    browser.key("Escape")
    expect(browser.run("document.getElementById('sheet').hidden && document.activeElement.matches('.hit')"), "Escape does not close the details and go back")
    browser.run(click("[data-lane='1'][data-s='1'][data-role=W]"))
    expect(changes(browser, click(".here [data-tensor=W2]"), "lanes") and browser.run("V.data[1].counts.wgrad") == 1, "to free W2 does not give it a gradient")
    expect(changes(browser, click(".lane-card h2 button"), "lanes") and browser.run("V.data[1].counts.wgrad") == 0, "undo does not freeze it again")
    for role in ("x", "A", "B"):
        expect(changes(browser, click(f"[data-lane='1'][data-s='2'][data-role={role}]"), "sheet"), f"a click on {role} shows nothing")
    browser.run("closeSheet()")
    for number, gradients in ((2, [0, 2]), (3, [0, 2]), (4, [0, 0]), (5, [1, 8]), (1, [0, 8])):
        expect(changes(browser, click(f"#tries button:nth-of-type({number})"), "lanes"), f"try {number} does nothing")
        counts = browser.run("[V.data[1].counts.wgrad, V.data[1].counts.adapter_gradients]")
        expect(counts == gradients, f"try {number}: {counts}")
        if number == 4:
            expect("nothing trainable feeds the loss" in browser.run("document.querySelector('.refused').textContent"), "the engine does not refuse, or not say why")
    expect(not browser.complaints, f"lanes: {browser.complaints[:3]}")
    expect(browser.run("document.getElementById('play').hidden"), "Play shows where motion is not wanted")
    load(browser, motion=True)
    browser.run(click("#play"))
    until(browser, "V.p > 1 && V.p < 8", "Play plays")
    until(browser, "V.p === 12 && V.timer === null", "Play ends")


def saves(browser):
    load(browser)
    until(browser, "document.getElementById('bar-all')", "bars")
    peaks = [browser.run(f"Number(document.getElementById('bar-{way}').dataset.bytes)") for way in ("full", "attn", "all", "less")]
    expect(peaks[0] > peaks[2] > peaks[1] and peaks[2] > peaks[3], f"peaks {peaks}")
    for i in (0, 2, 3, 4):
        expect(changes(browser, choose("presets", i), "bars"), f"shape {i} does nothing")
    for name in ("B", "T", "C", "L", "r"):
        expect(changes(browser, slide(f"in-{name}", "e.value > 0 ? 0 : e.max"), "bars"), f"the slider {name} does nothing")
    browser.run(click("#measure"))
    until(browser, "document.getElementById('measured').dataset.done", "measured")
    expect(browser.run("[document.querySelectorAll('#measured .tick-mark').length, document.querySelectorAll('#measured .cross-mark').length]") == [9, 0], "what is predicted is not what is measured")
    expect(not browser.complaints, f"bytes: {browser.complaints[:3]}")


def train(browser, text, what):
    runs = browser.run("T.runs.length")
    browser.run(choose("text", text))
    browser.run(choose("what", what))
    browser.run(click("#train"))
    until(browser, f"!T.busy && T.runs.length !== {runs}", f"trained on {text}")


def learning(browser):
    load(browser)
    browser.run(slide("steps", 1))
    train(browser, "tales", 0)
    losses = browser.run("T.runs[0].points.map(p => p[1])")
    expect(len(losses) == 50 and losses[-1] < losses[0] - 0.5, f"losses {losses[:1]} .. {losses[-1:]}")
    base = browser.run("T.hash")
    train(browser, "pirate", 15)
    train(browser, "robot", 1)
    state = "document.getElementById('hash').dataset.hash"
    expect(browser.run(state) == base, "the base's bytes have changed beside the adapters")
    expect(browser.run("[...document.querySelectorAll('#adapters input')].map(i => i.value)") == ["", "pirate", "robot"], "the adapters are not listed")
    for name in ("pirate", ""):
        expect(changes(browser, choose("adapters", name), "sample"), f"switching to '{name}' writes nothing new")
        until(browser, "!T.busy", "switched")
    changes(browser, choose("adapters", "pirate"), "sample")
    until(browser, "!T.busy && !document.getElementById('merge').disabled", "switched")
    browser.run(click("#merge"))
    until(browser, f"!T.busy && {state} !== '{base}'", "merging changes the base's hash")
    browser.run(click("#unmerge"))
    until(browser, f"!T.busy && {state} === '{base}'", "unmerging brings the hash back")
    browser.run("document.getElementById('paste').value = 'the ice is thin and the water runs under it. '.repeat(60)")
    train(browser, "own", 0)
    expect(browser.run("T.runs[T.runs.length - 1].name") == "own", "your own text is not trained on")
    browser.run("document.getElementById('paste').value = 'short'")
    browser.run(click("#train"))
    until(browser, "!T.busy && document.getElementById('train-note').textContent.includes('too short')", "a short text is refused")
    browser.run(slide("steps", 20) + ";" + choose("text", "tales") + ";" + click("#train"))
    until(browser, "T.busy && document.getElementById('train-note').textContent.includes('step 5')", "training runs")
    browser.run(click("#stop"))
    until(browser, "!T.busy", "Stop stops", 30)
    expect(not browser.complaints, f"training: {browser.complaints[:3]}")


def claims(browser):
    load(browser)
    browser.run(click("#claims-run"))
    until(browser, "document.querySelectorAll('#claim-list > li').length", "claims")
    verdicts = browser.run("[...document.querySelectorAll('.verdict')].map(v => v.textContent)")
    expect(len(verdicts) == 11 and all(v in ("true", "half true", "false") for v in verdicts), f"verdicts {verdicts}")
    expect(browser.run("document.querySelectorAll('#claim-list td').length") == 12, "claim 4 has no table")
    expect(not browser.run(NAMELESS), f"controls without a name: {browser.run(NAMELESS)[:3]}")
    expect(not browser.complaints, f"claims: {browser.complaints[:3]}")


def check(browser):
    expect(page.stat().st_size <= 400_000, f"{page.stat().st_size} bytes")
    looks(browser)
    lanes(browser)
    saves(browser)
    learning(browser)
    claims(browser)
    load(browser)
    if native:
        here = subprocess.run([native], capture_output=True, text=True, check=True).stdout.split()
        there = browser.run(HASHES)
        expect(len(here) == 4 and here == there, f"not the same bits: here {here}, in the page {there}")


if not page.exists():
    print(f"skipped: {page} is not there; make page writes it")
    sys.exit(0)
try:
    with Browser() as browser:
        check(browser)
except Missing as why:
    print(f"skipped: {why}")
    sys.exit(0)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0 or passed == 0)
