// page_train.js - a model that learns in this page; adapters beside its base; and the eleven claims, each measured here.
const models = {
    quick: { name: "2 blocks, width 64", L: 2, H: 2, C: 64, T: 32, B: 12, rate: 1e-2 },
    demo: { name: "the demo’s: 4 blocks, width 128", L: 4, H: 4, C: 128, T: 64, B: 12, rate: 3e-3 },
};
const loraRates = { 1: 2e-2, 15: 1e-2 }; // as in the demo
const T = { size: null, trained: false, runs: [], hash: null, busy: false }; // the model's size, whether its base has learned
const lab = () => engine("lab");
const steps = () => 50 * Number($("steps").value);

function lock(busy) {
    T.busy = busy;
    for (const input of $("train-form").querySelectorAll("input, textarea, #train")) input.disabled = busy;
    for (const input of $("adapters").querySelectorAll("input")) input.disabled = busy;
    $("stop").disabled = !busy;
    for (const input of $("what").querySelectorAll("input")) input.disabled = busy || (!T.trained && input.value !== "0");
    if (busy) $("merge").disabled = $("unmerge").disabled = true;
}

// The text is chosen, and there is a model for it; returns the text's facts.
async function prepare(name, size) {
    const m = models[size], own = name === "own";
    const facts = await lab().call("text_choose", [own ? 1 : 0, m.T], own ? $("paste").value : "builtin:" + name);
    if (T.size !== size || !facts.same) {
        const made = await lab().call("model_make", [m.L, m.H, m.C, m.T]);
        Object.assign(T, { size, trained: false, hash: null, parameters: made.parameters, runs: [] });
    }
    return facts;
}

async function trainNow() {
    const name = picked("text"), size = picked("size"), m = models[size], n = steps(), note = $("train-note");
    let targets = Number(picked("what"));
    lock(true);
    try {
        const facts = await prepare(name, size);
        if (!T.trained && targets !== 0) { targets = 0; $("what").querySelector("[value='0']").checked = true; }
        const begun = await lab().call("train_begin", [8, targets, n, targets ? loraRates[targets] : m.rate, m.B], name);
        const run = { name: targets ? "LoRA: " + name : name, targets, floor: facts.floor, points: [], ms: [], begun };
        T.runs = T.runs.slice(-3).concat(run);
        const every = Math.max(1, Math.floor(n / 10));
        const last = await lab().train(n, step => {
            run.points.push([step.step, step.loss]);
            run.ms.push(step.ms);
            run.ledger = step.ledger;
            if (step.step % 5 === 0 || step.step === n) drawCurve();
            note.textContent = `${run.name}: step ${step.step} of ${n}, loss ${step.loss.toFixed(3)}` + (facts.floor ? `, floor ${facts.floor.toFixed(3)}` : "");
            if (step.step % every === 0) writeSample(`What it writes after ${step.step} steps of ${run.name}`);
        });
        if (targets === 0) T.trained = true;
        await writeSample(`What it writes after ${last.step} steps of ${run.name}`);
        drawCurve();
        drawRuns();
        const state = await lab().call("state");
        if (targets === 0) T.hash = state.hash;
        showState(state);
        note.textContent = `Done: ${run.name}, ${last.step} steps. ` + (targets === 0 ? "Now teach the same base another text: choose one, and LoRA." : "");
    } catch (why) {
        note.textContent = why.message;
    }
    lock(false);
    if (T.size) showState(await lab().call("state"));
}

async function writeSample(title, length = 220) {
    const { text } = await lab().call("sample", [length, 0.5]);
    $("sample-title").textContent = title;
    $("sample").textContent = text.join("").trim() + " …";
}

function drawCurve() {
    const W = Math.max(300, $("curve").clientWidth), H = 250, left = 26, right = 120, bottom = H - 22, runs = T.runs.filter(r => r.points.length);
    if (!runs.length) return;
    const smooth = list => list.map((p, i) => { const near = list.slice(Math.max(0, i - 6), i + 7); return [p[0], sum(near.map(q => q[1])) / near.length]; });
    const n = Math.max(...runs.map(r => r.points.length), 50), most = Math.max(...runs.flatMap(r => r.points.map(p => p[1]))) * 1.03;
    const x = s => left + (W - left - right) * s / n, y = v => bottom - (bottom - 8) * v / most;
    const ends = runs.map(r => `${r.name} ${r.points[r.points.length - 1][1].toFixed(2)}`), level = v => `M${left} ${y(v)}H${W - right}`;
    const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, width: W, height: H, role: "img", "aria-label": "Loss by step: " + ends.join(", ") });
    for (let v = 0; v <= most; v++)
        svg.append(draw("path", { class: "axis", d: level(v) }), text(left - 6, y(v) + 4, v, { class: "tick", "text-anchor": "end" }));
    for (let s = 0; s <= n; s += Math.max(25, Math.round(n / 100) * 25)) svg.append(text(x(s), H - 6, s, { class: "tick", "text-anchor": "middle" }));
    const labels = [], last = runs[runs.length - 1];
    runs.forEach((r, i) => {
        const list = smooth(r.points), end = list[list.length - 1], colour = r.targets ? "var(--k1)" : "var(--soft)";
        const dashes = ["none", "7 3", "2 3", "9 2 2 2"][i % 4], width = r === last ? 2.6 : 1.4;
        svg.append(draw("path", { d: "M" + list.map(p => `${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("L"),
            style: `fill:none;stroke:${colour};stroke-width:${width};stroke-dasharray:${dashes}` }));
        labels.push({ y: y(end[1]), words: `${r.name} ${end[1].toFixed(2)}` });
    });
    if (last.floor) {
        svg.append(draw("path", { class: "floor", d: level(last.floor) }));
        labels.push({ y: y(last.floor), words: `floor ${last.floor.toFixed(2)}` });
    }
    labels.sort((a, b) => b.y - a.y).forEach((l, i, all) => { // from below, each clear of the one before
        if (i > 0) l.y = Math.min(l.y, all[i - 1].y - 15);
        svg.append(text(W - right + 6, l.y + 4, l.words, { "font-size": 12 }));
    });
    $("curve").replaceChildren(svg);
}

function drawRuns() {
    const median = list => list.slice().sort((a, b) => a - b)[list.length >> 1];
    table("train-table", ["run", "trains", "peak", "moments", "ms a step"],
        T.runs.map(r => [r.name, thousands(r.begun.trainable), bytes(r.ledger.peak), bytes(r.ledger.own[K.moments]), median(r.ms).toFixed(0)]));
    $("train-table").prepend(make("caption", {}, "Measured as they ran, one after the other; above they take turns, which is how to compare times."));
}

// ------------------------------------------------------------------------------------------- one base, several adapters
function showState(state) {
    const names = state.adapters.map(a => a.name).reverse();
    picks("adapters", [["", "the base alone"], ...names.map(name => [name, name])], useAdapter, state.active || "");
    $("merge").disabled = T.busy || !state.active || state.merged === 1;
    $("unmerge").disabled = T.busy || state.merged === 0;
    const same = state.hash === T.hash;
    $("hash").dataset.hash = state.hash;
    if (!T.hash) return; // the page says what will be here
    $("hash").textContent = `The base’s bytes have the hash ${state.hash}: `
            + (same ? "as when it was trained." : state.merged ? `the adapter is inside them now (before: ${T.hash}).` : "they have changed.")
            + (state.adapters.length ? ` Each adapter beside it: ${bytes(4 * state.adapters[0].size)}, against ${bytes(4 * T.parameters)}.` : "");
}

async function useAdapter(name) {
    lock(true);
    await lab().call("use", [], name);
    await writeSample(name ? `What the same base writes with the adapter “${name}”` : "What the base alone writes");
    lock(false);
    showState(await lab().call("state"));
}

async function mergeNow(on) {
    lock(true);
    await lab().call("merge", [on ? 1 : 0]);
    await writeSample(on ? "What it writes, merged" : "What it writes, unmerged");
    lock(false);
    showState(await lab().call("state"));
}

function startTrain(choices) {
    picks("text", [...choices.texts.map(t => [t, t]), ["own", "your own"]], name => { $("paste-label").hidden = name !== "own"; });
    picks("what", [[0, "everything"], [15, "LoRA on all four"], [1, "LoRA on c_attn"]], () => {});
    picks("size", Object.entries(models).map(([id, m]) => [id, m.name]), () => {});
    const say = () => { $("steps-out").textContent = steps(); $("steps").setAttribute("aria-valuetext", steps()); };
    $("steps").oninput = say;
    say();
    $("train-form").onsubmit = event => { event.preventDefault(); trainNow(); };
    $("stop").onclick = () => lab().stop();
    $("merge").onclick = () => mergeNow(true);
    $("unmerge").onclick = () => mergeNow(false);
    picks("adapters", [["", "the base alone"]], () => {});
    lock(false);
}

// -------------------------------------------------------------------------------------------------------------- the claims
const typeset = line => line.replace(/->/g, "→").replace(/W\^T/g, "Wᵀ").replace(/ {2,}/g, " ");
// What print_claims says: a numbered line with the verdict at column 68, then lines of four spaces; some of them are a table.
function readClaims(said) {
    const list = [];
    for (const line of said.split("\n")) {
        if (/^ ?\d+\. /.test(line)) list.push({ words: line.slice(4, 68).trim(), verdict: line.slice(68).trim(), text: [], table: [] });
        else if (line.startsWith("    ") && list.length) (/\S {3,}\S/.test(line) ? list[list.length - 1].table : list[list.length - 1].text).push(line.trim());
    }
    return list;
}

function claimCard(c, i) {
    const rows = c.table.map(line => line.split(/ {2,}/)), words = c.text.concat(rows.length ? rows[0][0] : []).join(" ");
    const card = make("li", { class: "card" }, make("span", { class: "verdict " + c.verdict.split(" ")[0] }, c.verdict),
        make("h3", {}, `${i + 1}. ${c.words[0].toUpperCase()}${c.words.slice(1)}`), make("p", {}, typeset(words)));
    if (rows.length === 0) return card;
    const heads = ["", ...rows[0].slice(1)].map(t => make("th", { scope: "col" }, t));
    const body = rows.slice(1).map(([way, a, b, d, e, note]) =>
        make("tr", {}, make("th", { scope: "row" }, note ? `${way} ${note}` : way), [a, b, d, e].map(n => make("td", {}, n))));
    card.append(make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Adapters reached" },
        make("table", {}, make("thead", {}, make("tr", {}, heads)), make("tbody", {}, body))));
    return card;
}

function startClaims() {
    $("claims-run").onclick = async () => {
        $("claims-run").disabled = true;
        $("claims-note").textContent = "Measuring: the small model, full and with adapters …";
        try {
            const { found, text: said } = await engine("claims").call("claims", [4]);
            $("claim-list").replaceChildren(...readClaims(said).map(claimCard));
            $("claims-note").textContent = found ? "Measured in this page, just now." : "Some verdict does not follow from what was measured: this is a bug.";
        } catch (why) {
            $("claims-note").textContent = why.message;
        }
        $("claims-run").disabled = false;
    };
}
