// q20_bytes_on_disk.c - how large must an adapter's file be?
//
// Adapters of several ranks and targets are saved to out/q20/, and the bytes of their numbers counted in the file; one is
// loaded into the base again. Beside them: the base, and the state of the training run. Too small a file holds no adapter; too
// large a one holds something else. Asked in peft#452 (443 bytes), LMFlow#232, qlora#44.
// Look at: adapter_save in io/adapter_file.c, state_save in io/state_file.c, and the head of io/safetensors.h.

#include "io/adapter_file.h"
#include "io/model_file.h"
#include "io/safetensors.h"
#include "io/state_file.h"
#include "tiny.h"

enum { BLOCKS = 4, WIDTH = 64, KINDS = 4 };
static const struct { int r; unsigned targets; } kinds[] = { { 1, ON_C_ATTN }, { 8, ON_C_ATTN }, { 8, ON_ALL }, { 64, ON_C_ATTN } };

// The bytes of the numbers in DIR/file, and *size of all of it.
static int64_t numbers_in(const char *path, int64_t *size)
{
    char error[256];
    Safetensors *file;
    if (safetensors_open(path, &file, error, sizeof error) != SAFETENSORS_OK) die(EXIT_FAILED, "%s", error);
    int64_t bytes = (int64_t)(file->size - file->data_start);
    *size = (int64_t)file->size;
    safetensors_close(file);
    return bytes;
}

static void must(bool ok, const char *error) { if (!ok) die(EXIT_FAILED, "%s", error); }

// Trains the adapter in use, so that B is not zero, and saves it with the state of one step more.
static void save_state(Transformer *model, const Text *text)
{
    char error[512];
    learn(model, text, 20, 3e-3, 1);
    AdamW *optimizer = new_optimizer(model, 0);
    one_pass(model, text, NULL);
    adamw_step(optimizer, 0);
    zero_grads(model);
    must(adapter_save(model, model->active, "out/q20/base", "out/q20/adapter", error, sizeof error), error);
    TrainingState state = { .model = model, .optimizer = optimizer, .vocabulary = text->vocabulary, .step = 1, .options = train_options_default(),
                            .base_dir = (char[]){ "out/q20/base" } };
    must(state_save("out/q20/adapter", &state, error, sizeof error), error);
    adamw_free(optimizer);
}

int main(void)
{
    question("My adapter's file has 443 bytes. Or 21 GB. How large should it be?");
    predict("r = 8 on c_attn [64,192] of 4 blocks, 4 bytes a number: how many bytes?");

    char error[512] = "";
    Text text = tiny_text("builtin:tales");
    Transformer *model = tiny_model(&text, BLOCKS, WIDTH, 1);
    must(model_save(model, &text.vocabulary, "out/q20/base", error, sizeof error), error);
    bool formula = true, small_header = true;
    int64_t size, adapter = 0, base = numbers_in("out/q20/base/model.safetensors", &size);
    printf("  %-42s %7s %8s %8s\n", "bytes", "formula", "numbers", "file");
    int64_t numbers = transformer_base_size(model) * (int64_t)sizeof(real);
    printf("  %-42s %7" PRId64 " %8" PRId64 " %8" PRId64 "\n", "the base", numbers, base, size);
    for (int k = 0; k < KINDS; k++) {
        Adapter *attached = attach(model, lora_on(kinds[k].targets, kinds[k].r), 1);
        must(adapter_save(model, attached, "out/q20/base", "out/q20/adapter", error, sizeof error), error);
        int sides = kinds[k].targets == ON_ALL ? 16 : 4; // in + out, in widths: 1 + 3; and 1 + 1, 1 + 4, 4 + 1
        int64_t expected = (int64_t)sizeof(real) * BLOCKS * kinds[k].r * sides * WIDTH;
        adapter = numbers_in("out/q20/adapter/adapter_model.safetensors", &size);
        char name[64];
        snprintf(name, sizeof name, "r = %d on %s", kinds[k].r, lora_targets_text(kinds[k].targets));
        printf("  %-42s %7" PRId64 " %8" PRId64 " %8" PRId64 "\n", name, expected, adapter, size);
        formula &= adapter == expected;
        small_header &= size - adapter < 8192;
        if (k < KINDS - 1) transformer_remove_adapter(model, attached);
    }

    save_state(model, &text);
    int64_t state_bytes = numbers_in("out/q20/adapter/training_state.safetensors", &size);
    printf("  %-42s %7" PRId64 " %8" PRId64 " %8" PRId64 "\n", "training state of the last one", 3 * adapter, state_bytes, size);

    Transformer *again = model_load("out/q20/base", NULL, error, sizeof error);
    must(again != NULL && adapter_load(again, "out/q20/adapter", "again", false, error, sizeof error) != NULL, error);
    Tensor *saved = transformer_logits(model, NULL, text.tokens, 1, TINY_T);
    Tensor *loaded = transformer_logits(again, NULL, text.tokens, 1, TINY_T);
    double apart = largest_difference(saved->data, loaded->data, saved->size);
    measured("loaded again: largest difference of a logit", "%g", apart);

    why("For each layer A is r x in and B r x out numbers; all else is a header of a few KB. A file of some hundred bytes "
        "has a header alone, and nothing was saved; one as large as the base holds the base, or the optimizer's state.");
    finding(formula, "each adapter has r (in + out) numbers for each layer, to the byte");
    finding(small_header, "the header takes less than 8 KB");
    finding(base == numbers && adapter < base,
            "the base's file has all its numbers, and is larger than any adapter's");
    finding(state_bytes == 3 * adapter,
            "a state to resume from holds the adapter and both moments of it: three times the bytes");
    finding(apart == 0, "loaded into the base again it gives the same logits, to the bit");
    drop_all(2, (Tensor *[]){ saved, loaded });
    transformer_free(again);
    transformer_free(model);
    text_free(&text);
    return answered();
}
