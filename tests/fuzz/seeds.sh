#!/bin/sh
# seeds.sh DIR - makes the first inputs of each fuzz target, in DIR/NAME, and DIR/words.dict. BIN is where the programs are.
# Real files of a model small enough to be mutated quickly, and small ones by hand, good and bad.

BIN=${BIN:-.}
export LC_ALL=C # bytes, not characters
dir=$1
mkdir -p "$dir" || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
for target in json safetensors config tokenizer text; do mkdir -p "$dir/$target"; done

# seed TARGET NAME FIRST-BYTES: standard input behind some first bytes, which tell the target what it is
seed() { { printf "$3"; cat; } > "$dir/$1/$2"; }

i=0
while [ $i -lt 40 ]; do echo "ab cab a$i"; i=$((i + 1)); done > "$work/text"
train() {
    out=$1
    shift
    "$BIN/train" --data "$work/text" --out "$work/$out" --batch-size 1 --max-iters 1 "$@" > /dev/null || exit 1
}
train base --n-layer 1 --n-head 1 --n-embd 2 --block-size 2
train all --init "$work/base" --lora-r 1 --lora-targets c_attn,c_proj,c_fc
for type in nf4 int8; do "$BIN/adapter" merge "$work/all" --base-type $type --out "$work/$type" > /dev/null || exit 1; done
train qv --init "$work/base" --lora-r 1 --lora-targets q,v

# The text of a state: the value of one key of the header, with its escapes undone.
mark=$(printf '\001')
state_text() {
    tr -d '\000-\037' < "$1" | sed 's/.*"meltwater_state":"//; s/"},"transformer.*//' |
        sed "s/\\\\\\\\/$mark/g; s/\\\\n/ /g; s/\\\\\"/\"/g; s/$mark/\\\\/g"
}

for run in base all qv; do
    for file in "$work/$run"/*.json; do seed json "$run-$(basename "$file")" '' < "$file"; done
    for file in "$work/$run"/*.safetensors; do seed safetensors "$run-$(basename "$file")" '\000' < "$file"; done
    state_text "$work/$run/training_state.safetensors" | seed config "$run-state" '\002'
done
seed config model '\000' < "$work/base/config.json"
for type in nf4 int8; do
    seed config $type '\000' < "$work/$type/config.json"
    seed safetensors $type-model '\000' < "$work/$type/model.safetensors"
done
seed config all '\001' < "$work/all/adapter_config.json"
seed config qv '\001' < "$work/qv/adapter_config.json"
given() { printf '%s' "$@" | seed "$target" "$name" "$first"; } # the rest of its arguments, one after the other

target=config first='\001'
name=defaults given '{"peft_type":"LORA"}'
name=regex given '{"peft_type":"LORA","r":2,"use_rslora":true,"lora_dropout":0.1,' \
    '"target_modules":"transformer\\.h\\.\\d\\.(?:mlp\\.c_fc|attn\\.c_attn)"}'
name=patterns given '{"peft_type":"LORA","target_modules":["c_proj"],"layers_to_transform":[0,2],"layers_pattern":"h",' \
    '"rank_pattern":{"h\\.0\\..*":3},"alpha_pattern":{"c_proj":1.5}}'
name=linear given '{"peft_type":"LORA","target_modules":"all-linear","rank_pattern":{"^transformer.h.1.attn.c_attn":3}}'
name=cut given '{"peft_type":"LORA","target_modules":"[a-"}'
name=repeated given '{"peft_type":"LORA","rank_pattern":{"o+++j?":1,"((o+)+)+":2,".*(?:c_fc)?":3}}'
first='\000'
name=least given '{"model_type":"gpt2","vocab_size":5,"n_positions":4,"n_embd":2,"n_layer":1,"n_head":1}'
target=tokenizer first=''
name=split given '{"pre_tokenizer":{"type":"Split","pattern":{"String":""},"behavior":"Isolated"},"decoder":{"type":"Fuse"},' \
    '"model":{"type":"WordLevel","vocab":{"a":0,"\u00e4":1,"\ud83d\ude00":2}}}'
name=template given '{"post_processor":{"type":"TemplateProcessing","special_tokens":{}},"added_tokens":[],' \
    '"pre_tokenizer":{"type":"Split","pattern":{"Regex":"[\\s\\S]"},"behavior":"Isolated"},"decoder":{"type":"Fuse"},' \
    '"model":{"type":"WordLevel","vocab":{"\u0000":0}}}'
seed tokenizer ours '' < "$work/base/tokenizer.json"
target=json
name=values given '[1,-2.5e-3,"\u00e9\ud83d\ude00\\",true,false,null,{"a":{},"b":[[]]},' \
    '18446744073709551615,-9223372036854775808,1e308]'
target=safetensors first='\001\020\000'
name=header given '{"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}}'
first='\001\010\000'
name=types given '{"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},' \
    '"a":{"dtype":"BF16","shape":[],"data_offsets":[2,4]},"c":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}'
printf '{}' | seed safetensors empty '\001\000\000'
printf '<\000\000\000\000\000\000\000' | seed safetensors cut '\000'
seed text ascii '\001' < "$work/text"
printf 'a\303\244b\314\201\342\200\250\342\202\254\357\273\277\360\237\230\200\364\217\277\277\000\t\n!aabbccddee aabbccddee' | seed text unicode '\001'
printf 'own vocabulary: \303\244\360\237\230\200, and so on, and so on, and so on' | seed text own '\000'
printf 'bad \300\200 \355\240\200 \377 bytes' | seed text bad '\001'

{
    for word in dtype shape data_offsets __metadata__ format pt F64 F32 F16 BF16 F4 F6_E2M3 I8 BOOL C64 model_type gpt2 \
        vocab_size n_positions n_embd n_layer n_head n_inner activation_function gelu_new layer_norm_epsilon \
        scale_attn_weights tie_word_embeddings peft_type LORA lora_alpha lora_dropout target_modules c_attn \
        attn.c_proj c_fc mlp.c_proj all-linear layers_to_transform layers_pattern rank_pattern alpha_pattern \
        use_rslora use_dora bias none version step seed optimizer_step text_hash lora_targets pre_tokenizer Split \
        Isolated Regex String decoder Fuse WordLevel vocab normalizer added_tokens post_processor TemplateProcessing \
        special_tokens; do
        echo "\"\\\"$word\\\"\""
    done
    for word in true false null 1e-05 18446744073709551615 -9223372036854775808 9223372036854775807 '[0,0]' '[]' '{}' '":' '",'; do
        printf '"%s"\n' "$(printf '%s' "$word" | sed 's/"/\\"/g')"
    done
} > "$dir/words.dict"
