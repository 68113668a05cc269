#!/usr/bin/env python3
"""The same model in JAX, one jitted function for each step: the counterpart of bench/peer.py, with its protocol and its files.

    python3 bench/peer_jax.py DIR THREADS

float32, on the CPU. AdamW and the clipped norm are written out, as optax would do them.
"""
import json
import os
import pathlib
import sys
import time

os.environ["JAX_PLATFORMS"] = "cpu"
threads = int(sys.argv[2])
if hasattr(os, "sched_setaffinity"):  # XLA takes as many threads as it may have cores
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
try:
    import jax
    import jax.numpy as jnp
    import numpy as np
except ImportError as missing:
    print(f"skipped {sys.executable} has no jax ({missing})", flush=True)
    sys.exit(0)

BATCHES, CHECKED = 16, 4  # as in bench.h
where = pathlib.Path(sys.argv[1]) / "small"


def read_safetensors(path):
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    return {name: jnp.array(np.frombuffer(raw[start + t["data_offsets"][0]:start + t["data_offsets"][1]], np.float32).reshape(t["shape"]))
            for name, t in header.items()}


def norm(w, name, x):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * w[name + ".weight"] + w[name + ".bias"]


def loss_of(w, ids, targets, config):
    C, H = config["n_embd"], config["n_head"]
    (B, T), linear = ids.shape, lambda name, x: x @ w[name + ".weight"] + w[name + ".bias"]
    x = w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][:T]
    mask = jnp.tril(jnp.ones((T, T), bool))
    for i in range(config["n_layer"]):
        at = f"transformer.h.{i}."
        q, k, v = (y.reshape(B, T, H, C // H).transpose(0, 2, 1, 3)
                   for y in jnp.split(linear(at + "attn.c_attn", norm(w, at + "ln_1", x)), 3, axis=-1))
        scores = jnp.where(mask, q @ k.transpose(0, 1, 3, 2) / (C // H) ** 0.5, -jnp.inf)
        attended = (jax.nn.softmax(scores, axis=-1) @ v).transpose(0, 2, 1, 3).reshape(B, T, C)
        x = x + linear(at + "attn.c_proj", attended)
        h = jax.nn.gelu(linear(at + "mlp.c_fc", norm(w, at + "ln_2", x)), approximate=True)
        x = x + linear(at + "mlp.c_proj", h)
    logits = norm(w, "transformer.ln_f", x) @ w["transformer.wte.weight"].T
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1).mean()


def step_of(config):
    def step(w, m, v, count, ids, targets):
        loss, g = jax.value_and_grad(loss_of)(w, ids, targets, config)
        length = jnp.sqrt(sum(jnp.sum(x * x) for x in g.values()))
        clip, count, b1, b2, rate = jnp.minimum(1, 1 / length), count + 1, 0.9, 0.99, 1e-3
        g = {n: x * clip for n, x in g.items()}
        m = {n: b1 * m[n] + (1 - b1) * g[n] for n in w}
        v = {n: b2 * v[n] + (1 - b2) * g[n] * g[n] for n in w}
        w = {n: w[n] * (1 - rate * 0.1 if w[n].ndim >= 2 else 1)
             - rate * (m[n] / (1 - b1 ** count)) / (jnp.sqrt(v[n] / (1 - b2 ** count)) + 1e-8) for n in w}
        return w, m, v, count, loss
    return jax.jit(step, donate_argnums=(0, 1, 2))


class Trainer:
    def __init__(self):
        config = json.loads((where / "config.json").read_text())
        w = read_safetensors(where / "model.safetensors")
        zeros = lambda: {n: jnp.zeros_like(x) for n, x in w.items()}
        self.state, self.run, self.index = (w, zeros(), zeros(), jnp.float32(0)), step_of(config), 0
        numbers = np.frombuffer((where / "batches").read_bytes(), np.int32)
        self.batches = jnp.array(numbers.reshape(BATCHES, 2, -1, config["n_positions"]))

    def step(self):
        ids, targets = self.batches[self.index % BATCHES]
        self.index += 1
        *self.state, loss = self.run(*self.state, ids, targets)
        return jax.block_until_ready(loss)

    def seconds(self):
        start = time.perf_counter()
        self.step()
        jax.block_until_ready(self.state)
        return time.perf_counter() - start


def answer(question):
    global trainer
    words = question.split()
    if words[:2] == ["open", "full"]:
        trainer = Trainer()
        return "loss " + " ".join(f"{float(trainer.step()):.9g}" for _ in range(CHECKED))
    if words[:2] == ["step", "full"]:
        trainer.step()
        return "seconds " + " ".join(f"{trainer.seconds():.9f}" for _ in range(int(words[2])))
    return f"skipped bench/peer_jax.py does not know: {question}"


trainer = None
print(f"ready jax {jax.__version__}, one jitted step", flush=True)
for line in sys.stdin:
    try:
        print(answer(line.strip()), flush=True)
    except Exception as e:
        print(f"skipped {type(e).__name__}: {' '.join(str(e).split())}"[:200], flush=True)
