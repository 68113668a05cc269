// page_lanes.js - one step of a small net in three lanes. The net is divided into stations: an op of the base, with the two ops of
// the adapter that rides on it. So the stations of all lanes are the same, and one scrubber serves them: place 0 is before the
// step, S after forward, 2 S after backward. Forward goes down the page, the gradient's stream rises from the loss to the input.
const ways = [
    ["Everything trains", // of the chain, and of the block
        "Each W gets a gradient dW of its own (the number: its length), and two moments.",
        "Each W gets a gradient dW of its own (the number: its length), and two moments."],
    ["LoRA",
        "W is frozen, so no dW. The gradient passes through the ice, times Wᵀ, to every A and B.",
        "No dW. The gradient passes through the ice, and beside it on the residual stream, to every A and B."],
    ["“Frozen means zero”",
        "The misreading, on purpose: here the engine lets nothing pass a frozen layer.",
        "The misreading, on purpose: it ends at the first ice, the head, and no adapter learns."],
];
const FULL = 0, LORA = 1, CUT = 2;
const formulas = { // forward, then the gradient of each input
    add: ["y = x + h", "dx += dy", "dh += dy"], mul: ["y = x ∘ x", "dx += dy ∘ x", "dx += dy ∘ x"], mean: ["loss = mean of x", "dx += dy / count"],
    embedding: ["y = wte[ids] + wpe", "dwte[id] += dy", "dwpe += dy"],
    layernorm: ["y = (x − mean) / deviation ∘ g + b", "dx += from dy, x and its statistics", "dg += sums of dy ∘ x̂", "db += column sums of dy"],
    linear: ["y = x W + b", "dx += dy Wᵀ", "dW += xᵀ dy", "db += column sums of dy"], lm_head: ["y = x wteᵀ", "dx += dy wte", "dwte += dyᵀ x"],
    attention: ["y = softmax(q kᵀ / √D, causal) v", "dq, dk, dv += …"], gelu: ["y = ½ x (1 + tanh(√(2/π)(x + 0.0447 x³)))", "dx += dy ∘ gelu′(x)"],
    cross_entropy: ["y = −log softmax(x)[target]", "dx += dy (softmax(x) − 1 at the target)"],
    matmul: ["h = x A", "dx += dh Aᵀ", "dA += xᵀ dh"], matmul_add: ["out = y + s h B", "dy += dout, unchanged", "dh += s dout Bᵀ", "dB += s hᵀ dout"],
};
const opNames = { mul: "square", cross_entropy: "cross-entropy", layernorm: "layer norm", embedding: "embedding",
    attention: "attention", gelu: "gelu", add: "add", mean: "mean = loss" };
const shortNames = { "cross-entropy": "entropy", "mean = loss": "loss", "layer norm": "norm", embedding: "embed", attention: "attend" }; // on a phone
const lanesView = { net: 0, steps: 6, p: 0, selected: null, data: [null, null, null], wishes: [{}, {}, {}], refused: ["", "", ""], timer: null };
const V = lanesView;

// ------------------------------------------------------------------------------------------------------- reading a lane
// Station s of lane m: { i, op, A, add, name, matrix } - numbers of ops; A and add are -1 without an adapter.
function stationsOf(m) {
    const list = [];
    m.leaves = m.tensors.filter(t => t.leaf).length;
    m.ops.forEach((op, i) => {
        const last = list[list.length - 1];
        if (op.op === "matmul" && m.tensors[op.in[1]].leaf === "adapters") last.A = i;
        else if (op.op === "matmul_add") last.add = i;
        else list.push({ i, op, A: -1, add: -1, matrix: op.op === "linear" || op.op === "lm_head" });
    });
    list.forEach((s, n) => {
        const W = s.matrix && m.tensors[s.op.in[1]].name, block = W && /\.(c_attn|c_fc|c_proj|wte)\.weight$/.exec(W);
        s.W = s.matrix ? s.op.in[1] : -1;
        s.name = !s.matrix ? opNames[s.op.op] : block ? (block[1] === "wte" ? "head" : block[1]) : W.replace(/\d/, d => "₀₁₂₃₄"[d]);
        s.letter = block ? (block[1] === "wte" ? "wte" : "W") : s.name;
        s.sub = !block && s.matrix ? s.name.slice(1) : "";
        s.number = n;
    });
    list.forEach(s => { s.main = s.op.op === "embedding" ? -1 : s.op.in[s.op.op === "add" ? 1 : 0]; s.out = m.leaves + Math.max(s.i, s.add); });
    m.made = new Map(list.flatMap(s => [s.i, s.A, s.add].filter(i => i >= 0).map(i => [m.leaves + i, s])));
    m.entry = new Map(m.back.map(b => [b.op, b]));
    return list;
}
const shape = t => t.shape.join("×");
const did = (m, op, input) => op < 0 || !m.entry.has(op) ? null : m.entry.get(op).did.find(d => d.in === input) || null;
const isData = (m, t) => m.tensors[t].name === "x";
// The gradient of tensor t: null (not computed), or { norm, v }.
const gradientOf = (m, t) => t < m.leaves ? m.grads[t] : m.entry.has(t - m.leaves) ? m.entry.get(t - m.leaves).dy : null;
const forwardDone = s => V.p > s.number;
const backwardDone = (m, s) => V.p >= 2 * m.stations.length - s.number;
// What has become of the gradient at tensor t, by the time its station s is done: "" not yet, "none", "zero", "flow".
function fate(m, s, t) {
    if (!backwardDone(m, s)) return "";
    const g = gradientOf(m, t);
    return !g ? "none" : g.norm === 0 ? "zero" : "flow";
}
// Live bytes at place p, by kind, and all that was between p - 1 and p.
function liveBetween(m, p) {
    const S = m.stations.length;
    if (p === 0) return [m.before];
    if (p <= S) { const s = m.stations[p - 1]; return [s.i, s.A, s.add].filter(i => i >= 0).map(i => m.ops[i].live); }
    const s = m.stations[2 * S - p];
    return [s.add, s.A, s.i].filter(i => m.entry.has(i)).flatMap(i => [...m.entry.get(i).did.filter(d => d.live).map(d => d.live), m.entry.get(i).live]);
}
function timelineOf(m) {
    const points = [];
    for (let p = 0, last = null; p <= 2 * m.stations.length; p++) {
        const list = liveBetween(m, p);
        if (list.length === 0) list.push(last);
        list.forEach((live, i) => points.push({ x: p === 0 ? 0 : p - 1 + (i + 1) / list.length, live }));
        last = list[list.length - 1];
    }
    return points;
}
const liveAt = m => m.points.filter(q => q.x <= V.p + 1e-9).pop().live;
// Whether somebody keeps tensor t for backward, and until the station which number.
function keeper(m, t) {
    const station = m.stations.filter(s => [s.i, s.A, s.add].some(i => i >= 0 && m.ops[i].kept.includes(t)));
    return station.length ? station[0] : null;
}

// Which gradients of station s will read tensor t.
const readers = (m, s, t) => [[s.i, "d" + s.letter], [s.A, "dA" + s.sub]].filter(([i]) => i >= 0 && m.ops[i].kept.includes(t)).map(([, d]) => d).join(", ");

// --------------------------------------------------------------------------------------------------------------- drawing
function geometry(w, tall) {
    return w >= 368 ? { wide: true, cx: 66, sw: 14, ice0: 42, ice1: 232, tx: 86, bypass: 18, chip0: 254, chip1: Math.min(w - 4, 400),
        iceH: tall ? 36 : 44, pillH: tall ? 20 : 24, gap: tall ? 12 : 25 }
        : { wide: false, cx: 24, sw: 9, ice0: 13, ice1: Math.min(w, 260) - 40, tx: 32, bypass: 5, chip0: Math.min(w, 260) - 34, chip1: Math.min(w, 260) - 1,
            iceH: 38, pillH: 20, gap: tall ? 9 : 14 };
}

// An element that can be chosen, by mouse and by keyboard.
function hit(lane, s, role, label, ...children) {
    const on = V.selected && V.selected.s === s.number && V.selected.role === role;
    return draw("g", { class: "hit" + (on ? " chosen" : ""), role: "button", tabindex: -1, "aria-label": `${ways[lane][0]}: ${label}`,
        "data-lane": lane, "data-s": s.number, "data-role": role }, ...children);
}
const text = (x, y, words, attributes = {}) => draw("text", { x, y, ...attributes }, words);
const snow = (x, y, r) => draw("path", { class: "snow", d: [1, 3, 5].map(sixth => {
    const dx = r * Math.cos(sixth * Math.PI / 6), dy = r * Math.sin(sixth * Math.PI / 6);
    return `M${x - dx} ${y - dy}L${x + dx} ${y + dy}`;
}).join("") });
function stream(d, state, width) { // null: nothing flows
    if (state !== "flow" && state !== "zero") return null;
    return draw("path", { class: "stream " + state, d, "stroke-width": state === "zero" ? Math.min(width, 3) : width });
}
const chevron = (x, y, r) => draw("path", { class: "chevron", d: `M${x - r} ${y + r / 2}L${x} ${y - r / 2}L${x + r} ${y + r / 2}` });
const says = { "": "not yet", none: "not computed", zero: "0 exactly", flow: "" };

function drawLane(lane, w) {
    const m = V.data[lane], S = m.stations.length, tall = S > 8, g = geometry(w, tall);
    let y = g.wide ? 32 : 24;
    for (const s of m.stations) { s.y0 = y; s.h = s.matrix ? g.iceH : g.pillH; s.y1 = y + s.h; y = s.y1 + g.gap; }
    const height = y - g.gap + (g.wide ? 8 : 6), under = draw("g"), over = draw("g");
    const state = s => s === null || !backwardDone(m, s) ? "" : fate(m, s, s.main);
    m.stations.forEach((s, n) => {
        const above = n === 0 ? s.y0 - (g.wide ? 28 : 22) : m.stations[n - 1].y1, seg = s.main >= 0 ? state(s) : "", fx = g.cx - g.sw / 2 - 7;
        under.append(draw("path", { class: "forward" + (forwardDone(s) ? " done" : ""), d: `M${fx} ${above}V${s.y1}` }));
        const through = fateThrough(m, s);
        under.append(draw("path", { class: "bed", d: `M${g.cx} ${n === 0 && s.main < 0 ? s.y0 : above}V${s.y1}`, "stroke-width": g.sw }));
        const rise = stream(`M${g.cx} ${s.y0 + 1}V${above}`, seg, g.sw), cross = stream(`M${g.cx} ${s.y1}V${s.y0}`, through, g.sw);
        if (rise) under.append(rise);
        if (cross) under.append(cross);
        if (seg === "flow") over.append(chevron(g.cx, (above + s.y0) / 2, g.sw / 3));
        if (s.op.op === "add") drawBypass(m, s, g, under);
        if (s.A >= 0) drawAdapter(lane, m, s, g, above, under, over);
        drawActivation(lane, m, s, g, above, over, fx);
        over.append(s.matrix ? drawMatrix(lane, m, s, g, through) : drawPill(lane, m, s, g));
        if (s.matrix && stoppedAt(m, s)) over.append(draw("path", { class: "stop", d: `M${g.cx - g.sw} ${s.y1 + 1}H${g.cx + g.sw}` }));
    });
    const loss = m.stations[S - 1];
    if (V.p > S && !m.refused) over.append(draw("circle", { class: "spring", cx: g.cx, cy: loss.y1 - loss.h / 2, r: g.sw / 2 + 1 }));
    return draw("svg", { class: "lane", viewBox: `0 0 ${w} ${height}`, width: w, height, role: "group",
        "aria-label": `${ways[lane][0]}: ${laneSummary(m)}` }, under, over);
}

// What crosses station s from its output to its main input.
function fateThrough(m, s) {
    if (!backwardDone(m, s) || s.main < 0) return "";
    const d = did(m, s.i, s.op.op === "add" ? 1 : 0);
    return !d || d.cut ? "" : d.norm === 0 ? "zero" : "flow";
}
const stoppedAt = (m, s) => backwardDone(m, s) && Boolean((did(m, s.i, 0) || {}).cut);

function drawBypass(m, s, g, under) { // x + h: x comes from some stations above, past all ice
    const from = m.made.get(s.op.in[0]), mid = s.y0 + s.h / 2, d = `M${g.cx} ${mid}H${g.bypass}V${from.y1 + 4}H${g.cx}`;
    const done = forwardDone(s), back = backwardDone(m, s) ? did(m, s.i, 0) : null;
    under.append(draw("path", { class: "forward" + (done ? " done" : ""), d: `M${g.cx - g.sw / 2 - 7} ${from.y1 + 4}H${g.bypass - 3}V${mid}` }));
    const flow = back && stream(d, back.norm > 0 ? "flow" : "zero", g.wide ? 6 : 4);
    if (flow) under.append(flow);
}

function drawMatrix(lane, m, s, g, through) {
    const t = m.tensors[s.W], trains = t.trains, dW = fate(m, s, s.W), x0 = g.ice0, w = g.ice1 - g.ice0, mid = s.y0 + s.h / 2;
    const label = `${s.name} ${shape(t)}, ${trains ? "trains" : "frozen"}; its gradient: ${dW === "flow" ? "norm " + norm(m.grads[s.W].norm) : says[dW]}`;
    const body = [draw("rect", { class: trains ? "thawed" : "ice", x: x0, y: s.y0, width: w, height: s.h, rx: 7 }),
        trains ? null : draw("rect", { class: "hatch", x: x0, y: s.y0, width: w, height: s.h, rx: 7 }),
        !trains && through === "flow" ? draw("path", { class: "banks", d: [-1, 1].map(side => `M${g.cx + side * g.sw / 2} ${s.y1 - 1}V${s.y0 + 1}`).join("") }) : null];
    const crossing = through === "flow" ? `× ${s.letter === "wte" ? "wte" : s.letter + "ᵀ"}` : "";
    const tx = g.tx + (g.wide && !trains ? 15 : 0);
    if (g.wide) {
        if (!trains) body.push(snow(g.tx + 5, s.y0 + s.h / 2 - 8, 5.5));
        body.push(text(tx, mid - 4, s.name, { class: "name" }));
        if (crossing) body.push(text(g.tx, mid + 13, "↑ " + crossing, { class: "crossing" }));
        else if (stoppedAt(m, s)) body.push(text(g.tx, mid + 13, "stopped", { class: "stopped" }));
        else if (forwardDone(s)) body.push(text(g.tx, mid + 13, "↓ x " + s.letter, { class: "minor" }));
        const sx = g.ice1 - 86, sy = mid - 16;
        const inside = dW === "flow" ? norm(m.grads[s.W].norm) : dW === "" ? (trains ? "" : "empty") : says[dW];
        body.push(draw("rect", { class: "socket " + dW, x: sx, y: sy, width: 82, height: 32, rx: 5 }),
            text(sx + 41, mid - 3, "d" + s.letter, { class: "socket-text " + dW, "text-anchor": "middle" }),
            text(sx + 41, mid + 11, inside, { class: "socket-text " + dW, "text-anchor": "middle" }));
        if (s.A < 0 && trains && V.steps > 0) body.push(draw("rect", { class: "chip moments", x: g.chip0, y: mid - 16, width: g.chip1 - g.chip0, height: 32, rx: 5 }),
            text(g.chip0 + 10, mid - 3, "two moments of " + s.letter, { class: "moments" }), text(g.chip0 + 10, mid + 11, "2 × " + shape(t), { class: "moments" }));
    } else {
        body.push(text(g.tx, mid - 4, s.name, { class: "name" }));
        if (crossing) body.push(text(g.tx, mid + 12, crossing.replace(" ", ""), { class: "crossing" }));
        else if (stoppedAt(m, s)) body.push(text(g.tx, mid + 12, "stop", { class: "stopped" }));
        body.push(draw("rect", { class: "socket " + dW, x: g.ice1 - 12, y: mid + 3, width: 9, height: 11, rx: 2 }));
    }
    return hit(lane, s, "W", label, ...body);
}

function drawPill(lane, m, s, g) {
    const mid = s.y0 + s.h / 2, last = s.number === m.stations.length - 1, leaves = s.op.in.filter(t => t < m.leaves && !isData(m, t));
    const words = last && forwardDone(s) ? (g.wide ? `loss ${norm(m.loss)}` : norm(m.loss)) : g.wide ? s.name : (shortNames[s.name] || s.name);
    const parts = [draw("rect", { class: "pill" + (forwardDone(s) ? " done" : ""), x: g.tx - 6, y: s.y0, width: g.ice1 - g.tx + 6, height: s.h, rx: s.h / 2 }),
        text(g.tx + (g.wide ? 4 : 1), mid + 4, words, { class: "op" })];
    leaves.forEach((t, i) => { // gain and bias, or embeddings: each a little socket
        const f = fate(m, s, t);
        parts.push(draw("rect", { class: "socket " + f, x: g.wide ? g.ice1 - 14 - 13 * i : g.ice1 + 6 + 13 * i, y: mid - 5, width: 9, height: 10, rx: 2 }));
    });
    const states = leaves.map(t => `${leafName(m, t)} ${m.tensors[t].trains ? "trains" : "frozen"}`);
    return hit(lane, s, "op", [s.name, ...states].join("; "), ...parts);
}

function drawActivation(lane, m, s, g, above, over, fx) {
    if (s.main < 0) return;
    const k = keeper(m, s.main), made = m.made.get(s.main), here = made ? forwardDone(made) : true, y = s.number === 0 ? above + (g.wide ? 9 : 6) : (above + s.y0) / 2;
    const data = s.main < m.leaves, gone = forwardDone(s) && (!k || backwardDone(m, k) || V.p >= m.ends);
    const state = data ? "data" : !here ? "ahead" : gone ? "gone" : k && forwardDone(k) ? "kept" : "live";
    const words = data ? "x, the input" : !forwardDone(s) ? "" : !k ? "x let go at once" : `x ${gone ? "was " : ""}kept for ${readers(m, k, s.main)}`;
    const parts = [draw("circle", { class: "activation " + state, cx: fx, cy: y, r: g.wide ? 4.5 : 3.5 }), draw("circle", { class: "area", cx: fx, cy: y, r: 9 })];
    if (g.wide && words && s.matrix && g.gap > 20) parts.push(text(g.tx, y + 4, words, { class: "minor" }));
    over.append(hit(lane, s, "x", `input of ${s.name}, ${data ? "data" : k ? "kept for backward" : "let go at once"}`, ...parts));
}

function drawAdapter(lane, m, s, g, above, under, over) {
    const A = m.ops[s.A].in[1], B = m.ops[s.add].in[2], w = g.chip1 - g.chip0, ax = g.wide ? g.chip0 + 16 : (g.chip0 + g.chip1) / 2;
    const chipH = g.wide ? s.h / 2 - 1 : 19, yA = s.y0 + (g.wide ? -1 : -2);
    const yB = s.y1 - chipH + (g.wide ? 1 : 2), out = s.y1 + (g.wide ? 4 : 5), into = s.y0 - (g.wide ? 4 : 5), width = g.wide ? 4 : 3;
    under.append(draw("path", { class: "forward" + (forwardDone(s) ? " done" : ""), d: `M${g.cx} ${into}H${ax}V${out}H${g.cx}` }));
    const gradient = (op, input) => backwardDone(m, s) ? did(m, op, input) : null, level = d => !d || d.cut ? "" : d.norm > 0 ? "flow" : "zero";
    const dh = gradient(s.add, 1), arrives = gradient(s.add, 2) || dh;
    for (const path of [stream(`M${g.cx} ${out}H${ax}V${yB + chipH}`, arrives ? "flow" : "", width),
        stream(`M${ax} ${yB}V${yA + chipH}`, level(dh), width),
        stream(`M${ax} ${yA}V${into}H${g.cx}`, level(gradient(s.A, 0)), width)]) if (path) under.append(path);
    for (const [role, t, top] of [["A", A, yA], ["B", B, yB]]) {
        const f = fate(m, s, t), trains = m.tensors[t].trains, dark = trains && f === "none";
        const size = f === "flow" ? norm(m.grads[t].norm) : says[f], look = dark ? "dark" : trains ? "" : "iced";
        const words = f === "" ? shape(m.tensors[t]) : f === "none" ? (trains ? "dark" : "no d" + role) : `d${role} ${size}`;
        over.append(hit(lane, s, role, `adapter ${role} of ${s.name} ${shape(m.tensors[t])}, ${trains ? "trains" : "frozen"}; gradient: ${size}`,
            draw("rect", { class: "chip " + (dark ? "dark" : trains ? "alive" : "ice"), x: g.chip0, y: top, width: w, height: chipH, rx: 5 }),
            text(g.chip0 + (g.wide ? 16 : 10), top + chipH / 2 + 4, role + (g.wide ? s.sub : ""), { class: "chip-text " + look, "text-anchor": "middle" }),
            g.wide ? text(g.chip0 + 34, top + chipH / 2 + 4, words, { class: "chip-minor " + look }) : null,
            draw("rect", { class: "socket " + f, x: g.chip1 - (g.wide ? 14 : 12), y: top + chipH / 2 - 5, width: 9, height: 10, rx: 2 })));
    }
}

// Bytes by kind over the step: what is behind the cursor in full colour.
function drawBytes(lane, w, most) {
    const m = V.data[lane], H = w >= 240 ? 86 : 64, end = 2 * m.stations.length, x = p => 1 + (w - 2) * p / end, y = b => H - 1 - (H - 14) * b / most;
    const svg = draw("svg", { class: "bytes", viewBox: `0 0 ${w} ${H}`, width: w, height: H, role: "img",
        "aria-label": `${ways[lane][0]}: live bytes by kind; now ${bytes(sum(liveAt(m)))}, most ${bytes(m.peak)}` });
    svg.append(draw("defs", {}, draw("clipPath", { id: "done" + lane }, draw("rect", { x: 0, y: 0, width: x(V.p) + 1, height: H }))));
    const layers = () => kinds.map((_, k) => {
        const below = m.points.map(q => sum(q.live.slice(0, k))), above = m.points.map((q, i) => below[i] + q.live[k]);
        if (!above.some((b, i) => b > below[i])) return null;
        const at = m.points.map(q => x(q.x).toFixed(1)), there = [], back = []; // what is held at a point fills the way to it
        for (let i = 1; i < at.length; i++) { there.push(`V${y(above[i]).toFixed(1)}H${at[i]}`); back.unshift(`V${y(below[i]).toFixed(1)}H${at[i - 1]}`); }
        return draw("path", { d: `M${at[0]} ${y(below[1])}${there.join("")}${back.join("")}Z`, style: `fill:var(--k${k})` });
    }).filter(path => path);
    svg.append(draw("g", { class: "ahead" }, ...layers()), draw("g", { "clip-path": `url(#done${lane})` }, ...layers()),
        draw("path", { class: "turn", d: `M${x(end / 2)} 12V${H}` }), draw("path", { class: "cursor", d: `M${x(V.p)} 6V${H}` }));
    const label = (words, p) => text(x(p), 10, words, { class: "tick", "text-anchor": "middle" });
    if (w >= 240) svg.append(label("forward", end / 4), label("backward", 3 * end / 4));
    return svg;
}

function computedSoFar(m) {
    const made = (s, t) => ["flow", "zero"].includes(fate(m, s, t));
    const W = m.stations.filter(s => s.matrix && made(s, s.W)), adapted = m.stations.filter(s => s.A >= 0);
    const adapters = adapted.flatMap(s => [m.ops[s.A].in[1], m.ops[s.add].in[2]].filter(t => made(s, t)));
    return `computed: ${W.length} dW, ${adapters.length} dA and dB`;
}

function laneSummary(m) {
    const c = m.counts, weights = m.stations.filter(s => s.matrix).length, adapters = m.tensors.filter((t, i) => t.leaf === "adapters" && t.trains).length;
    const got = m.tensors.filter((t, i) => t.leaf === "adapters" && m.grads[i] && m.grads[i].norm > 0).length;
    return `${c.wgrad} of ${weights} matrices get a gradient of their own, it passes ${c.dgrad} of them`
        + (adapters ? `; ${got} of ${adapters} adapter matrices get one` : "");
}

function drawLanes() {
    const host = $("lanes"), total = host.clientWidth;
    if (total < 200) return; // nowhere to draw yet
    const w = Math.floor((total - (total < 720 ? 12 : 48)) / 3), most = 1.04 * Math.max(...V.data.map(m => m.peak));
    const focused = document.activeElement && document.activeElement.dataset ? { ...document.activeElement.dataset } : {};
    host.replaceChildren(...ways.map(([title, ...words], lane) => {
        const m = V.data[lane], changed = Object.keys(V.wishes[lane]).length > 0, reset = changed && make("button", { class: "small-button" }, "Undo");
        if (reset) reset.onclick = () => { V.wishes[lane] = {}; runLanes(); };
        const note = m.refused ? make("p", { class: "says refused" }, "Nothing trains, and backward refuses: ", V.refused[lane].replace(/^backward\([^)]*\): /, ""))
            : make("p", { class: "says" }, changed ? `Changed by you: ${laneSummary(m)}.` : words[V.net]);
        return make("article", { class: "lane-card", "aria-label": title, style: `width:${w}px` }, make("h2", {}, title, reset || null), note, drawLane(lane, w),
            make("p", { class: "now" }, make("span", {}, make("b", {}, bytes(sum(liveAt(m)))), w >= 240 ? ` live, most ${bytes(m.peak)}` : ""),
                w >= 240 ? make("span", {}, computedSoFar(m)) : null),
            drawBytes(lane, w, most));
    }));
    const hits = [...host.querySelectorAll(".hit")];
    for (const svg of host.querySelectorAll("svg.lane")) svg.querySelector(".hit").setAttribute("tabindex", 0);
    for (const h of hits) {
        h.onclick = () => choose(h);
        if (!focused.role || ["lane", "s", "role"].some(key => h.dataset[key] !== focused[key])) continue;
        h.setAttribute("tabindex", 0);
        h.focus({ preventScroll: true });
    }
    drawSheet();
}

function show(p) {
    const end = 2 * V.data[0].stations.length;
    V.p = Math.max(0, Math.min(end, p));
    $("step").max = end;
    $("step").value = V.p;
    const S = end / 2, s = V.p === 0 ? null : V.data[1].stations[V.p <= S ? V.p - 1 : end - V.p];
    const done = V.p === S ? ": forward is done" : V.p === end ? ": backward is done" : "";
    const words = V.p === 0 ? "before the step" : `${V.p <= S ? "forward" : "backward"}, ${s.name}${done}`;
    $("place").textContent = words[0].toUpperCase() + words.slice(1);
    $("step").setAttribute("aria-valuetext", words);
    $("back").disabled = V.p === 0;
    $("next").disabled = V.p === end;
    drawLanes();
}

// --------------------------------------------------------------------------------------------------------------- details
const leafName = (m, t) => m.tensors[t].name.replace(/^transformer\./, "").replace(/^h\.0\./, "");
const hitAt = ({ lane, s, role }) => document.querySelector(`[data-lane="${lane}"][data-s="${s}"][data-role="${role}"]`);
function choose(h, byKey = false) {
    V.selected = { s: Number(h.dataset.s), role: h.dataset.role, lane: Number(h.dataset.lane) };
    drawLanes();
    const hidden = hitAt(V.selected).getBoundingClientRect().bottom + 12 - $("sheet").getBoundingClientRect().top;
    if (hidden > 0) scrollBy(0, hidden); // into sight, above the details
    if (byKey) $("sheet").querySelector("button").focus();
}
function closeSheet() {
    const was = V.selected, inside = $("sheet").contains(document.activeElement);
    V.selected = null;
    drawLanes();
    if (inside) hitAt(was).focus();
}

function matrixOf(title, value) {
    if (!value) return make("p", { class: "none" }, title + ": not computed. There is no buffer for it, which is not the same as zeros.");
    const columns = Math.max(...value.v.flat().map(x => x.toPrecision(2).length)) + 1;
    const numbers = value.v.map(row => row.map(x => x.toPrecision(2).padStart(columns)).join("")).join("\n");
    return make("div", {}, make("p", {}, `${title}: norm ${norm(value.norm)}`),
        make("div", { class: "values", tabindex: 0, role: "group", "aria-label": title }, numbers));
}

async function toggle(lane, t) {
    const m = V.data[lane], name = m.tensors[t].name;
    if (name in V.wishes[lane]) delete V.wishes[lane][name];
    else V.wishes[lane][name] = m.tensors[t].trains ? 2 : 1;
    await runLanes();
}

// A leaf in a lane: shape, state, numbers, gradient, and the button that freezes it or lets it train.
function leafDetail(lane, t, s, full) {
    const m = V.data[lane], tensor = m.tensors[t], g = fate(m, s, t);
    const button = make("button", { class: "small-button", "data-tensor": tensor.name, "data-of": lane }, tensor.trains ? "Freeze it" : "Let it train");
    button.onclick = () => toggle(lane, t);
    const zero = g === "zero" && tensor.name.endsWith(".A") ? " B is still 0, so nothing comes back through it to A in the first step." : "";
    return [make("p", {}, make("b", {}, leafName(m, t)), ` ${shape(tensor)}, ${tensor.trains ? "trains" : "frozen"} `, button),
        make("div", { class: "pair" }, full ? matrixOf("values", tensor.value) : null,
            g === "" ? make("p", { class: "none" }, "gradient: its turn has not come") : matrixOf("gradient", m.grads[t])), zero ? make("p", {}, zero) : null];
}

// What backward did for input j of an op.
function whatBecameOf(m, op, j) {
    const d = did(m, op, j);
    if (d) return d.cut ? "dropped on purpose" : "ran: " + (d.norm === 0 ? "0 exactly" : "norm " + norm(d.norm));
    if (!m.ops[op].recorded) return "not recorded: nothing it reads trains";
    if (!m.entry.has(op)) return "no gradient arrived";
    return m.ops[op].in[j] < m.leaves ? "skipped: frozen" : "skipped: nothing below it trains";
}

function detail(lane) {
    const m = V.data[lane], s = m.stations[V.selected.s], role = V.selected.role, adapter = role === "A" || role === "B";
    if (adapter && s.A < 0) return [make("p", { class: "none" }, "No adapter in this lane.")];
    const op = role === "A" ? s.A : role === "B" ? s.add : s.i, f = formulas[m.ops[op].op], lines = [];
    if (role === "x") {
        const tensor = m.tensors[s.main];
        const [state, why] = isData(m, s.main) ? ["data", "."] : keeper(m, s.main) ? ["kept for backward", ": a gradient will read it."]
            : ["let go at once", ": no gradient reads it, so its bytes go as soon as the next value is there."];
        lines.push(make("p", {}, `Input of ${s.name}, ${shape(tensor)}: `, make("b", {}, state), why),
            make("div", { class: "pair" }, matrixOf("values", tensor.value), fate(m, s, s.main) === "" ? null : matrixOf("gradient", gradientOf(m, s.main))));
        return lines;
    }
    lines.push(make("p", { class: "formula" }, f[0]));
    m.ops[op].in.forEach((t, j) => {
        const what = backwardDone(m, s) ? whatBecameOf(m, op, j) : "";
        lines.push(make("p", { class: "formula" + (what.startsWith("ran") ? " ran" : "") }, f[j + 1], what ? make("span", {}, " " + what) : null));
    });
    const leaves = m.ops[op].in.filter(t => t < m.leaves && !isData(m, t));
    leaves.forEach((t, i) => lines.push(...leafDetail(lane, t, s, i === 0)));
    return lines;
}

function drawSheet() {
    const sheet = $("sheet");
    sheet.hidden = !V.selected;
    document.body.classList.toggle("reading", Boolean(V.selected));
    if (!V.selected) return;
    const s = V.data[V.selected.lane].stations[V.selected.s], role = V.selected.role;
    const close = make("button", { class: "small-button", "aria-label": "Close the details" }, "Close");
    close.onclick = closeSheet;
    const title = role === "A" || role === "B" ? `${role} of the adapter on ${s.name}` : role === "x" ? `What goes into ${s.name}` : s.name;
    const at = sheet.contains(document.activeElement) ? { ...document.activeElement.dataset } : null;
    sheet.replaceChildren(make("div", { class: "sheet-head" }, make("h3", {}, title + ", in all three lanes"), close),
        make("div", { class: "sheet-lanes" }, ways.map(([name], lane) =>
            make("div", { class: lane === V.selected.lane ? "here" : "" }, make("h4", {}, name), detail(lane)))));
    if (at && at.tensor) (sheet.querySelector(`[data-tensor="${at.tensor}"][data-of="${at.of}"]`) || close).focus();
}

// --------------------------------------------------------------------------------------------------------------- running
async function runLane(lane) {
    const names = V.data[lane] ? V.data[lane].tensors.filter(t => t.leaf).map(t => t.name) : [], small = engine("small");
    const asked = names.map((name, i) => [i, V.wishes[lane][name]]).filter(([, wish]) => wish);
    for (const [i, wish] of asked) await small.call("lane_wish", [i, wish]);
    const m = await small.call("lane_run", [V.net, lane, V.steps]);
    V.refused[lane] = m.refused ? await small.call("lane_refuse", [V.net, lane]).then(() => "", why => why.message.replace(/^.*?(?=backward\()/, "")) : "";
    for (const [i] of asked) await small.call("lane_wish", [i, 0]);
    m.stations = stationsOf(m);
    m.points = timelineOf(m);
    // after the last station that a gradient reaches, backward only lets go of what the others hold
    m.ends = 2 * m.stations.length - Math.min(m.stations.length, ...m.stations.filter(s => [s.i, s.A, s.add].some(i => m.entry.has(i))).map(s => s.number));
    m.peak = Math.max(...m.points.map(q => sum(q.live)));
    return m;
}

async function runLanes(p = null) {
    const data = [];
    for (const lane of [FULL, LORA, CUT]) data.push(await runLane(lane));
    V.data = data;
    const first = "The first step: B is 0, so no gradient comes back through it, and every dA is 0 exactly, though every dB is not. "
        + "From the second step on A learns, too. There are no moments yet: the optimizer makes them when this step ends. ";
    $("lanes-note").textContent = (V.steps === 0 ? first : `Step ${V.steps + 1} of a small training, so that B is no longer 0. `)
        + "A filled socket is a gradient that was computed; an empty one was not: no work, no bytes. Click a layer, A, B or a dot for its "
        + "formula and numbers, and freeze or free any tensor there. The thread’s workspace is left out: it is the same in all lanes.";
    show(p === null ? V.p : p);
}

// What to try in the LoRA lane: which adapters stay free, by the number of their layer from the top, and which matrix is freed too.
const tries = [["adapters as they are", () => true, null], ["the top adapter alone", top => top === 0, null], ["the lowest alone", (top, all) => top === all - 1, null],
    ["nothing trains", () => false, null], ["free one W, too", () => true, 1]];

function tryIt([, free, extra]) {
    const m = V.data[LORA], adapted = m.stations.filter(s => s.A >= 0).reverse();
    const frozen = adapted.filter((_, top) => !free(top, adapted.length)).flatMap(s => [m.ops[s.A].in[1], m.ops[s.add].in[2]]);
    V.wishes[LORA] = Object.fromEntries(frozen.map(t => [m.tensors[t].name, 2]));
    if (extra !== null) V.wishes[LORA][m.tensors[adapted[extra].W].name] = 1;
    return runLanes();
}

function play() {
    clearInterval(V.timer);
    if (V.timer) { V.timer = null; $("play").textContent = "▶ Play"; return; }
    show(0);
    $("play").textContent = "Pause";
    const end = 2 * V.data[0].stations.length;
    V.timer = setInterval(() => {
        show(V.p + 1);
        if (V.p >= end) { clearInterval(V.timer); V.timer = null; $("play").textContent = "▶ Play"; }
    }, 6000 / end);
}

function onKey(event) {
    const at = document.activeElement, tag = at && at.tagName, lane = at && at.closest && at.closest("svg.lane");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && V.selected) { closeSheet(); return; }
    if (lane && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); choose(at, true); return; }
    if (lane && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
        const list = [...lane.querySelectorAll(".hit")], to = list[list.indexOf(at) + (event.key === "ArrowDown" ? 1 : -1)];
        event.preventDefault();
        if (to) { at.setAttribute("tabindex", -1); to.setAttribute("tabindex", 0); to.focus(); }
        return;
    }
    if (tag === "TEXTAREA" || (tag === "INPUT" && at.id !== "step" && !(at.type === "radio" && at.closest("#flow")))) return; // theirs; up and down move radio buttons
    const to = { ArrowRight: V.p + 1, ArrowLeft: V.p - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(to);
}

async function startLanes() {
    picks("net", [[0, "Chain of four layers"], [1, "Transformer block"]], net => { V.net = Number(net); V.wishes = [{}, {}, {}]; V.selected = null; runLanes(1e9); });
    picks("when", [[6, "B is not 0"], [0, "The first step"]], steps => { V.steps = Number(steps); runLanes(); });
    for (const one of tries) {
        const button = make("button", { class: "small-button" }, one[0]);
        button.onclick = () => tryIt(one);
        $("tries").append(button);
    }
    $("back").onclick = () => show(V.p - 1);
    $("next").onclick = () => show(V.p + 1);
    $("step").oninput = () => show(Number($("step").value));
    $("play").onclick = play;
    $("play").hidden = matchMedia("(prefers-reduced-motion: reduce)").matches;
    $("key").replaceChildren(...kinds.map(({ kind, name }, k) => kind === "workspace" ? null : make("li", {}, swatch(k), name)).filter(li => li));
    document.addEventListener("keydown", onKey);
    addEventListener("resize", drawLanes);
    await runLanes(1e9);
}
