#!/usr/bin/env python3
"""Checks meltwater's numbers against PyTorch: logits, loss, every gradient, and 50 steps of AdamW; full, and LoRA in PEFT's own library.

    pip install torch transformers peft safetensors      # torch: the CPU build will do
    python3 tests/against_torch.py

The reference runs in double on the very weights that meltwater has, whichever type those are of, so what is measured is meltwater's own
error. One line for each check, then `N passed, N failed`; exit status 1 if any failed. Without the packages: one line that says so, and 0.
"""
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
try:
    import peft
    import safetensors.torch
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: against_torch needs the Python packages torch, transformers, peft and safetensors ({missing})")
    sys.exit(0)

root = pathlib.Path(__file__).resolve().parent.parent
BOUND = {"float": 1e-5, "double": 1e-10}  # the largest difference of a tensor, relative to its largest number
LOSS_BOUND = 1e-4                         # of 50 steps
passed = failed = 0
worst = {}


def check(name, good, detail=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good or detail.startswith("("):
        print(f"{'ok  ' if good else 'FAIL'} {name}" + (f" {detail}" if good else f"\n     {detail}"), flush=True)


def run(real, *arguments, stdin=""):
    """The helper's output, or an exception with its message."""
    result = subprocess.run([f"{root}/build/torch-{real}/tests/torch_helper", *map(str, arguments)], input=stdin, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(result.stderr.strip() or f"exit status {result.returncode}")
    return result.stdout


def hint(ours, theirs):
    """What a wrong gradient looks like, if the whole tensor does."""
    def fits(expected):
        return expected.shape == ours.shape and float((ours - expected).abs().max()) <= 1e-3 * float(theirs.abs().max())
    ratio = float((ours * theirs).sum() / (theirs * theirs).sum())
    if not torch.isfinite(ours).all():
        return "NaN or infinity: a division by 0, or memory that nobody wrote?"
    if fits(0 * theirs):
        return "all zero: is the path cut, or a flag not handed on?"
    if fits(-theirs):
        return "the opposite sign"
    if theirs.dim() == 2 and theirs.numel() == ours.numel() and (fits(theirs.T) or fits(theirs.T.reshape(ours.shape))):
        return "the transposed pattern: are rows and columns exchanged?"
    if not fits(ratio * theirs):
        return "no simple pattern"
    if abs(ratio - 2) < 1e-3:
        return "twice as much: added twice, or not zeroed?"
    if round(1 / ratio) >= 2 and abs(ratio * round(1 / ratio) - 1) < 1e-3:
        return f"1/{round(1 / ratio)} of it: is one of {round(1 / ratio)} uses left, by = for +=? A mean for a sum (1 / N)? A scale missed (alpha / r)?"
    if round(ratio) >= 3 and abs(ratio / round(ratio) - 1) < 1e-3:
        return f"{round(ratio)} times as much: a sum for a mean (N)? A scale missed (alpha / r)?"
    return f"every entry is {ratio:.6g} times what it should be: a scale missed (alpha / r)?"


def check_hints():
    """Gradients that PyTorch gives when it is asked for something else than sum(1.5 (xw + xw + xw)); each must get its hint."""
    w = torch.randn(2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def gradient(factor=1.5, uses=3, reduce=torch.sum, passes=1):
        x = torch.ones(2, 5, dtype=torch.float64, requires_grad=True)
        for _ in range(passes):
            reduce(factor * sum(x * w for _ in range(uses))).backward()
        return x.grad

    right = gradient()
    for ours, said in ((gradient(factor=0), "path cut"), (gradient(uses=1), "one of 3 uses"), (gradient(passes=2), "added twice"), (-right, "opposite sign"),
                       (right.T.reshape(2, 5), "transposed"), (gradient(reduce=torch.mean), "1/10 of it"), (10 * right, "a sum for a mean"),
                       (gradient(factor=1), "0.666667 times what it should be: a scale missed"), (right + w.T.reshape(2, 5), "no simple pattern")):
        check(f"the hint for a wrong gradient: {said}", said in hint(ours, right), hint(ours, right))


def compare(real, what, name, ours, theirs):
    """One tensor: the largest difference relative to the largest number."""
    ours, theirs = ours.double(), theirs.double()
    if ours.shape != theirs.shape:
        return check(f"{what}: {name}", False, f"ours is {list(ours.shape)}, PyTorch's {list(theirs.shape)}")
    scale, difference = float(theirs.abs().max()), (ours - theirs).abs()
    if scale < 1e-12:  # nothing to be relative to, as where a context of 1 leaves queries and keys without effect
        return check(f"{what}: {name}", float(ours.abs().max()) < BOUND[real] / 10, f"PyTorch's is 0, ours has numbers up to {float(ours.abs().max()):.2e}")
    relative = float(difference.max()) / scale
    kind = "loss" if name == "loss" else "logits" if name == "logits" else "gradients"
    worst[real, kind] = max(worst.get((real, kind), 0), relative)
    at = torch.unravel_index(torch.where(torch.isnan(difference), math.inf, difference).argmax(), ours.shape)
    index = ",".join(str(int(i)) for i in at)
    check(f"{what}: {name}", relative <= BOUND[real],
          f"at [{index}]: ours {float(ours[at]):.10g}, PyTorch {float(theirs[at]):.10g}, ratio {float(ours[at] / theirs[at]):.6g}\n"
          f"     {int((difference > BOUND[real] * scale).sum())} of {ours.numel()} entries differ by more than {BOUND[real]:.0e} of the largest, the worst by {relative:.2e}\n"
          f"     hint: {hint(ours, theirs)}")


def load_base(directory):
    """In double; double holds every float. Files with doubles are read again, for loading may go through float."""
    model = transformers.GPT2LMHeadModel.from_pretrained(directory, attn_implementation="eager", dtype=torch.float64).eval()
    stored = safetensors.torch.load_file(directory / "model.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(stored[name])
    return model


def load_adapter(directory, adapter):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.PeftModel.from_pretrained(load_base(directory), adapter, is_trainable=True).double().eval()
        peft.set_peft_model_state_dict(model, safetensors.torch.load_file(adapter / "adapter_model.safetensors"))
    return model


def loss_of(model, ids, targets):
    logits = model(torch.tensor(ids)).logits
    return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten())


def our_name(name):
    """PEFT's name of a parameter -> ours, and whether ours is its transpose."""
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    for theirs, ours in ((".lora_A.default.weight", ".A"), (".lora_B.default.weight", ".B")):
        if name.endswith(theirs):
            return name.removesuffix(theirs) + ours, True
    return name, False


def batch_of(B, T, V, seed):
    numbers = torch.randint(0, V, (2, B, T), generator=torch.Generator().manual_seed(seed))
    return numbers[0].tolist(), numbers[1].tolist()


def flat(*nested):
    return " ".join(str(i) for rows in nested for row in rows for i in row)


def gradients(d, real, what, model_dir, adapter, V, B, T):
    """Logits, loss and every gradient of one batch; nothing more and nothing less has a gradient."""
    ids, targets = batch_of(B, T, V, 7)
    run(real, "gradients", model_dir, adapter or "-", d / "ours", B, T, stdin=flat(ids, targets))
    ours = safetensors.torch.load_file(d / "ours")
    model = load_adapter(model_dir, adapter) if adapter else load_base(model_dir)
    logits, loss = loss_of(model, ids, targets)
    loss.backward()
    theirs = {"logits": logits.detach(), "loss": loss.detach().reshape(1)}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            name, transposed = our_name(name)
            theirs[name] = parameter.grad.T if transposed else parameter.grad
    check(f"{what}: the same tensors have a gradient", ours.keys() == theirs.keys(), f"{sorted(ours.keys() ^ theirs.keys())}")
    for name in sorted(ours.keys() & theirs.keys()):
        compare(real, what, name, ours[name], theirs[name])
    return len(theirs) - 2


def train(d, real, what, model_dir, adapter, V, B, T):
    """50 steps on the same batches: clipping, warm-up, decay of the rate and of the weights."""
    steps, rate, least, warm_up, decay, betas, clip = 50, 3e-3 if adapter else 1e-3, 1e-4, 10, 0.1, (0.9, 0.99), 0.2 if adapter else 0.8
    text = [(3 * i * i + 5 * (i // 7)) % V for i in range(3000)]
    lines = run(real, "train", model_dir, adapter or "-", d / "trained", B, steps, rate, least, warm_up, decay, *betas, clip,
                stdin=" ".join(map(str, text))).splitlines()
    model = load_adapter(model_dir, adapter) if adapter else load_base(model_dir)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([{"params": [p for p in trained if p.dim() >= 2], "weight_decay": decay},
                                   {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0}], lr=rate, betas=betas, eps=1e-8)
    off, norm_off, rate_off, clipped = 0, 0, 0, 0
    for step, line in enumerate(lines):
        numbers = line.split()
        loss, norm, our_rate = map(float, numbers[:3])
        batch = torch.tensor([int(i) for i in numbers[3:]]).reshape(2, B, T)
        if step < warm_up:  # nanoGPT's schedule
            now = rate * (step + 1) / (warm_up + 1)
        else:
            now = least + 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up))) * (rate - least)
        for group in optimizer.param_groups:
            group["lr"] = now
        optimizer.zero_grad()
        _, their_loss = loss_of(model, batch[0].tolist(), batch[1].tolist())
        their_loss.backward()
        their_norm = float(torch.nn.utils.clip_grad_norm_(trained, clip))
        optimizer.step()
        clipped += their_norm > clip
        off = max(off, abs(loss - float(their_loss.detach())))
        norm_off = max(norm_off, abs(norm / their_norm - 1))
        rate_off = max(rate_off, abs(our_rate / now - 1))
    first, last = (float(lines[i].split()[0]) for i in (0, -1))
    check(f"{what}: 50 steps", len(lines) == steps and off <= LOSS_BOUND, f"(loss {first:.4f} to {last:.4f}, never apart by more than {off:.1e})")
    check(f"{what}: the gradient's norm", norm_off <= 1e-3, f"apart by {norm_off:.1e}")
    check(f"{what}: the rate", rate_off <= 1e-12, f"apart by {rate_off:.1e}")
    check(f"{what}: some steps are clipped", clipped > 0, "none: the check could not fail")
    check(f"{what}: the loss falls", last < first - 0.02, f"from {first} to {last}")
    ours = safetensors.torch.load_file(d / "trained")
    moved = 0
    start = dict((load_adapter(model_dir, adapter) if adapter else load_base(model_dir)).named_parameters())
    for theirs, parameter in model.named_parameters():
        name, transposed = our_name(theirs)
        mine, now, before = ours[name].double(), parameter.detach(), start[theirs].detach()
        now, before = (now.T, before.T) if transposed else (now, before)
        if name.endswith("c_attn.bias"):  # the keys' bias changes no softmax: its gradient is rounding, and AdamW makes steps of it
            C = len(now) // 3
            mine, now, before = (torch.cat([t[:C], t[2 * C:]]) for t in (mine, now, before))
        if not parameter.requires_grad:
            check(f"{what}: frozen {name}", torch.equal(mine, before), "it has changed")
            continue
        moved += 1
        path = float((now - before).abs().max())
        apart = float((mine - now).abs().max())
        check(f"{what}: {name} after 50 steps", path > 1e-4 and apart <= 0.02 * path, f"PyTorch moved it by {path:.2e}, ours is apart by {apart:.2e}")
    check(f"{what}: tensors that trained", moved > 0)


#          V   T  L  H   C  B
SHAPES = {"the usual": (22, 32, 3, 2, 16, 3),
          "1 layer": (22, 17, 1, 2, 16, 2),
          "1 head": (22, 17, 2, 1, 24, 2),
          "a head for each number": (9, 11, 2, 6, 6, 2),
          "context 1": (22, 1, 2, 2, 16, 5),
          "context 1, batch 1": (5, 1, 1, 1, 4, 1),
          "width 7": (11, 13, 2, 1, 7, 3),
          "width 39": (23, 19, 2, 3, 39, 2),
          "vocabulary 2": (2, 12, 2, 2, 12, 4),
          "vocabulary 1000": (1000, 20, 2, 4, 20, 3),
          "a long context": (13, 150, 1, 2, 18, 2),
          "wide": (65, 40, 2, 4, 132, 2)}


def main():
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}")
    torch.set_num_threads(1)
    check_hints()
    transformers.utils.logging.disable_progress_bar()
    for real in BOUND:
        subprocess.run(["make", "-s", "-C", root, f"REAL={real}", f"BUILD=build/torch-{real}", f"build/torch-{real}/tests/torch_helper"], check=True)
    with tempfile.TemporaryDirectory() as name:
        d = pathlib.Path(name)
        for real in BOUND:
            for shape, (V, T, L, H, C, B) in SHAPES.items():
                what, before = f"{real}, {shape}", failed
                try:
                    run(real, "make", d / "model", 3, V, T, L, H, C)
                    count = gradients(d, real, what, d / "model", None, V, B, T)
                    for fresh in (0, 1):
                        run(real, "attach", d / "model", d / "adapter", 5, 3 if C > 4 else 1, 5, "c_attn,c_proj,c_fc" if fresh else "c_attn,mlp.c_proj", fresh)
                        count += gradients(d, real, f"{what}, {'a fresh adapter on every layer' if fresh else 'an adapter'}", d / "model", d / "adapter", V, B, T)
                    check(what, failed == before, f"({count} gradients, full and LoRA)")
                    if shape in ("the usual", "width 39"):
                        train(d, real, what, d / "model", None, V, B, T)
                        run(real, "attach", d / "model", d / "adapter", 5, 3, 5, "c_attn,mlp.c_proj", 0)
                        train(d, real, f"{what}, an adapter", d / "model", d / "adapter", V, B, T)
                        torch.manual_seed(4)
                        with warnings.catch_warnings():
                            warnings.simplefilter("ignore")
                            theirs = peft.get_peft_model(load_base(d / "model"), peft.LoraConfig(r=4, lora_alpha=6, target_modules=["c_attn", "c_proj", "c_fc"], task_type="CAUSAL_LM"))
                            theirs.to(torch.float32 if real == "float" else torch.float64).save_pretrained(d / "theirs")
                        gradients(d, real, f"{what}, PEFT's adapter", d / "model", d / "theirs", V, B, T)
                        train(d, real, f"{what}, PEFT's adapter", d / "model", d / "theirs", V, B, T)
                except Exception as e:  # one broken shape must not hide the others
                    check(f"{what} ran to its end", False, f"{type(e).__name__}: {e}")
    print("largest relative difference: " + ", ".join(f"{kind} in {real} {d:.1e}" for (real, kind), d in worst.items()))
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)


main()
