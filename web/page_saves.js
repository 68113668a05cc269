// page_saves.js - the peak of a step by predict.c, four ways to train, kind by kind; and the same measured in this page.
const trainings = [ // a name, a title; targets of the adapter, one bit each; whether blocks are recomputed
    ["full", "Everything trains", 0, 0], ["attn", "LoRA on c_attn", 1, 0], ["all", "LoRA on all four linears", 15, 0],
    ["less", "LoRA on all four, blocks recomputed", 15, 1],
];
const columns = ["full", "LoRA c_attn", "LoRA all four", "recomputed"];
const LEAD = 2; // all four
const form = {};
const scales = {
    B: [1, 2, 4, 8, 12, 16, 32, 64], T: [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768], r: [1, 2, 4, 8, 16, 32, 64],
    C: [64, 128, 256, 512, 768, 1024, 2048, 4096, 8192, 12288], L: [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 80, 96],
};
const sizes = [["B", "Windows in a batch", thousands], ["T", "Context", powers], ["C", "Width", thousands], ["L", "Layers", thousands], ["r", "Rank", thousands]];
let asked = 0;

async function predictions() {
    const H = form.C === form.preset.C ? form.preset.H : Math.max(1, Math.round(form.C / (form.preset.C / form.preset.H)));
    const heads = form.C % H === 0 ? H : 1;
    const { B, T, C, L, r } = form;
    return Promise.all(trainings.map(([, , targets, recompute]) =>
        engine("small").call("predict", [form.preset.V, L, heads, C, B, T, r, targets, recompute])));
}

// What becomes of a kind of bytes, in words: `full` in full training, `now` otherwise, by their own peaks.
function fateOfKind(full, now) {
    const share = now / full;
    return share > 1.05 ? `grow by ${bytes(now - full)}` : share > .95 ? "stay" : share < .1 ? `gone: ${bytes(full - now)}` : `less by ${bytes(full - now)}`;
}

// One way to train: its peak as a bar, and what becomes of each large kind.
function drawBar(p, i, most) {
    const [id, title] = trainings[i], q = p[i], full = p[0];
    const held = (b, k) => b > q.peak / 100 ? make("span", {}, swatch(k), `${kinds[k].name} ${bytes(b)}`) : null;
    const becomes = (b, k) => {
        if (b < full.peak / 50 || k === K.weights) return null;
        const fate = fateOfKind(b, q.own[k]), inputs = k === K.kept_activations && i === 1 && fate.startsWith("less");
        return make("span", { class: fate.startsWith("gone") ? "gone" : "" }, swatch(k),
            `${kinds[k].name} ${fate}${inputs ? " (inputs of frozen layers without an adapter)" : ""}`);
    };
    return make("div", { class: "size" },
        make("div", { class: "head" }, make(i === LEAD ? "b" : "span", {}, title), make("b", { id: "bar-" + id, "data-bytes": q.peak }, bytes(q.peak))),
        stack(q.at, most, `${title}: peak ${bytes(q.peak)}`),
        make("div", { class: "small soft fates" }, i === 0 ? q.at.map(held) : full.own.map(becomes)));
}

function drawBars(p) {
    const most = Math.max(...p.map(q => q.peak)), full = p[0];
    const share = (100 * p[LEAD].adapter / full.base).toPrecision(2);
    $("bars").replaceChildren(make("p", { class: "small soft" }, `${count(full.base)} numbers in the base; the adapter on all four has `
        + `${count(p[LEAD].adapter)} (${share} %). Vocabulary ${thousands(form.preset.V)}, 32-bit numbers.`),
        ...[0, LEAD, 1, 3].map(i => drawBar(p, i, most)));
    drawKinds(p);
}

// Tokens a step at which what stays is as much as what goes.
function crossing(p) {
    const goes = [K.parameter_gradients, K.moments].map(k => p[0].own[k] - p[LEAD].own[k]);
    return sum(goes) / (p[LEAD].own[K.kept_activations] / (form.B * form.T));
}

function drawKinds(p) {
    const words = k => {
        const [full, attn, all] = [p[0].own[k], p[1].own[k], p[LEAD].own[k]];
        if (k === K.weights) return "stay: frozen, but read in both directions";
        if (k === K.adapters) return "new";
        if (k === K.moments || k === K.parameter_gradients) return all < full / 10 ? "gone, but for the adapters’ own" : "less";
        if (k === K.kept_activations) return (all > .9 * full ? "stay with all four" : `less by ${bytes(full - all)}`)
            + `; inputs of frozen layers without an adapter go: ${bytes(all - attn)} with c_attn alone`;
        if (k === K.activation_gradients) return all > .9 * full ? "stay: they are what flows" : "less";
        return "";
    };
    const list = kinds.map((_, k) => k).filter(k => p.some(q => q.own[k] > 0));
    table("kinds-table", ["the most that each kind holds", ...columns, "with LoRA"], [
        ...list.map(k => [[swatch(k), kinds[k].name], ...p.map(q => q.own[k] ? bytes(q.own[k]) : "–"), words(k)]),
        [make("b", {}, "the peak of all together"), ...p.map(q => make("b", {}, bytes(q.peak))),
            make("b", {}, `${(p[0].peak / p[LEAD].peak).toFixed(1)} times less with all four`)],
    ], true);
    const early = p[0].at[K.kept_activations] < p[0].own[K.kept_activations] / 2;
    $("kinds-note").textContent = "The kinds do not peak together, so their own peaks add up to more than the peak. "
        + (early ? "Here full training peaks late in backward, when its activations have gone and its gradients have come; LoRA peaks when "
                + "forward ends. So the bar of full shows few activations, though it holds as many."
            : "Here both peak when forward ends, with all activations kept and hardly a gradient made.")
        + ` What stays grows with the tokens of a step, here ${powers(form.B * form.T)}: at about ${count(crossing(p))} tokens the kept `
        + "activations of LoRA on all four are as many bytes as it saves in gradients and moments.";
}

async function drawSaves() {
    const turn = ++asked;
    for (const [name, , say] of sizes) {
        $("in-" + name).value = scales[name].indexOf(form[name]);
        $("in-" + name).setAttribute("aria-valuetext", say(form[name]));
        $("out-" + name).textContent = say(form[name]);
    }
    const p = await predictions();
    if (turn === asked) drawBars(p); // else a later question is under way
}

function startSaves(choices) {
    const shapes = choices.shapes.filter(s => s.gpt).map(s => ({ ...s, B: 1 })), here = { name: "the demo’s", ...choices.here };
    const all = [...shapes, here], lead = all.findIndex(s => s.name === "gpt-7b");
    for (const s of all) for (const n of ["B", "T", "C", "L"]) if (!scales[n].includes(s[n])) scales[n] = scales[n].concat(s[n]).sort((a, b) => a - b);
    const apply = i => { const s = all[i]; Object.assign(form, { preset: s, B: s.B, T: s.T, C: s.C, L: s.L, r: choices.r }); drawSaves(); };
    picks("presets", all.map((s, i) => [i, s.name]), apply, lead);
    for (const [name, label] of sizes) {
        const input = make("input", { type: "range", min: 0, max: scales[name].length - 1, id: "in-" + name });
        input.oninput = () => { form[name] = scales[name][input.value]; drawSaves(); };
        const output = make("output", { id: "out-" + name, for: "in-" + name });
        $("controls").append(make("div", { class: "slider" }, make("label", { for: "in-" + name }, label), output, input));
    }
    apply(lead);
    $("measure").onclick = measureHere;
}

async function measureHere() {
    $("measure").disabled = true;
    $("measure-note").textContent = "Measuring: some seconds …";
    const rounds = 3, ways = await engine("large").call("measure", [rounds]);
    const same = k => ways.every(w => w.measured.own[k] === w.predicted.own[k] && w.measured.at[k] === w.predicted.at[k]);
    const mark = good => make("span", { class: good ? "tick-mark" : "cross-mark", role: "img", "aria-label": good ? "as predicted" : "not as predicted" },
        good ? "✓" : "✗");
    table("measured", ["held at the peak, measured", ...columns, "as predicted"], [
        ...kinds.map(({ name }, k) => [[swatch(k), name], ...ways.map(w => thousands(w.measured.at[k])), mark(same(k))]),
        [make("b", {}, "in all"), ...ways.map(w => make("b", {}, thousands(w.measured.peak))), mark(ways.every(w => w.measured.peak === w.predicted.peak))],
        ["multiplications and additions, million", ...ways.map(w => thousands(w.flops / 1e6)), ""],
        ["ms a step, here and now", ...ways.map(w => w.ms.toFixed(0)), ""],
    ]);
    $("measure-note").textContent = `Measured. The four took their steps in turn, ${rounds} rounds of two; the times are the least of each. `
        + "The tick: own peaks and the bytes at the peak agree to the byte.";
    $("measure").disabled = false;
    $("measured").dataset.done = "1";
}
