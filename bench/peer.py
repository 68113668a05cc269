#!/usr/bin/env python3
"""The same model in PyTorch, for the bench to measure in turn with its own. The bench starts this and says what to do.

    python3 bench/peer.py DIR THREADS      # the protocol is at `typedef struct Peer` in bench.h

DIR/small and DIR/large hold what the bench wrote: config.json, model.safetensors, and 16 batches of ids and targets. The model is
GPT-2's as nanoGPT trains it on a CPU: eager, PyTorch's fused attention, fused AdamW, the gradient's norm clipped at 1.
Needs torch; for LoRA also peft. `step KIND` times whole training steps, without reading the loss back; or only the
products of one (Products).
"""
import json
import pathlib
import sys
import time

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as missing:
    print(f"skipped {sys.executable} has no torch ({missing}). To compare: python3 -m venv build/venv, "
          "build/venv/bin/pip install torch peft, make bench", flush=True)
    sys.exit(0)

BATCHES, CHECKED = 16, 4  # as in bench.h
directory = pathlib.Path(sys.argv[1])


class Attention(nn.Module):
    def __init__(self, C, heads):
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(C, 3 * C)
        self.c_proj = nn.Linear(C, C)

    def forward(self, x):  # [B,T,C]
        B, T, C = x.shape
        q, k, v = (y.view(B, T, self.heads, C // self.heads).transpose(1, 2) for y in self.c_attn(x).split(C, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    def __init__(self, C):
        super().__init__()
        self.c_fc = nn.Linear(C, 4 * C)
        self.c_proj = nn.Linear(4 * C, C)

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, C, heads):
        super().__init__()
        self.ln_1, self.attn, self.ln_2, self.mlp = nn.LayerNorm(C), Attention(C, heads), nn.LayerNorm(C), MLP(C)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        C, heads = config["n_embd"], config["n_head"]
        self.T = config["n_positions"]
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(config["vocab_size"], C), "wpe": nn.Embedding(self.T, C),
            "h": nn.ModuleList(Block(C, heads) for _ in range(config["n_layer"])), "ln_f": nn.LayerNorm(C)})

    def hidden(self, ids):
        x = self.transformer.wte(ids) + self.transformer.wpe(torch.arange(ids.shape[1]))
        for block in self.transformer.h:
            x = block(x)
        return self.transformer.ln_f(x)

    def forward(self, ids, targets=None):
        """The mean loss, or without targets the logits after the last position."""
        if targets is None:
            return F.linear(self.hidden(ids)[:, -1], self.transformer.wte.weight)
        logits = F.linear(self.hidden(ids), self.transformer.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def read_safetensors(path):
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    assert all(t["dtype"] == "F32" for t in header.values()), f"{path}: not float"
    tensors = {}
    for name, t in header.items():
        begin, end = t["data_offsets"]
        tensors[name] = torch.frombuffer(bytearray(raw[start + begin:start + end]), dtype=torch.float32).view(t["shape"])
    return tensors


class Trainer:
    """A model with the bench's weights, the optimizer, and the batches that it goes round."""

    def __init__(self, kind):
        where = directory / ("large" if kind == "large" else "small")
        config = json.loads((where / "config.json").read_text())
        self.model = GPT(config)
        weights = read_safetensors(where / "model.safetensors")
        linear = [name for name, w in weights.items() if ".h." in name and w.dim() == 2]  # [in,out] there, [out,in] here
        self.model.load_state_dict({name: w.t() if name in linear else w for name, w in weights.items()})
        if kind.startswith("lora"):
            import peft
            targets = ["c_attn"] if kind == "lora_c_attn" else ["c_attn", "c_fc", "c_proj"]
            self.model = peft.get_peft_model(self.model, peft.LoraConfig(r=8, lora_alpha=16, target_modules=targets))
            peft.set_peft_model_state_dict(self.model, read_safetensors(where / kind / "adapter_model.safetensors"))
        self.run = torch.compile(self.model) if kind == "compile" else self.model
        self.bf16 = kind == "bf16"  # products and attention in bfloat16, weights and the rest in float32
        self.trained = trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW([{"params": [p for p in trained if p.dim() >= 2], "weight_decay": 0.1},
                                            {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0}],
                                           lr=1e-3, betas=(0.9, 0.99), eps=1e-8, fused=True)
        numbers = torch.frombuffer(bytearray((where / "batches").read_bytes()), dtype=torch.int32).long()
        self.batches = numbers.view(BATCHES, 2, -1, config["n_positions"])
        self.index = 0

    def step(self):
        ids, targets = self.batches[self.index % BATCHES]
        self.index += 1
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.run(ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def seconds(self):
        start = time.perf_counter()
        self.step()
        return time.perf_counter() - start

    def bytes(self):
        """Weights and moments, and the most that was held beside them in one step, as PyTorch's allocator reports it."""
        from torch.profiler import ProfilerActivity, profile
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            self.step()
        live = peak = 0
        events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
        for event in sorted(events, key=lambda e: e.start_ns()):
            live += event.nbytes()
            peak = max(peak, live)
        assert peak > 0, "the profiler saw no memory"
        moments = [t for state in self.optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
        held = list(self.model.parameters()) + moments
        return peak + sum(t.numel() * t.element_size() for t in held)


class Products:
    """The products of a full step's linear layers and head, and nothing else, each in memory of its own: what PyTorch's library
    takes for them."""

    def __init__(self, where):
        config = json.loads((where / "config.json").read_text())
        C, T = config["n_embd"], config["n_positions"]
        N = (where / "batches").stat().st_size // (BATCHES * 2 * 4 * T) * T
        matrices = [(C, 3 * C), (C, C), (C, 4 * C), (4 * C, C)] * config["n_layer"] + [(C, config["vocab_size"])]
        random = lambda *shape: torch.rand(shape) - 0.5
        self.layers = [(random(N, i), random(o, i), random(N, o), random(N, o), random(N, i), random(o, i))
                       for i, o in matrices]

    @torch.no_grad()
    def step(self):
        for x, w, y, dy, dx, dw in self.layers:
            torch.mm(x, w.t(), out=y)
        for x, w, y, dy, dx, dw in reversed(self.layers):
            torch.mm(dy.t(), x, out=dw)
            torch.mm(dy, w, out=dx)

    seconds = Trainer.seconds


@torch.no_grad()
def sample(model, count):
    """As nanoGPT does: the whole context again for every character."""
    ids = torch.zeros((1, 1), dtype=torch.long)
    for _ in range(count):
        logits = model(ids[:, -model.T:]) / 0.8
        ids = torch.cat((ids, torch.multinomial(F.softmax(logits, dim=-1), num_samples=1)), dim=1)
    return ids


def answer(question):
    words = question.split()
    if words[0] == "open":
        trainer = Trainer(words[1])
        losses = [trainer.step().item() for _ in range(CHECKED)]
        trainers[words[1]] = trainer  # only one that works
        return "loss " + " ".join(f"{x:.9g}" for x in losses)
    if words[0] == "step":
        if words[1].startswith("products") and words[1] not in trainers:
            trainers[words[1]] = Products(directory / ("large" if words[1] == "products_large" else "small"))
        trainer = trainers[words[1]]
        trainer.step()
        return "seconds " + " ".join(f"{trainer.seconds():.9f}" for _ in range(int(words[2])))
    if words[0] == "sample":
        model = trainers["full"].model
        sample(model, 2)
        start = time.perf_counter()
        sample(model, int(words[1]))
        return f"seconds {time.perf_counter() - start:.9f}"
    if words[0] == "bytes":
        return f"bytes {trainers[words[1]].bytes()}"
    return f"skipped bench/peer.py does not know: {question}"


trainers = {}
torch.manual_seed(1337)
torch.set_num_threads(int(sys.argv[2]))
print(f"ready torch {torch.__version__}, {torch.get_num_threads()} threads, fused AdamW, fused attention", flush=True)
for line in sys.stdin:
    try:
        print(answer(line.strip()), flush=True)
    except Exception as e:  # this one cannot be measured; the next perhaps can
        print(f"skipped {type(e).__name__}: {' '.join(str(e).split())}"[:200], flush=True)
