#!/usr/bin/env python3
"""Checks that checkpoints go both ways between meltwater and Hugging Face transformers, PEFT, tokenizers and safetensors.

    pip install torch transformers peft safetensors tokenizers      # torch: the CPU build will do
    python3 tests/interop.py [HELPER]

HELPER is tests/interop_helper.c, compiled; without it, make builds one. Everything is made here, small and at random; nothing is downloaded.
One line for each check, then `N passed, N failed`; exit status 1 if any failed. Without the packages: one line that says so, and 0.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false")
try:
    import peft
    import safetensors
    import safetensors.torch
    import tokenizers
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: interop needs the Python packages torch, transformers, peft, safetensors and tokenizers ({missing})")
    sys.exit(0)

root = pathlib.Path(__file__).resolve().parent.parent
V, T, L, H, C = 22, 32, 3, 2, 16
CHARACTERS = sorted("\t\n\r !\"\\abcdefghij\u00e9\u0301\u2028\u20ac\U0001f600")  # V of them, some that JSON and tokenizers could stumble over
TEXT = "abc  def\n\ngh\tij \"\\!\r\n\u00e9e\u0301\u2028\u20ac \U0001f600\U0001f600 .".replace(".", "")
IDS = [(7 * i * i + 3 * i + 5) % V for i in range(T)]
passed = failed = 0


def check(name, good, detail=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(f"{'ok  ' if good else 'FAIL'} {name}" + ("" if good or not detail else f": {detail}"), flush=True)


def run(*arguments, stdin=""):
    """The helper's output, or an exception with its message."""
    result = subprocess.run([helper, *map(str, arguments)], input=stdin.encode(), capture_output=True)
    if result.returncode:
        raise RuntimeError(result.stderr.decode().strip() or f"exit status {result.returncode}")
    return result.stdout.decode()


def ours(model, adapter="-", merge=0):
    lines = run("logits", model, adapter, merge, *IDS).splitlines()
    return torch.tensor([[float(x) for x in line.split()] for line in lines])


@torch.no_grad()
def theirs(model):
    return model(torch.tensor([IDS])).logits[0].float()


def distance(a, b):
    return float((a - b).abs().max() / b.abs().max()) if a.shape == b.shape else float("inf")


def same(name, a, b, bound=1e-5):
    d = distance(a, b)
    check(name, d <= bound, f"relative difference {d:.2e}")


def load_base(directory):
    """In float32, whatever is stored, so that logits can be compared; and what was missing or unexpected."""
    model, info = transformers.GPT2LMHeadModel.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    return model.eval(), {k: v for k, v in info.items() if v}


def load_adapter(base, directory):
    """The adapted model, and every warning that PEFT gave."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(load_base(base)[0], directory).eval()
    return model, [str(w.message) for w in caught if not issubclass(w.category, (DeprecationWarning, FutureWarning))]


def refused(name, *arguments, word=""):
    try:
        run(*arguments)
        check(f"refused: {name}", False, "it was accepted")
    except RuntimeError as e:
        check(f"refused: {name}", "\n" not in str(e) and word in str(e), str(e))


def model_out(d):
    """Our model, in transformers."""
    run("make", d / "model", 1, V, T, L, H, C, stdin="".join(CHARACTERS))
    model, problems = load_base(d / "model")
    check("our model: no tensor missing or unexpected in transformers", not problems, problems)
    same("our model: the same logits in transformers", theirs(model), ours(d / "model"))
    check("our model: dtype float32", model.config.dtype in (torch.float32, "float32"), model.config.dtype)
    output = model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=4, do_sample=False, pad_token_id=0)
    check("our model: transformers can generate with it", output.shape == (1, 7), output.shape)
    tensors = safetensors.torch.load_file(d / "model/model.safetensors")
    safetensors.torch.save_file(tensors, d / "again.safetensors", metadata={"format": "pt"})
    check("our model.safetensors is that of safetensors.torch.save_file, byte for byte",
          (d / "again.safetensors").read_bytes() == (d / "model/model.safetensors").read_bytes())

    tokenizer = transformers.AutoTokenizer.from_pretrained(d / "model")
    ids = tokenizer(TEXT)["input_ids"]
    check("our tokenizer: a token is a character", ids == [CHARACTERS.index(c) for c in TEXT], ids)
    check("our tokenizer: the same tokens here", ids == list(map(int, run("encode", d / "model", stdin=TEXT).split())))
    check("our tokenizer: decoding gives the text back", tokenizer.decode(ids) == TEXT, repr(tokenizer.decode(ids)))
    check("our tokenizer: its length is the vocabulary's", len(tokenizer) == V, len(tokenizer))
    tokenizer.save_pretrained(d / "resaved")
    model.save_pretrained(d / "resaved")
    check("tokenizer saved by transformers: read here", ids == list(map(int, run("encode", d / "resaved", stdin=TEXT).split())))
    same("model saved again by transformers: read here", ours(d / "resaved"), ours(d / "model"), 0)


def adapters_out(d):
    """Our adapters, in PEFT."""
    cases = {  # r, alpha, targets, first and last block, rank-stabilized, ranks by block
        "c_attn": (8, 16, "c_attn", 0, -1, 0),
        "everything": (4, 4, "c_attn,c_proj,c_fc", 0, -1, 0),
        "one c_proj": (4, 3, "attn.c_proj", 0, -1, 0),
        "the other c_proj": (4, 7.5, "mlp.c_proj", 0, -1, 0),
        "upper blocks": (2, 8, "c_attn,c_fc", 1, 2, 0),
        "one block": (2, 8, "c_proj", 1, 1, 0),
        "rank-stabilized": (9, 6, "c_attn", 0, -1, 1),
        "ranks by block": (4, 8, "c_attn,mlp.c_proj", 0, -1, 0, 2, 4, 7),
        "ranks by block, rank-stabilized, one without": (4, 8, "c_fc", 0, -1, 1, 3, 0, 5),
    }
    base = theirs(load_base(d / "model")[0])
    for name, case in cases.items():
        run("attach", d / "model", d / "adapter", 7, *case)
        logits = ours(d / "model", d / "adapter")
        model, problems = load_adapter(d / "model", d / "adapter")
        check(f"our adapter, {name}: PEFT has no complaint", not problems, problems)
        same(f"our adapter, {name}: the same logits in PEFT", theirs(model), logits)
        check(f"our adapter, {name}: it changes something", distance(logits, base) > 1e-3)
        adapted = {k.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight")
                   for k in model.state_dict() if k.endswith("lora_A.default.weight")}
        stored = {k.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                  for k in safetensors.torch.load_file(d / "adapter/adapter_model.safetensors") if k.endswith("lora_A.weight")}
        check(f"our adapter, {name}: PEFT adapts these layers and no others", adapted == stored, adapted ^ stored)
        run("merge", d / "model", d / "adapter", d / "merged")
        same(f"our adapter, {name}: merge_and_unload gives our merged model", theirs(model.merge_and_unload()), theirs(load_base(d / "merged")[0]))


def models_in(d):
    """Models of transformers, here."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=V, n_positions=T, n_embd=C, n_layer=L, n_head=H, initializer_range=0.3, bos_token_id=None, eos_token_id=None)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        model.to(dtype).save_pretrained(d / name)
        same(f"their model in {name}: the same logits here", ours(d / name), theirs(load_base(d / name)[0]))
        model.to(torch.float32)
    model.transformer.save_pretrained(d / "bare")
    same("their GPT2Model, names without prefix: the same logits here", ours(d / "bare"), theirs(load_base(d / "bare")[0]))
    tensors = dict(model.state_dict())
    tensors = {k: v.clone() for k, v in tensors.items()}
    for i in range(L):  # what files of old versions hold besides
        tensors[f"transformer.h.{i}.attn.bias"] = torch.tril(torch.ones(1, 1, T, T, dtype=torch.uint8))
        tensors[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    (d / "old").mkdir()
    (d / "old/config.json").write_text((d / "float32/config.json").read_text())
    safetensors.torch.save_file(tensors, d / "old/model.safetensors", metadata={"format": "pt"})
    model.save_pretrained(d / "float32")
    same("their old files, with masks and lm_head: the same logits here", ours(d / "old"), theirs(model))
    tensors["lm_head.weight"] += 1
    safetensors.torch.save_file(tensors, d / "old/model.safetensors", metadata={"format": "pt"})
    refused("a head of its own", "copy", d / "old", d / "x", word="lm_head.weight")
    run("copy", d / "float32", d / "copied")
    check("their model, read and saved here: byte for byte the same tensors",
          (d / "copied/model.safetensors").read_bytes() == (d / "float32/model.safetensors").read_bytes())
    for key, value in (("n_inner", 8), ("activation_function", "gelu"), ("scale_attn_weights", False), ("scale_attn_by_inverse_layer_idx", True),
                       ("layer_norm_epsilon", 1e-6), ("tie_word_embeddings", False), ("add_cross_attention", True)):
        transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**config.to_dict(), key: value})).save_pretrained(d / "other")
        refused(f"a model with {key} {value}", "copy", d / "other", d / "x", word=key)


def adapters_in(d):
    """Adapters of PEFT, here."""
    everything = ["c_attn", "c_proj", "c_fc"]
    cases = {
        "default targets": {},
        "c_attn": {"target_modules": ["c_attn"]},
        "c_proj": {"target_modules": ["c_proj"]},
        "every layer": {"target_modules": everything},
        "all-linear": {"target_modules": "all-linear"},
        "a regular expression": {"target_modules": r".*\.h\.[02]\.(?:attn\.c_attn|mlp\.c_fc)"},
        "a regular expression with a digit class": {"target_modules": r"transformer\.h\.\d+\.mlp\.c_proj"},
        "full names": {"target_modules": ["transformer.h.1.attn.c_proj", "h.2.mlp.c_fc"]},
        "some layers": {"target_modules": everything, "layers_to_transform": [0, 2]},
        "one layer": {"target_modules": ["c_attn"], "layers_to_transform": 1, "layers_pattern": "h"},
        "rank_pattern": {"target_modules": everything, "rank_pattern": {"h.1.mlp.c_proj": 3, "c_attn": 2, r"^transformer\.h\.0\.attn\.c_proj": 5}},
        "alpha_pattern": {"target_modules": everything, "alpha_pattern": {"c_attn": 3, "attn.c_proj": 11}, "rank_pattern": {"c_attn": 5}},
        "a pattern for several layers": {"target_modules": everything, "rank_pattern": {r"h\.(0|2)\..*": 6}},
        "rank-stabilized": {"target_modules": ["c_attn"], "use_rslora": True},
        "rank-stabilized with patterns": {"target_modules": everything, "use_rslora": True, "rank_pattern": {"c_fc": 9}, "alpha_pattern": {"mlp.c_proj": 2}},
        "dropout": {"target_modules": ["c_attn"], "lora_dropout": 0.3},
        "fan_in_fan_out": {"target_modules": ["c_attn"], "fan_in_fan_out": True},
        "float16": {"target_modules": everything},
        "bfloat16": {"target_modules": everything},
    }
    for name, options in cases.items():
        torch.manual_seed(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = peft.get_peft_model(load_base(d / "float32")[0], peft.LoraConfig(**{"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM", "init_lora_weights": False} | options))
            model.to({"float16": torch.float16, "bfloat16": torch.bfloat16}.get(name, torch.float32)).save_pretrained(d / "theirs")
        reference = theirs(load_adapter(d / "float32", d / "theirs")[0])
        same(f"their adapter, {name}: the same logits here", ours(d / "float32", d / "theirs"), reference)
        same(f"their adapter, {name}: merged here, too", ours(d / "float32", d / "theirs", 1), reference)
        run("copy-adapter", d / "float32", d / "theirs", d / "ours")
        again, problems = load_adapter(d / "float32", d / "ours")
        check(f"their adapter, {name}: saved by us, PEFT has no complaint", not problems, problems)
        same(f"their adapter, {name}: saved by us, the same logits in PEFT", theirs(again), reference)
        if name == "c_attn":
            a, b = (safetensors.torch.load_file(d / x / "adapter_model.safetensors") for x in ("theirs", "ours"))
            check("their adapter, read and saved here: the same names and bits", a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a))
    for name, options in {"use_dora": {"use_dora": True}, "bias": {"bias": "all"}, "modules_to_save": {"modules_to_save": ["ln_f"]},
                          "exclude_modules": {"exclude_modules": ["h.0.attn.c_attn"]}, "lora_embedding_A": {"target_modules": ["c_attn", "wte"]},
                          "lm_head": {"target_modules": ["c_attn", "lm_head"]}}.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peft.get_peft_model(load_base(d / "float32")[0], peft.LoraConfig(**{"r": 4, "target_modules": ["c_attn"]} | options)).save_pretrained(d / "other")
        refused(f"an adapter with {name}", "copy-adapter", d / "float32", d / "other", d / "x", word=name)
    run("attach", d / "model", d / "adapter", 7, 8, 16, "c_attn", 0, -1, 0)
    refused("our adapter on another base", "copy-adapter", d / "float32", d / "adapter", d / "x", word="another base")


def main():
    global helper
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}, safetensors {safetensors.__version__}, "
          f"tokenizers {tokenizers.__version__}")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    if len(sys.argv) > 1:
        helper = str(pathlib.Path(sys.argv[1]).resolve())
    else:
        helper = str(root / "build/interop/tests/interop_helper")
        subprocess.run(["make", "-s", "-C", root, "BUILD=build/interop", "build/interop/tests/interop_helper"], check=True)
    with tempfile.TemporaryDirectory() as name:
        d = pathlib.Path(name)
        for part in (model_out, adapters_out, models_in, adapters_in):
            try:
                part(d)
            except Exception as e:  # one broken part must not hide the others
                check(f"{part.__doc__} ran to its end", False, f"{type(e).__name__}: {e}")
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)


main()
