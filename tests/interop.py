#!/usr/bin/env python3
"""Checks that checkpoints go both ways between meltwater and Hugging Face transformers, PEFT, tokenizers and safetensors.

    pip install torch transformers peft safetensors tokenizers      # torch: the CPU build will do
    pip install bitsandbytes                                        # for the checks of codes; without it they are skipped
    python3 tests/interop.py [HELPER]

HELPER is tests/interop_helper.c, compiled, with the programs in the directory above; without it, make builds them. Everything is made here, small and at random; nothing is downloaded.
One line for each check, then `N passed, N failed`; exit status 1 if any failed. Without the packages: one line that says so, and 0.
"""
import json
import os
import pathlib
import random
import re
import shutil
import struct
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

try:
    import bitsandbytes.functional
    without_bitsandbytes = None
except Exception as problem:  # it asks the machine more than whether a file is there
    without_bitsandbytes = problem

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
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        name = str(dtype).removeprefix("torch.")
        model.to(dtype).save_pretrained(d / name)
        same(f"their model in {name}: the same logits here", ours(d / name), theirs(load_base(d / name)[0]))
        model.to(torch.float32)
    for vocabulary, positions, width, layers, heads in ((7, 3, 8, 1, 1), (301, 65, 48, 5, 3), (50257, 16, 24, 2, 12)):
        sized = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=vocabulary, n_positions=positions, n_embd=width, n_layer=layers, n_head=heads)).eval()
        sized.save_pretrained(d / "sized")
        ids = [(7 * i * i + 3 * i + 5) % vocabulary for i in range(positions)]
        lines = run("logits", d / "sized", "-", 0, *ids).splitlines()
        with torch.no_grad():
            reference = sized(torch.tensor([ids])).logits[0]
        same(f"their model of {vocabulary} tokens, {positions} positions, width {width}, {layers} layers, {heads} heads: the same logits here",
             torch.tensor([[float(x) for x in line.split()] for line in lines]), reference)
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


def quiet_adapter(base, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(base, peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["c_attn"], "task_type": "CAUSAL_LM"} | options))


def beginnings(d):
    """Adapters whose A and B began in other ways: those that leave the base alone are taken, the others refused until PEFT has converted them."""
    for init, target in (("gaussian", "c_attn"), ("orthogonal", "c_attn"), ("eva", "c_attn"), ("mica", "attn.c_proj"), (False, "c_attn"), ("pissa", "c_attn"),
                         ("pissa_niter_4", "c_attn"), ("olora", "attn.c_proj")):
        torch.manual_seed(3)
        model = quiet_adapter(load_base(d / "float32")[0], target_modules=[target], init_lora_weights=init)
        changes_base = str(init)[:5] in ("pissa", "olora")
        if changes_base:
            model.peft_config["default"].init_lora_weights = True  # so that what it begins with can be loaded for the conversion
            model.save_pretrained(d / "beginning")
            model.peft_config["default"].init_lora_weights = init
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(3):
            model(torch.tensor([IDS[:T]]), labels=torch.tensor([IDS[:T]])).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        trained = model.eval()(torch.tensor([IDS])).logits[0].detach()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save_pretrained(d / "begun")
            if not changes_base:
                same(f"an adapter that began as {init}: the same logits here", ours(d / "float32", d / "begun"), trained)
                continue
            refused(f"an adapter that began as {init}", "copy-adapter", d / "float32", d / "begun", d / "x", word=f'"init_lora_weights" is "{init}"')
            model.save_pretrained(d / "converted", path_initial_model_for_weight_conversion=str(d / "beginning"))
        same(f"an adapter that began as {init}, converted by PEFT: the same logits here", ours(d / "float32", d / "converted"), theirs(load_adapter(d / "float32", d / "converted")[0]))
        if init != "olora":  # PEFT takes that of a Conv1D from the weight as it lies, not transposed: its own conversion is another model
            same(f"an adapter that began as {init}, converted by PEFT: those of the training", ours(d / "float32", d / "converted"), trained, 1e-4)


def same_meaning(d):
    """Settings that say the same in other words, and files of other kinds."""
    config = json.loads((d / "float32/config.json").read_text())
    for name, changes in {"gelu_pytorch_tanh": {"activation_function": "gelu_pytorch_tanh"}, "reorder_and_upcast_attn": {"reorder_and_upcast_attn": True},
                          "other names of the sizes": {"n_head": None, "num_attention_heads": H, "n_embd": None, "hidden_size": C, "n_layer": None, "num_hidden_layers": L}}.items():
        shutil.copytree(d / "float32", d / "worded", dirs_exist_ok=True)
        (d / "worded/config.json").write_text(json.dumps({k: v for k, v in (config | changes).items() if v is not None or k not in changes}))
        same(f"{name}: the same logits here", ours(d / "worded"), theirs(load_base(d / "worded")[0]))
    (d / "worded/config.json").write_text(json.dumps(config | {"num_attention_heads": 2 * H}))
    check("an alias wins in transformers", load_base(d / "worded")[0].config.n_head == 2 * H)
    refused("an alias that says another number", "copy", d / "worded", d / "x", word="num_attention_heads")

    def refused_with_a_command(name, *arguments):
        try:
            run(*arguments)
            check(f"{name}: refused, with a command that converts it", False, "it was accepted")
        except RuntimeError as e:
            command = re.search(r'python3 -c "(.*)"', str(e))
            result = command and subprocess.run([sys.executable, "-c", command[1]], capture_output=True, text=True)
            check(f"{name}: refused, with a command that converts it", result and result.returncode == 0, result.stderr if result else e)
    reference = ours(d / "float32")
    model = load_base(d / "float32")[0]
    model.save_pretrained(d / "shards", max_shard_size="8KB")
    check("tensors in several files: there are some", len(list((d / "shards").glob("model-*.safetensors"))) > 2 and not (d / "shards/model.safetensors").exists())
    same("tensors in several files: the same logits here", ours(d / "shards"), reference, 0)
    shutil.copytree(d / "float32", d / "bin")
    (d / "bin/model.safetensors").unlink()
    torch.save(model.state_dict(), d / "bin/pytorch_model.bin")
    refused_with_a_command("tensors in pytorch_model.bin", "copy", d / "bin", d / "x")
    same("tensors in pytorch_model.bin, converted: the same logits", ours(d / "bin"), reference, 0)
    quiet_adapter(model, init_lora_weights=False).save_pretrained(d / "lora-bin")
    reference = ours(d / "float32", d / "lora-bin")
    torch.save(safetensors.torch.load_file(d / "lora-bin/adapter_model.safetensors"), d / "lora-bin/adapter_model.bin")
    (d / "lora-bin/adapter_model.safetensors").unlink()
    refused_with_a_command("tensors in adapter_model.bin", "copy-adapter", d / "float32", d / "lora-bin", d / "x")
    same("tensors in adapter_model.bin, converted: the same logits", ours(d / "float32", d / "lora-bin"), reference, 0)

    tokenizer = transformers.AutoTokenizer.from_pretrained(d / "model")
    for name, change in {"truncation": lambda t: t.enable_truncation(5), "padding": lambda t: t.enable_padding(length=9)}.items():
        changed = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        change(changed)
        shutil.copytree(d / "model", d / "cut", dirs_exist_ok=True)
        changed.save(str(d / "cut/tokenizer.json"))
        refused(f"a tokenizer with {name}", "encode", d / "cut", word=name)


def every_key(d):
    """Any value under any key of a configuration: what is accepted on both sides computes the same on both."""
    generator = random.Random(5)
    values = [None, True, False, 0, 1, 2, 3, 4, 0.5, -1, 64, "x", "", "none", "all", "h", "c_attn", "gaussian", "relu", "gelu_new", "gelu_pytorch_tanh", "all-linear", ".*c_attn",
              "CAUSAL_LM", [], [0], [1], [0, 1, 2], ["c_attn"], ["attn.c_attn"], ["c_attn", "c_fc"], {}, {"a": 1}, {"c_attn": 4}, {"h.0.attn.c_attn": 3}]
    quiet_adapter(load_base(d / "float32")[0], lora_alpha=6, init_lora_weights=False).save_pretrained(d / "keys-lora")
    config, lora = json.loads((d / "float32/config.json").read_text()), json.loads((d / "keys-lora/adapter_config.json").read_text())
    keys = sorted({*load_base(d / "float32")[0].config.to_dict(), *transformers.GPT2Config.attribute_map, "is_decoder", "rope_theta"} - {"dtype"})  # dtype: rounds on loading
    for what, source, name, settings, keys in ("a model", "float32", "config.json", config, keys), ("an adapter", "keys-lora", "adapter_config.json", lora, [*lora, "what_comes"]):
        shutil.copytree(d / source, d / "keys", dirs_exist_ok=True)
        where = (d / "keys", "-") if what == "a model" else (d / "float32", d / "keys")
        wrong, both, refusals = [], 0, 0
        for _ in range(200):
            key, value = generator.choice(keys), generator.choice(values)
            (d / "keys" / name).write_text(json.dumps(settings | {key: value}))
            try:
                logits = ours(*where)
            except RuntimeError:
                refusals += 1
                continue
            try:
                model, problems = load_base(d / "keys") if what == "a model" else load_adapter(d / "float32", d / "keys")
                reference = theirs(model) if what != "a model" or not problems else None
            except Exception:  # theirs refuses it, in one way or another
                continue
            both += reference is not None
            if reference is not None and distance(logits, reference) > 1e-5:
                wrong.append((key, value))
        check(f"{what}, any value under any key: the same logits, or a refusal", not wrong and both > 20 and refusals > 20, f"{wrong}, {both} accepted, {refusals} refused")


def settings(d):
    """What a model's files say besides: kept by merge and by train."""
    (d / "text").write_text("".join(CHARACTERS) * 40)
    model = load_base(d / "model")[0]
    model.resize_token_embeddings(V + 10)  # more rows than characters
    c = model.config
    c.eos_token_id = c.bos_token_id = model.generation_config.eos_token_id = 0
    c.resid_pdrop, c.embd_pdrop, c.attn_pdrop, c.initializer_range = 0.1, 0.2, 0.3, 0.05
    model.to(torch.bfloat16).save_pretrained(d / "b16")
    for f in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(d / "model" / f, d / "b16")
    quiet_adapter(load_base(d / "b16")[0], init_lora_weights=False).save_pretrained(d / "on16")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = peft.PeftModel.from_pretrained(load_base(d / "b16")[0], d / "on16").merge_and_unload()
    for options, dtype in ([], torch.bfloat16), (["--dtype", "float32"], torch.float32):
        result = subprocess.run([binaries / "adapter", "merge", d / "on16", "--model", d / "b16", "--out", d / "m16", "--overwrite", *options], capture_output=True, text=True)
        check(f"a base of 16 bits, merged {options}", result.returncode == 0, result.stderr)
        a, b = {k: v.to(dtype) for k, v in merged.state_dict().items()}, safetensors.torch.load_file(d / "m16/model.safetensors")
        close = all(v.dtype == dtype and torch.allclose(a[k].double(), v.double(), rtol=2 ** -7 if dtype == torch.bfloat16 else 1e-5, atol=1e-6) for k, v in b.items())
        check(f"a base of 16 bits, merged {options}: the weights of merge_and_unload, in {dtype}", close)
        config, was = (transformers.GPT2Config.from_pretrained(d / x).to_dict() for x in ("m16", "b16"))
        differ = {k for k in was if was[k] != config.get(k)} - {"_name_or_path"}
        check(f"a base of 16 bits, merged {options}: its configuration is the base's", differ == ({"dtype"} if options else set()), differ)
        check(f"a base of 16 bits, merged {options}: so is how text is drawn",
              json.loads((d / "m16/generation_config.json").read_text()) == json.loads((d / "b16/generation_config.json").read_text()))
    result = subprocess.run([binaries / "train", "--data", d / "text", "--init", d / "b16", "--out", d / "tuned", "--max-iters", "2", "--batch-size", "2"], capture_output=True, text=True)
    check("a model with more rows than characters: trained on", result.returncode == 0, result.stderr)
    tuned = load_base(d / "tuned")[0].config
    check("a model trained on: it keeps its settings", (tuned.eos_token_id, tuned.attn_pdrop, tuned.initializer_range, tuned.vocab_size) == (0, 0.3, 0.05, V + 10), tuned)
    result = subprocess.run([binaries / "sample", "--model", d / "tuned", "--prompt", "a", "--length", "50", "--temperature", "3"], capture_output=True, text=True)
    check("a model with more rows than characters: sampled", result.returncode == 0 and set(result.stdout) <= set(CHARACTERS), result.stderr)


def codes_agree(d, width, heads):
    """Codes, scales and values of all linear layers of a model are those of bitsandbytes."""
    run("make", d / "wide", 2, V, T, L, heads, width, stdin="".join(CHARACTERS))
    numbers = safetensors.torch.load_file(d / "wide/model.safetensors")
    for kind in "nf4", "int8":
        run("hold", d / "wide", kind, d / "wide-codes")
        run("hold", d / "wide-codes", "float", d / "wide-values")
        ours, values = (safetensors.torch.load_file(d / name / "model.safetensors") for name in ("wide-codes", "wide-values"))
        layers = [name.removesuffix(".codes") for name in ours if name.endswith(".codes")]
        codes = scales = 0
        apart = 0.0
        for name in layers:
            w, code, scale = numbers[name], ours[name + ".codes"], ours[name + ".scales"]
            if kind == "nf4":
                packed, state = bitsandbytes.functional.quantize_4bit(w, quant_type="nf4", blocksize=64)
                theirs_, their_scale, their_values = packed.flatten().clone(), state.absmax, bitsandbytes.functional.dequantize_4bit(packed, state)
                if w.numel() % 2:
                    theirs_[-1] = theirs_[-1] & 0xF0  # the half that is no number
                codes += theirs_.equal(code)
            else:
                theirs_, absmax, _ = bitsandbytes.functional.int8_vectorwise_quant(w.T.contiguous())
                their_scale, their_values = absmax / 127, theirs_.T.float() * (absmax / 127)
                codes += theirs_.T.equal(code)
            scales += their_scale.equal(scale)
            size = their_scale.repeat_interleave(64)[:w.numel()].reshape(w.shape) if kind == "nf4" else absmax
            apart = max(apart, float(((values[name] - their_values).abs() / size).max()))
        check(f"{kind}, width {width}: each layer's codes are those of bitsandbytes", codes == len(layers) == 4 * L, f"{codes} of {len(layers)}")
        check(f"{kind}, width {width}: ... and its scales", scales == len(layers), f"{scales} of {len(layers)}")
        check(f"{kind}, width {width}: ... and its values, of which theirs are rounded in a table", apart < 3e-7, f"{apart:.2e} of the largest in a block")


def codes(d):
    """Our models in codes: what transformers says of them, and whether bitsandbytes makes the same ones."""
    for kind in "nf4", "int8":
        run("hold", d / "model", kind, d / kind)
        tensors = safetensors.torch.load_file(d / kind / "model.safetensors")
        safetensors.torch.save_file(tensors, d / "again.safetensors", metadata={"format": "pt", "base_type": kind})
        again = (d / "again.safetensors").read_bytes().replace(f'"format":"pt","base_type":"{kind}"'.encode(), f'"base_type":"{kind}","format":"pt"'.encode())
        check(f"{kind}: model.safetensors is that of safetensors.torch.save_file, byte for byte, but for the order of metadata, which is any there",
              again == (d / kind / "model.safetensors").read_bytes())
        for family in transformers.AutoModelForCausalLM, transformers.GPT2LMHeadModel, transformers.GPT2Model:
            try:
                family.from_pretrained(d / kind)
                check(f"{kind}: {family.__name__} refuses it", False, "it was opened, with random weights")
            except ValueError as e:
                check(f"{kind}: {family.__name__} refuses it", "quant" in str(e), e)
    if without_bitsandbytes:
        print(f"skipped: whether codes are those of bitsandbytes: the package is not there, or does not run here ({without_bitsandbytes})")
        if os.environ.get("REQUIRE_ALL"):
            check("bitsandbytes is there", False)
        return
    print(f"bitsandbytes {bitsandbytes.__version__}")
    codes_agree(d, 64, 4)
    codes_agree(d, 15, 1)  # odd numbers of codes, and blocks that end within rows


def programs(d):
    """What train, sample and adapter write and print."""
    def call(*arguments):
        result = subprocess.run(list(map(str, arguments)), capture_output=True)
        if result.returncode:
            raise RuntimeError(result.stderr.decode().strip())
        return result.stdout.decode()

    (d / "text").write_text("".join(f"{n} cats sat on {n * n % 7} mats; the caf\u00e9 was \u20ac{n}.\n" for n in range(400)))
    train, sample, adapter = (binaries / name for name in ("train", "sample", "adapter"))
    call(train, "--data", d / "text", "--out", d / "trained", "--max-iters", 150, "--n-layer", 2, "--n-head", 2, "--n-embd", 32, "--batch-size", 8, "--warmup-iters", 5,
         "--learning-rate", 3e-3)
    model, problems = load_base(d / "trained")
    check("a trained model: no tensor missing or unexpected in transformers", not problems, problems)
    tokenizer = transformers.AutoTokenizer.from_pretrained(d / "trained")

    def continues(model, *options):
        prompt = "7 cats"
        output = model.generate(**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False), max_new_tokens=50, do_sample=False, pad_token_id=0)
        return tokenizer.decode(output[0]), call(sample, "--model", d / "trained", "--prompt", prompt, "--temperature", 0, "--length", 50, *options)[:-1]

    here, there = continues(model)
    check("a trained model: transformers continues a prompt with the same text", here == there and len(set(here)) > 8, f"{here!r} {there!r}")
    global IDS
    IDS = tokenizer("12 cats sat on 4 mats; the caf\u00e9 was \u20ac12.\n")["input_ids"]

    for name, options in {"c_attn": [], "q and v": ["--lora-targets", "q,v"], "k and everything else": ["--lora-targets", "k,c_proj,c_fc"]}.items():
        call(train, "--data", d / "text", "--init", d / "trained", "--out", d / "lora", "--lora-r", 3, "--max-iters", 30, "--batch-size", 8, "--learning-rate", 1e-2,
             "--warmup-iters", 2, "--seed", 7, "--overwrite", *options)
        adapted, problems = load_adapter(d / "trained", d / "lora")
        check(f"a trained adapter, {name}: PEFT has no complaint", not problems, problems)
        same(f"a trained adapter, {name}: the same logits in PEFT", theirs(adapted), ours(d / "trained", d / "lora"))
        here, there = continues(adapted, "--adapter", d / "lora")
        check(f"a trained adapter, {name}: PEFT continues a prompt with the same text", here == there, f"{here!r} {there!r}")
        if options:
            C = 32
            layer = adapted.base_model.model.transformer.h[1].attn.c_attn
            delta = layer.get_delta_weight("default")  # [in, out], as the weight
            parts = [bool(delta[:, i * C:(i + 1) * C].abs().max() > 0) for i in range(3)]
            check(f"a trained adapter, {name}: PEFT changes these columns of c_attn and no others", parts == [part in options[1].split(",") for part in "qkv"], parts)
        call(adapter, "merge", d / "lora", "--out", d / "lora-merged", "--overwrite")
        a, b = adapted.merge_and_unload().state_dict(), load_base(d / "lora-merged")[0].state_dict()
        check(f"a trained adapter, {name}: adapter merge gives the names of merge_and_unload", a.keys() == b.keys())
        check(f"a trained adapter, {name}: ... and its weights", all(distance(a[k], b[k]) < 1e-6 or a[k].equal(b[k]) for k in b), max(float((a[k] - b[k]).abs().max()) for k in b))

    call(train, "--data", d / "text", "--init", d / "trained", "--out", d / "lora-nf4", "--lora-r", 3, "--base-type", "nf4", "--max-iters", 30, "--batch-size", 8)
    adapted, problems = load_adapter(d / "trained", d / "lora-nf4")
    check("an adapter trained on nf4: PEFT has no complaint", not problems, problems)
    same("an adapter trained on nf4: the same logits in PEFT, on the base in floats", theirs(adapted), ours(d / "trained", d / "lora-nf4"))

    torch.manual_seed(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(load_base(d / "trained")[0], peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["c_attn", "c_fc"], task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    batch = torch.tensor([IDS])
    first = last = None
    for _ in range(20):
        last = adapted(batch, labels=batch).loss
        first = first if first is not None else last.item()
        last.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.eval().save_pretrained(d / "their-lora")
    check("an adapter trained by PEFT: it has learned", last.item() < first - 0.1, f"{first} {last.item()}")
    same("an adapter trained by PEFT: the same logits here", ours(d / "trained", d / "their-lora"), theirs(adapted))
    here, there = continues(adapted, "--adapter", d / "their-lora")
    check("an adapter trained by PEFT: the same text here", here == there, f"{here!r} {there!r}")


def malformed_files(d):
    """Files that safetensors refuses, refused here for the same reason; and those that it accepts, accepted."""
    def tensor(shape, offsets, dtype="I32"):
        return json.dumps({"test": {"dtype": dtype, "shape": shape, "data_offsets": offsets}})

    def image(header, data=0):
        return struct.pack("<Q", len(header)) + header.encode() + bytes(data)

    cases = [b"", b"1234567", b"<\0\0\0\0\0\0\0", b"<\0\0\0\0\xff\xff\xff{}", b"\1\0\0\0\0\0\0\0\xff", b"\1\0\0\0\0\0\0\0{", b"\6\0\0\0\0\0\0\0{}\r \t\n",
             b"\6\0\0\0\0\0\0\0\t\n{}\r ", image(tensor([2, 2], [0, 16]), 16) + b"extra_bogus_data_for_polyglot_file", image("[]"), image("{}x")]
    cases += [image(tensor(shape, offsets, dtype), data) for shape, offsets, dtype, data in (
        ([2, 2], [0, 16], "I32", 16), ([2, 2], [0, 16], "I32", 14), ([2, 2], [0, 4], "I32", 0), ([], [0, 4], "I32", 4), ([2, 0], [0, 0], "I32", 0),
        ([2, 2**64 - 2], [0, 16], "I32", 16), ([2, 2**63 - 1], [0, 16], "I32", 16), ([2, 2], [4, 20], "I32", 20), ([2, 2], [16, 0], "I32", 16), ([1, 3], [0, 2], "F4", 2),
        ([1, 2], [0, 2], "F4", 2), ([1], [0, 4], "f32", 4), ([1.0], [0, 4], "F32", 4), ([-1], [0, 4], "F32", 4), (["1"], [0, 4], "F32", 4), ([1], [0], "F32", 4), ([1], [0, 4, 4], "F32", 4),
        ([2**64], [0, 4], "F32", 4), (None, [0, 4], "F32", 4), ([1], [0, 4], None, 4))]
    cases += [image(json.dumps({f"weight_{i}": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} for i in range(10)}), 16)]
    cases += [image(json.dumps({"__metadata__": m})) for m in ({"a": "b"}, {"a": 1}, [], "x", None, {})]
    good = safetensors.torch.save({"a": torch.arange(6).reshape(2, 3).float(), "b": torch.ones(3, dtype=torch.float16), "c": torch.zeros(0, 2)}, metadata={"format": "pt"})
    cases += [good[:n] for n in range(0, len(good), 9)]
    generator = random.Random(1)
    for _ in range(1500):  # one or two bytes changed, in the header mostly
        changed = bytearray(good)
        for _ in range(generator.randint(1, 2)):
            changed[generator.randrange(8 if generator.random() < 0.9 else 0, len(good) - 24)] = generator.choice(b'{}[]",:0123456789.eE-+ \\xFabct' + bytes([generator.randrange(256)]))
        cases.append(bytes(changed))

    phrases = ["header too small", "header too large", "invalid header length", "invalid UTF-8 in header", "invalid JSON in header", "invalid offset for tensor",
               "overflow computing buffer size from shape and/or element type", "not end up at a byte boundary", "invalid shape, data type, or offset for tensor",
               "incomplete metadata, file not fully covered"]
    reasons, seen = [], set()
    for i, case in enumerate(cases):
        (d / f"case-{i}").write_bytes(case)
        try:
            safetensors.deserialize(case)
            reasons.append("ok")
        except safetensors.SafetensorError as e:
            reasons.append(next(phrase for phrase in phrases if phrase in str(e)))
    wrong, stricter = [], 0
    for i, (line, reason) in enumerate(zip(run("check", stdin="".join(f"{d}/case-{i}\n" for i in range(len(cases)))).splitlines(), reasons)):
        seen.add(reason)
        if reason == "ok" and re.search("duplicate key|must be an object|zero byte inside|illegal escape|expected a value", line):
            stricter += 1  # what README forbids and the reference lets pass
        elif reason not in line or (reason == "ok") != (line == "ok"):
            wrong.append((cases[i], reason, line))
    check(f"{len(cases)} files, of which {reasons.count('ok')} are good for safetensors: the same verdicts and reasons here", not wrong, wrong[:3])
    check("every reason occurred", seen == {"ok", *phrases}, set(phrases) - seen)
    check("hardly any file is good there and refused here, for duplicate keys and the like", stricter < 10, stricter)


def regular_expressions(d):
    """Patterns of target_modules: a match here is one of Python's."""
    generator = random.Random(2)
    pieces = ["a", "b", "c", ".", "\\.", "\\d", "\\w", "[ab]", "[^a]", "[a-b.]", "(", "(?:", ")", "|", "*", "+", "?", "^", "$", "1", "]", "{2}", "\\s"]
    cases = [("".join(generator.choices(pieces, k=generator.randint(1, 9))), "".join(generator.choices("abc.1", k=generator.randint(0, 6)))) for _ in range(20000)]
    counts = {"yes": 0, "no": 0, "refused": 0}
    wrong = []
    for (pattern, name), verdict in zip(cases, run("match", stdin="".join(f"{p}\t{n}\n" for p, n in cases)).splitlines()):
        counts[verdict] += 1
        try:
            reference = "yes" if re.fullmatch(pattern, name) else "no"
        except re.error:
            reference = "refused"
        if verdict not in (reference, "refused"):
            wrong.append((pattern, name, verdict, reference))
    check(f"20000 regular expressions: the same verdicts as Python's ({counts})", not wrong and min(counts.values()) > 300, wrong[:5])


def main():
    global helper, binaries
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}, safetensors {safetensors.__version__}, "
          f"tokenizers {tokenizers.__version__}")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    if len(sys.argv) > 1:
        helper = str(pathlib.Path(sys.argv[1]).resolve())
    else:
        helper = str(root / "build/interop/tests/interop_helper")
        subprocess.run(["make", "-s", "-C", root, "BUILD=build/interop", "build/interop/tests/interop_helper", "programs"], check=True)
    binaries = pathlib.Path(helper).parent.parent
    with tempfile.TemporaryDirectory() as name:
        d = pathlib.Path(name)
        for part in (model_out, adapters_out, models_in, adapters_in, beginnings, same_meaning, every_key, settings, codes, malformed_files, regular_expressions, programs):
            try:
                part(d)
            except Exception as e:  # one broken part must not hide the others
                check(f"{part.__doc__} ran to its end", False, f"{type(e).__name__}: {e}")
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)


main()
