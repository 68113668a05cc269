// page.js - what the parts of the page share: the engine in its workers, numbers for people, elements.
"use strict";
const $ = id => document.getElementById(id);

// ------------------------------------------------------------------------------------------------------------- the engine
let compiled = null; // the module, once for all workers
async function compile() {
    const bytes = Uint8Array.from(atob($("engine").textContent.trim()), c => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return WebAssembly.compile(await new Response(stream).arrayBuffer());
}

// One engine with memory of its own: engine.call("predict", [numbers], "text") is a promise of the answer.
class Engine {
    constructor() {
        this.waiting = new Map();
        this.number = 0;
        this.ready = (compiled ||= compile()).then(module => {
            this.worker = new Worker(Engine.url ||= URL.createObjectURL(new Blob([$("worker").textContent], { type: "text/javascript" })));
            this.worker.onmessage = ({ data }) => this.answer(data);
            this.worker.onerror = event => trouble(event.message);
            this.worker.postMessage({ module });
        });
    }
    answer(data) {
        const { resolve, reject, onstep } = this.waiting.get(data.id);
        if (data.step) { onstep(data.step); return; }
        this.waiting.delete(data.id);
        if ("error" in data) reject(new Error(data.error));
        else resolve(data.value);
    }
    async send(message, onstep) {
        await this.ready;
        const id = ++this.number;
        return new Promise((resolve, reject) => {
            this.waiting.set(id, { resolve, reject, onstep });
            this.worker.postMessage({ id, ...message });
        });
    }
    call(name, args = [], text = null) { return this.send({ call: name, args, text }); }
    train(steps, onstep) { return this.send({ train: steps }, onstep); }
    stop() { this.worker.postMessage({ stop: true }); }
}
const engines = {}; // by what they do, so that none waits for another
const engine = name => engines[name] ||= new Engine();

function trouble(message) {
    $("trouble").hidden = false;
    $("trouble").textContent = "The engine could not run here: " + message;
}

// --------------------------------------------------------------------------------------------------------------- numbers
const sum = list => list.reduce((a, b) => a + b, 0);
const thousands = n => String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, ",");
function scaled(n, units) {
    let i = 0;
    for (; n >= 999.95 && i < units.length - 1; i++) n /= 1000;
    return (i ? n.toFixed(n < 99.95 ? 1 : 0) : thousands(n)) + " " + units[i];
}
const bytes = n => scaled(n, ["B", "kB", "MB", "GB", "TB", "PB"]);
const count = n => n < 1e6 ? thousands(n) : scaled(n, ["", "thousand", "million", "billion"]);
const norm = n => n === 0 ? "0 exactly" : Number(n) >= 1000 ? Number(n).toExponential(1) : String(Number(Number(n).toPrecision(3)));
const powers = n => n >= 1024 && n % 1024 === 0 ? n / 1024 + " Ki" : thousands(n); // where a power of two is meant

// -------------------------------------------------------------------------------------------------------------- elements
function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== false && value !== undefined) element.setAttribute(name, value);
    element.append(...children.flat(3).filter(child => child !== null && child !== false && child !== undefined));
    return element;
}
// make("td", { class: "x" }, "text", child, ...): text is always text, never markup.
const make = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
const draw = (name, attributes = {}, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
const swatch = k => make("span", { class: "swatch", style: `background:var(--k${k})` });

// Fills a table: heads of its columns; rows, each the head of the row and its cells. `words`: the last column is text.
function table(id, heads, rows, words = false) {
    const last = (list, i) => words && i === list.length - 1 ? "words" : null;
    $(id).replaceChildren(make("thead", {}, make("tr", {}, heads.map((head, i) => make("th", { scope: "col", class: last(heads, i) }, head)))),
        make("tbody", {}, rows.map(([head, ...cells]) =>
            make("tr", {}, make("th", { scope: "row" }, head), cells.map((cell, i) => make("td", { class: last(cells, i) }, cell))))));
}

// Radio buttons that look like buttons, behind the fieldset's legend; calls chosen(value).
function picks(id, options, chosen, first = options[0][0]) {
    const legend = $(id).querySelector("legend");
    $(id).replaceChildren(...(legend ? [legend] : []), ...options.map(([value, text, title]) => {
        const input = make("input", { type: "radio", name: id, value });
        input.checked = value === first;
        input.addEventListener("change", () => chosen(value));
        return make("label", { class: "pick", title: title || null }, input, text);
    }));
}
const picked = id => { const input = $(id).querySelector("input:checked"); return input && input.value; };

// The kinds of bytes: one name, one colour, one order (web/kinds.csv).
const kinds = $("kinds-csv").textContent.trim().split("\n").slice(1).map(line => {
    const [kind, name, light, dark] = line.split(",");
    return { kind, name, light, dark };
});
const K = Object.fromEntries(kinds.map(({ kind }, k) => [kind, k]));
const colours = shade => kinds.map((kind, k) => `--k${k}:${kind[shade]}`).join(";");
document.head.append(make("style", {}, `:root{${colours("light")}}@media (prefers-color-scheme:dark){:root{${colours("dark")}}}`));

// Bars of bytes by kind, beside or above each other.
const stack = (values, most, label = null) => make("div", label ? { class: "stack", role: "img", "aria-label": label } : { class: "stack", "aria-hidden": "true" },
    values.map((value, k) => value > 0 ? make("i", { style: `width:${100 * value / most}%;background:var(--k${k})`, title: `${kinds[k].name}: ${bytes(value)}` }) : null));

async function start() {
    try {
        const choices = await engine("small").call("choices");
        if (String(choices.kinds) !== String(kinds.map(k => k.kind))) throw new Error("web/kinds.csv does not list the engine's kinds");
        await startLanes();
        startSaves(choices);
        startTrain(choices);
        startClaims();
        document.documentElement.dataset.ready = "1";
    } catch (why) {
        trouble(why.message);
        throw why;
    }
}
