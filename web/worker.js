// worker.js - where the engine runs, so that the page never waits for it. A message is { id, call, args, text }: the name of an
// exported function (web/page.h), its numbers, and perhaps a text to hand over first. The answer is { id, value } or { id, error }.
// { id, train: steps } takes steps one by one and tells of each; { stop: true } ends that.
"use strict";
const TELLS = ["lane_run", "choices", "predict", "measure", "text_choose", "model_make", "train_begin", "train_step", "state", "sample"]; // JSON
let module, engine, said = ["", "", ""], stopped = false;

// What the C library asks of the system: the time, and somewhere to print. There are no files, no arguments, no environment.
const view = () => new DataView(engine.memory.buffer);
const system = {
    environ_get: () => 0,
    environ_sizes_get: (count, size) => { view().setUint32(count, 0, true); view().setUint32(size, 0, true); return 0; },
    clock_time_get: (clock, precision, at) => { view().setBigUint64(at, BigInt(Math.round(performance.now() * 1e6)), true); return 0; },
    fd_close: () => 0,
    fd_fdstat_get: (fd, at) => { new Uint8Array(engine.memory.buffer, at, 24).fill(0); return 0; },
    fd_seek: () => 70, // ESPIPE
    fd_write: (fd, pieces, count, written) => {
        let total = 0;
        for (let i = 0; i < count; i++) {
            const at = view().getUint32(pieces + 8 * i, true), length = view().getUint32(pieces + 8 * i + 4, true);
            said[fd] += new TextDecoder().decode(new Uint8Array(engine.memory.buffer, at, length));
            total += length;
        }
        view().setUint32(written, total, true);
        return 0;
    },
    // anything else is ENOSYS (52)
    proc_exit: code => { throw new Error("exit " + code); },
};

function start() {
    engine = new WebAssembly.Instance(module, { wasi_snapshot_preview1: new Proxy(system, { get: (all, name) => all[name] || (() => 52) }) }).exports;
    engine._initialize();
}

function textAt(at) {
    const bytes = new Uint8Array(engine.memory.buffer, at);
    return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
}

function handOver(text) {
    const bytes = new TextEncoder().encode(text), at = engine.room(bytes.length); // which may move the memory
    new Uint8Array(engine.memory.buffer).set(bytes, at);
}

// Calls the engine. If it stops, what it said on stderr is the reason, and a new one takes its place.
function call(name, args = [], text = null) {
    if (!engine) start();
    said = ["", "", ""];
    try {
        if (text !== null) handOver(text);
        const value = engine[name](...args);
        if (name === "claims") return { found: value, text: said[1] };
        if (!TELLS.includes(name)) return value;
        const answer = JSON.parse(textAt(value));
        if (answer.error) throw answer;
        return answer;
    } catch (why) {
        if (why.error) throw new Error(why.error);
        engine = null;
        throw new Error(said[2].trim() || String(why));
    }
}

async function train(id, steps) {
    stopped = false;
    let answer = null;
    for (let i = 0; i < steps && !stopped; i++) {
        answer = call("train_step");
        postMessage({ id, step: answer });
        await new Promise(resolve => setTimeout(resolve, 0)); // so that a stop is heard
    }
    return answer;
}

onmessage = async ({ data }) => {
    if (data.module) { module = data.module; return; }
    if (data.stop) { stopped = true; return; }
    try {
        postMessage({ id: data.id, value: data.train ? await train(data.id, data.train) : call(data.call, data.args, data.text) });
    } catch (why) {
        postMessage({ id: data.id, error: why.message });
    }
};
