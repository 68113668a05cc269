// test_peft.c - the behaviours that PEFT's own tests demand of LoRA, as far as they apply here, one test for each.
//
// What does not apply, and why:
//  - init "gaussian" and init_lora_weights False (1): there is one initialisation, A uniform and B zero
//  - merging several adapters in one call, and their output while both are active (5, 14): one adapter at most is in use; two merged one after
//    the other stand for it
//  - after the active adapter is deleted another one takes over (16): here the base runs alone until one is chosen. Deleting an unknown name
//    (16) cannot be written: adapters are given as pointers
//  - add_weighted_adapter (17): adapters are not combined
//  - LoRA+ (21): there is one learning rate

#include "../lora.h"
static void watched_product(Matrix C_, Matrix A, Matrix B_, Part part);
#define product watched_product
#include "../lora.c"
#undef product

#define main adapter_main // the program itself, for what it refuses
#include "../adapter.c"
#undef main

#include "../io/file.h"
#include "../io/safetensors.h"
#include "child.h"
#include "gradcheck.h"
#include "directory.h"
#include "test.h"

#include <sys/stat.h>

enum { V = 11, T = 9, L = 3, H = 2, C = 12, B = 2, N = B * T, ALL = (1 << LINEARS) - 1 };
static const Config small = { .vocab_size = V, .block_size = T, .n_layer = L, .n_head = H, .n_embd = C };
static const int text[N + 1] = { 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 10, 7, 0, 3, 2, 3, 8 };
static const int *const ids = text, *const targets = text + 1;

static char root[300], error[1024];

static double number(real x) { return (double)x; }

// ----------------------------------------------------------------------------------------------------------------------- helpers

static const char *in_root(const char *name) // one of eight buffers, used in turn
{
    static char paths[8][600];
    static int turn;
    char *path = paths[turn = (turn + 1) % 8];
    snprintf(path, sizeof paths[0], "%s/%s", root, name);
    return path;
}

static bool exists(const char *name) { struct stat s; return stat(in_root(name), &s) == 0; }

static void must(bool good)
{
    if (good) return;
    printf("%s\n", error);
    exit(1);
}

static Transformer *new_model(void)
{
    Transformer *model = transformer_new(small, 5, error, sizeof error);
    must(model != NULL);
    for (int i = 0; i < model->parameter_count; i++)
        for (int64_t j = 0; j < model->parameters[i]->size; j++) model->parameters[i]->data[j] += (real)irregular(200 + (uint64_t)i, j, 0.3);
    transformer_train_base(model, false);
    return model;
}

static Adapter *attach(Transformer *model, const char *name, unsigned layers, uint64_t seed)
{
    Adapter *adapter = transformer_add_adapter(model, name, (LoraConfig){ .r = 2, .alpha = 3, .targets = layers, .last_block = -1 }, seed, error, sizeof error);
    must(adapter != NULL);
    return adapter;
}

static void fill_B(Adapter *adapter, uint64_t seed) // as if trained
{
    for (int i = 0; i < L * LINEARS; i++)
        if (adapter->lora[i].B) fill_irregular(adapter->lora[i].B, seed + (uint64_t)i, 0.3);
}

static real *logits_of(const Transformer *model) // a copy, [N,V]
{
    Tensor *y = transformer_logits(model, NULL, ids, B, T);
    real *copy = copy_of(y->data, y->size);
    tensor_drop(y);
    return copy;
}

static double apart(const real *a, const real *b) // the largest difference of logits
{
    double most = 0;
    for (int i = 0; i < N * V; i++) most = fmax(most, fabs(number(a[i]) - number(b[i])));
    return most;
}

static const double BOUND = sizeof(real) == sizeof(double) ? 1e-12 : 1e-4; // of logits computed in another order

static void step_with(Transformer *model, Tape *tape, AdamW *optimizer, double rate)
{
    backward(tape, transformer_loss(model, tape, ids, targets, B, T));
    tape_clear(tape);
    adamw_step(optimizer, rate);
    zero_grads(model);
}

// ---------------------------------------------------------------------------------------------------------------------- behaviours

TEST(p01_fresh_A_is_uniform_and_B_zero)
{
    enum { I = 64, R = 64 };
    Lora lora = lora_new("l", I, 96, R, 1, 8);
    double bound = 1 / sqrt((double)I), most = 0;
    // Kolmogorov and Smirnov: the largest distance of the empirical distribution from the uniform one, times sqrt(n), is
    // above 1.36 in one of twenty samples that are uniform, and near 4 for a normal one of the same deviation
    enum { BINS = 4096 };
    static int64_t below[BINS + 1];
    for (int64_t j = 0; j < lora.A->size; j++) {
        double u = (number(lora.A->data[j]) / bound + 1) / 2;
        EXPECT(u >= 0 && u <= 1, "A[%" PRId64 "] is %g, the bound %g", j, number(lora.A->data[j]), bound);
        below[(int)(u * (BINS - 1)) + 1]++;
    }
    for (int b = 1; b <= BINS; b++) {
        below[b] += below[b - 1];
        most = fmax(most, fabs((double)below[b] / (double)lora.A->size - (double)b / (BINS - 1)));
    }
    EXPECT(most * sqrt((double)lora.A->size) < 1.36, "the distribution is %g from uniform, of sqrt(n) times it %g", most, most * sqrt((double)lora.A->size));
    for (int64_t j = 0; j < lora.B->size; j++) EXPECT(lora.B->data[j] == 0, "B[%" PRId64 "] is %g", j, number(lora.B->data[j]));
    lora_free(&lora);
}

TEST(p02_a_fresh_adapter_changes_no_bit)
{
    Transformer *model = new_model();
    real *base = logits_of(model);
    attach(model, "a", ALL, 3);
    real *fresh = logits_of(model);
    EXPECT(same_bits(base, fresh, N * V), "apart by %g", apart(base, fresh));
    free(base), free(fresh);
    transformer_free(model);
}

// Files as PEFT writes them: A [r,in], B [out,r] for every layer of block 0, with a rank for each.
static void write_adapter(const char *name, const char *json, const int ranks[LINEARS])
{
    static const SafetensorsDtype dtype = sizeof(real) == sizeof(float) ? SAFETENSORS_F32 : SAFETENSORS_F64;
    static real numbers[4 * C * 64];
    SafetensorsTensor tensors[2 * LINEARS];
    char names[2 * LINEARS][120], path[700];
    int shapes[2 * LINEARS][2];
    for (int i = 0; i < (int)(sizeof numbers / sizeof *numbers); i++) numbers[i] = (real)irregular(9, i, 0.5);
    for (int i = 0; i < 2 * LINEARS; i++) {
        LinearKind k = (LinearKind)(i / 2);
        snprintf(names[i], sizeof names[i], "base_model.model.transformer.h.0.%s.lora_%c.weight", linear_names[k], "AB"[i % 2]);
        shapes[i][0] = i % 2 ? linear_outputs(&small, k) : ranks[k];
        shapes[i][1] = i % 2 ? ranks[k] : linear_inputs(&small, k);
        tensors[i] = (SafetensorsTensor){ names[i], dtype, 2, shapes[i], numbers };
    }
    must(file_make_directories(in_root(name), error, sizeof error));
    snprintf(path, sizeof path, "%s/adapter_config.json", in_root(name));
    must(file_write_all(path, json, strlen(json), error, sizeof error));
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", in_root(name));
    must(safetensors_write(path, tensors, 2 * LINEARS, &(SafetensorsMetadata){ "format", "pt" }, 1, error, sizeof error) == SAFETENSORS_OK);
}

TEST(p03_the_scale_is_alpha_over_r_for_each_module)
{
    static const int ranks[LINEARS] = { 25, 16, 9, 25 };              // c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj
    static const double alphas[LINEARS] = { 17, 13, 17, 11 };
    for (int root_of_r = 0; root_of_r < 2; root_of_r++) {
        char json[600];
        snprintf(json, sizeof json, "{\"peft_type\":\"LORA\",\"r\":25,\"lora_alpha\":17,\"use_rslora\":%s,\"target_modules\":[\"c_attn\",\"c_proj\",\"c_fc\"],"
                 "\"layers_to_transform\":[0],\"rank_pattern\":{\"c_fc\":9,\"attn.c_proj\":16},\"alpha_pattern\":{\"mlp.c_proj\":11,\"attn.c_proj\":13}}", root_of_r ? "true" : "false");
        write_adapter("patterns", json, ranks);
        Transformer *model = new_model();
        Adapter *adapter = adapter_load(model, in_root("patterns"), "a", false, error, sizeof error);
        EXPECT(adapter != NULL, "%s", error);
        for (int k = 0; adapter && k < LINEARS; k++) {
            double expected = alphas[k] / (root_of_r ? sqrt((double)ranks[k]) : (double)ranks[k]);
            EXPECT(adapter->lora[k].A->shape[1] == ranks[k] && adapter->lora[k].scale == (real)expected, "%s: rank %d, scale %.9g, not %.9g", linear_names[k],
                   adapter->lora[k].A->shape[1], number(adapter->lora[k].scale), expected);
        }
        transformer_free(model);
    }
    Transformer *model = new_model();
    Adapter *plain = transformer_add_adapter(model, "plain", (LoraConfig){ .r = 25, .alpha = 17, .targets = ALL, .last_block = -1 }, 1, error, sizeof error);
    Adapter *stable = transformer_add_adapter(model, "stable", (LoraConfig){ .r = 25, .alpha = 17, .targets = ALL, .last_block = -1, .rank_stabilized = true }, 1, error, sizeof error);
    for (int i = 0; plain && stable && i < L * LINEARS; i++)
        EXPECT(plain->lora[i].scale == (real)(17.0 / 25) && stable->lora[i].scale == (real)(17.0 / 5), "%g, %g", number(plain->lora[i].scale), number(stable->lora[i].scale));
    transformer_free(model);
}

TEST(p04_merged_equals_unmerged_after_training)
{
    Transformer *model = new_model();
    real *base = logits_of(model);
    attach(model, "a", ALL, 3);
    Tape *tape = tape_new();
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
    for (int i = 0; i < 10; i++) step_with(model, tape, optimizer, 0.02);
    adamw_free(optimizer); // it must not outlive the adapter that it trains
    tape_free(tape);
    real *adapted = logits_of(model);
    transformer_merge(model);
    real *merged = logits_of(model);
    transformer_forget_original(model); // merge_and_unload
    real *unloaded = logits_of(model);
    EXPECT(apart(base, adapted) > 1e-3, "training changed the logits by no more than %g", apart(base, adapted));
    EXPECT(apart(merged, adapted) <= BOUND && apart(merged, base) > 1e-3, "merged and adapted are apart by %g, merged and base by %g", apart(merged, adapted), apart(merged, base));
    EXPECT(same_bits(merged, unloaded, N * V), "forgetting the original changes the logits by %g", apart(merged, unloaded));
    free(base), free(adapted), free(merged), free(unloaded);
    transformer_free(model);
}

TEST(p05_merging_twice_and_one_after_the_other)
{
    Transformer *model = new_model(), *other = new_model();
    real *base = logits_of(model);
    uint64_t hash = transformer_hash(model);
    fill_B(attach(model, "a", ALL, 3), 20);
    real *adapted = logits_of(model);
    transformer_merge(model);
    uint64_t merged = transformer_hash(model);
    transformer_merge(model);
    EXPECT(transformer_hash(model) == merged, "the second merge changed the weights");
    transformer_unmerge(model);
    transformer_unmerge(model);
    real *back = logits_of(model);
    EXPECT(transformer_hash(model) == hash && same_bits(adapted, back, N * V), "unmerging does not give the bits back");
    free(back);
    transformer_use_adapter(model, NULL);
    back = logits_of(model);
    EXPECT(same_bits(base, back, N * V), "the base differs");
    transformer_use_adapter(model, model->adapters);

    // a then b, b then a: W + dA + dB, in either order
    transformer_merge(model);
    transformer_forget_original(model);
    fill_B(attach(model, "b", 1u << C_FC | 1u << C_ATTN, 4), 70);
    transformer_merge(model);
    fill_B(attach(other, "b", 1u << C_FC | 1u << C_ATTN, 4), 70);
    transformer_merge(other);
    transformer_forget_original(other);
    fill_B(attach(other, "a", ALL, 3), 20);
    transformer_merge(other);
    real *ab = logits_of(model), *ba = logits_of(other);
    EXPECT(apart(ab, ba) <= 10 * BOUND && apart(ab, adapted) > 1e-3, "the two orders are apart by %g, both and one by %g", apart(ab, ba), apart(ab, adapted));
    transformer_unmerge(model);
    real *one = logits_of(model); // a's weights, b beside them
    EXPECT(apart(one, ab) <= 10 * BOUND, "apart by %g", apart(one, ab));
    free(base), free(adapted), free(back), free(ab), free(ba), free(one);
    transformer_free(model);
    transformer_free(other);
}

static char broken[600], target[600]; // directories for the child
static void merge_broken(void)
{
    char *arguments[] = { (char[]){ "adapter" }, (char[]){ "merge" }, broken, (char[]){ "--out" }, target, NULL };
    optind = 1;
    _exit(adapter_main(5, arguments));
}

// PEFT's safe_merge: here the weights come back to the bit by unmerging, and the program that saves refuses to.
TEST(p06_a_broken_adapter_does_not_harm_the_base)
{
    static const double bad[] = { (double)NAN, (double)INFINITY, -(double)INFINITY };
    Transformer *model = new_model();
    Vocabulary vocabulary = { V, calloc(V, sizeof(uint32_t)) };
    for (int v = 0; v < V; v++) vocabulary.code_point[v] = (uint32_t)('a' + v);
    must(model_save(model, &vocabulary, in_root("base"), error, sizeof error));
    Adapter *adapter = attach(model, "a", ALL, 3);
    fill_B(adapter, 20);
    uint64_t hash = transformer_hash(model);
    for (int i = 0; i < 6; i++) {
        Tensor *t = i % 2 ? adapter->lora[LINEARS + C_FC].B : adapter->lora[LINEARS + C_FC].A;
        real before = t->data[5];
        t->data[5] = (real)bad[i / 2];
        must(adapter_save(model, adapter, in_root("base"), in_root("broken"), error, sizeof error));
        transformer_merge(model);
        EXPECT(transformer_hash(model) != hash, "merging did nothing");
        transformer_unmerge(model);
        EXPECT(transformer_hash(model) == hash, "%g in %s: unmerging does not give the base back", bad[i / 2], t->name);
        t->data[5] = before;
        snprintf(broken, sizeof broken, "%s", in_root("broken"));
        snprintf(target, sizeof target, "%s", in_root("merged"));
        int status = in_child(merge_broken);
        EXPECT(status == 1 && strstr(said, "mlp.c_fc") && strchr(said, '\n') == said + strlen(said) - 1, "%g in %s: status %d, said: %s", bad[i / 2], t->name, status, said);
        EXPECT(!exists("merged/model.safetensors"), "it saved a model with NaN");
    }
    must(adapter_save(model, adapter, in_root("base"), in_root("broken"), error, sizeof error)); // now a good one
    int status = in_child(merge_broken);
    EXPECT(status == 0 && exists("merged/model.safetensors"), "a good one is refused: status %d, said: %s", status, said);
    vocabulary_free(&vocabulary);
    transformer_free(model);
}

TEST(p07_a_merged_model_is_saved_as_a_plain_one)
{
    Transformer *model = new_model();
    must(model_save(model, NULL, in_root("plain"), error, sizeof error));
    fill_B(attach(model, "a", ALL, 3), 20);
    transformer_merge(model);
    real *merged = logits_of(model);
    must(model_save(model, NULL, in_root("folded"), error, sizeof error));
    Transformer *again = model_load(in_root("folded"), NULL, error, sizeof error);
    EXPECT(again != NULL, "%s", error);
    real *loaded = logits_of(again);
    EXPECT(same_bits(merged, loaded, N * V), "apart by %g", apart(merged, loaded));
    Safetensors *plain, *folded;
    must(!safetensors_open(in_root("plain/model.safetensors"), &plain, error, sizeof error));
    must(!safetensors_open(in_root("folded/model.safetensors"), &folded, error, sizeof error));
    EXPECT(plain->count == folded->count && plain->count == (size_t)model->base_count, "%zu tensors and %zu", plain->count, folded->count);
    for (size_t i = 0; i < folded->count; i++)
        EXPECT(strcmp(folded->entries[i].name, plain->entries[i].name) == 0 && !strstr(folded->entries[i].name, "lora"), "%s", folded->entries[i].name);
    safetensors_close(plain), safetensors_close(folded);
    free(merged), free(loaded);
    transformer_free(again);
    transformer_free(model);
}

TEST(p08_without_its_adapter_the_base_speaks)
{
    Transformer *model = new_model();
    real *base = logits_of(model);
    Adapter *adapter = attach(model, "a", ALL, 3);
    fill_B(adapter, 20);
    real *adapted = logits_of(model);
    for (int round = 0; round < 2; round++) {
        transformer_use_adapter(model, NULL);
        real *off = logits_of(model);
        transformer_use_adapter(model, adapter);
        real *on = logits_of(model);
        EXPECT(same_bits(off, base, N * V) && same_bits(on, adapted, N * V) && apart(on, off) > 1e-3, "off is apart from the base by %g, on from before by %g", apart(off, base), apart(on, adapted));
        free(off), free(on);
        transformer_merge(model); // from merged to the base, and back
        transformer_unmerge(model);
    }
    free(base), free(adapted);
    transformer_free(model);
}

TEST(p09_every_adapter_tensor_has_a_gradient_and_no_base_tensor)
{
    Transformer *model = new_model();
    attach(model, "unused", ALL, 2);
    Adapter *adapter = attach(model, "a", ALL, 3);
    fill_B(adapter, 20);
    Tape *tape = tape_new();
    Tensor *loss = transformer_loss(model, tape, ids, targets, B, T);
    EXPECT(loss->requires_grad, "the adapter trains, and no layer uses it");
    if (!loss->requires_grad) return;
    backward(tape, loss);
    for (int i = 0; i < model->parameter_count; i++) {
        const Tensor *t = model->parameters[i];
        bool mine = strncmp(t->name, "a.", 2) == 0;
        EXPECT((t->grad != NULL) == mine && (!mine || norm_of(t->grad, t->size) > 0), "%s: %s, |g| %g", t->name, t->grad ? "has a gradient" : "has none", norm_of(t->grad, t->size));
    }
    tape_free(tape);
    transformer_free(model);
}

TEST(p10_training_moves_every_adapter_tensor_and_no_base_byte)
{
    Transformer *model = new_model();
    attach(model, "a", ALL, 3);
    real *before[100];
    for (int i = 0; i < model->parameter_count; i++) before[i] = copy_of(model->parameters[i]->data, model->parameters[i]->size);
    Tape *tape = tape_new();
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0, 0 });
    for (int step = 0; step < 3; step++) step_with(model, tape, optimizer, 0.01);
    for (int i = 0; i < model->parameter_count; i++) {
        const Tensor *t = model->parameters[i];
        double most = 0;
        for (int64_t j = 0; j < t->size; j++) most = fmax(most, fabs(number(t->data[j]) - number(before[i][j])));
        if (i < model->base_count) EXPECT(same_bits(t->data, before[i], t->size), "the frozen %s moved by %g", t->name, most);
        else EXPECT(most > 1e-4, "%s moved by no more than %g", t->name, most);
        free(before[i]);
    }
    adamw_free(optimizer);
    tape_free(tape);
    transformer_free(model);
}

TEST(p11_one_block_alone_can_be_adapted)
{
    Transformer *model = new_model();
    Adapter *all = attach(model, "all", ALL, 3);
    Adapter *first = transformer_add_adapter(model, "first", (LoraConfig){ .r = 2, .alpha = 3, .targets = ALL, .first_block = 0, .last_block = 0 }, 3, error, sizeof error);
    EXPECT(first != NULL && adapter_size(first) * L == adapter_size(all), "the sizes are wrong");
    for (int i = 0; first && i < L * LINEARS; i++) EXPECT((first->lora[i].A != NULL) == (i < LINEARS), "block %d", i / LINEARS);
    transformer_free(model);
}

TEST(p12_a_saved_adapter_comes_back_alone)
{
    Transformer *model = new_model();
    Adapter *adapter = attach(model, "a", ALL, 3);
    fill_B(adapter, 20);
    real *adapted = logits_of(model);
    must(adapter_save(model, adapter, "base", in_root("saved"), error, sizeof error));
    EXPECT(exists("saved/adapter_model.safetensors") && exists("saved/adapter_config.json"), "a file is missing");
    EXPECT(!exists("saved/model.safetensors") && !exists("saved/config.json"), "the base was saved as well");
    char *json, path[700];
    size_t size;
    snprintf(path, sizeof path, "%s/adapter_config.json", in_root("saved"));
    must(file_read(path, 1 << 20, &json, &size, error, sizeof error));
    EXPECT(strstr(json, "\"inference_mode\": true"), "%s", json);
    free(json);
    Transformer *again = new_model();
    attach(again, "in the way", ALL, 99);
    Adapter *loaded = adapter_load(again, in_root("saved"), "another name", false, error, sizeof error);
    EXPECT(loaded != NULL && again->active == loaded, "%s", error);
    for (int i = 0; loaded && i < L * LINEARS; i++) {
        EXPECT(same_bits(adapter->lora[i].A->data, loaded->lora[i].A->data, loaded->lora[i].A->size), "A of layer %d", i);
        EXPECT(same_bits(adapter->lora[i].B->data, loaded->lora[i].B->data, loaded->lora[i].B->size), "B of layer %d", i);
    }
    real *same = logits_of(again);
    EXPECT(same_bits(adapted, same, N * V), "apart by %g", apart(adapted, same));
    free(adapted), free(same);
    transformer_free(model);
    transformer_free(again);
}

TEST(p13_one_of_several_is_saved_and_names_do_not_matter)
{
    static const char *const names[] = { "a", "ab", "b", "base" };
    Transformer *model = new_model();
    Adapter *adapters[4];
    real *logits[4];
    for (int i = 0; i < 4; i++) {
        adapters[i] = attach(model, names[i], i == 2 ? 1u << C_FC : ALL, 3 + (uint64_t)(i % 3)); // the last is the first under another name
        fill_B(adapters[i], 20 + (uint64_t)(i % 3));
        logits[i] = logits_of(model);
    }
    EXPECT(same_bits(logits[0], logits[3], N * V), "the name makes a difference of %g", apart(logits[0], logits[3]));
    for (int i = 0; i < 3; i++) {
        must(adapter_save(model, adapters[i], "base", in_root("one"), error, sizeof error));
        Safetensors *file;
        must(!safetensors_open(in_root("one/adapter_model.safetensors"), &file, error, sizeof error));
        EXPECT(file->count == (i == 2 ? 2 * L : 2 * L * LINEARS), "%s: %zu tensors", names[i], file->count);
        for (size_t j = 0; j < file->count; j++) EXPECT(strncmp(file->entries[j].name, "base_model.model.transformer.h.", 31) == 0, "%s", file->entries[j].name);
        safetensors_close(file);
        Transformer *again = new_model();
        EXPECT(adapter_load(again, in_root("one"), "x", false, error, sizeof error) != NULL, "%s", error);
        real *loaded = logits_of(again);
        EXPECT(same_bits(loaded, logits[i], N * V), "%s: apart by %g", names[i], apart(loaded, logits[i]));
        free(loaded);
        transformer_free(again);
    }
    for (int i = 0; i < 4; i++) free(logits[i]);
    transformer_free(model);
}

TEST(p14_switching_back_and_forth)
{
    Transformer *model = new_model();
    Adapter *a = attach(model, "a", ALL, 3);
    fill_B(a, 20);
    real *first = logits_of(model);
    Adapter *b = attach(model, "b", ALL, 4);
    fill_B(b, 70);
    real *second = logits_of(model);
    transformer_use_adapter(model, a);
    real *again = logits_of(model);
    EXPECT(same_bits(first, again, N * V) && apart(first, second) > 1e-3, "a and a again are apart by %g, a and b by %g", apart(first, again), apart(first, second));
    free(again);
    transformer_merge(model); // both: a is folded in, b rides on top
    transformer_forget_original(model);
    transformer_use_adapter(model, b);
    real *both = logits_of(model);
    EXPECT(apart(both, first) > 1e-3 && apart(both, second) > 1e-3, "both together are apart from a by %g, from b by %g", apart(both, first), apart(both, second));
    free(first), free(second), free(both);
    transformer_free(model);
}

TEST(p15_rows_of_a_batch_may_use_different_adapters)
{
    Transformer *model = new_model();
    Adapter *b = attach(model, "b", 1u << C_FC, 4), *a = attach(model, "a", ALL, 3);
    fill_B(a, 20), fill_B(b, 70);
    real *together = logits_of(model);
    const Adapter *const pairs[][B] = { { a, b }, { b, a }, { NULL, a }, { b, NULL }, { a, a }, { NULL, NULL } };
    for (int i = 0; i < 6; i++) {
        Tensor *mixed = transformer_logits_mixed(model, pairs[i], ids, B, T);
        EXPECT(model->active == a, "another adapter is in use now");
        for (int row = 0; row < B; row++) {
            transformer_use_adapter(model, pairs[i][row] == a ? a : pairs[i][row] == b ? b : NULL);
            Tensor *alone = transformer_logits(model, NULL, ids + row * T, 1, T);
            EXPECT(same_bits(alone->data, mixed->data + row * T * V, T * V), "pair %d, row %d has other bits than with its adapter alone", i, row);
            tensor_drop(alone);
        }
        transformer_use_adapter(model, a);
        tensor_drop(mixed);
    }
    for (int row = 0; row < B; row++) {
        Tensor *alone = transformer_logits(model, NULL, ids + row * T, 1, T);
        EXPECT(same_bits(alone->data, together + row * T * V, T * V), "row %d has other bits when it is alone", row);
        tensor_drop(alone);
    }
    free(together);
    transformer_free(model);
}

static void remove_while_merged(void)
{
    Transformer *model = new_model();
    fill_B(attach(model, "a", ALL, 3), 20);
    transformer_merge(model);
    transformer_remove_adapter(model, model->active);
}

TEST(p16_removing_adapters)
{
    Transformer *model = new_model();
    real *base = logits_of(model);
    Adapter *a = attach(model, "a", ALL, 3);
    fill_B(a, 20);
    real *first = logits_of(model);
    Adapter *b = attach(model, "b", ALL, 4);
    fill_B(b, 70);
    transformer_remove_adapter(model, b);
    real *now = logits_of(model);
    EXPECT(model->active == NULL && model->adapters == a && same_bits(now, base, N * V), "after the active one is gone, the base does not run alone");
    free(now);
    transformer_use_adapter(model, a);
    now = logits_of(model);
    EXPECT(same_bits(now, first, N * V), "the remaining one gives other bits");
    free(now);
    transformer_remove_adapter(model, a);
    now = logits_of(model);
    EXPECT(model->adapters == NULL && model->parameter_count == model->base_count && same_bits(now, base, N * V), "after the last one is gone, the base is not alone");
    free(now), free(base), free(first);
    transformer_free(model);
    int status = in_child(remove_while_merged);
    EXPECT(status == -1 && strstr(said, "remove_adapter: a is merged; unmerge it first"), "status %d, said: %s", status, said);
}

TEST(p18_unloading_gives_the_base_back)
{
    Transformer *model = new_model();
    uint64_t hash = transformer_hash(model);
    real *base = logits_of(model);
    int count = model->parameter_count;
    int64_t bytes = ledger.total;
    fill_B(attach(model, "a", ALL, 3), 20);
    transformer_remove_adapter(model, model->active);
    real *unloaded = logits_of(model);
    EXPECT(same_bits(base, unloaded, N * V) && transformer_hash(model) == hash, "apart by %g", apart(base, unloaded));
    EXPECT(model->parameter_count == count && ledger.total == bytes, "%d tensors, not %d; %" PRId64 " bytes, not %" PRId64, model->parameter_count, count, ledger.total, bytes);
    free(base), free(unloaded);
    transformer_free(model);
}

// What is refused must leave everything as it was.
static void expect_refused(Transformer *model, const Adapter *added, const char *word)
{
    EXPECT(added == NULL && strstr(error, word) && !strchr(error, '\n'), "%s: %s", added ? "accepted" : "refused", error);
    EXPECT(model->adapters != NULL && model->adapters->next == NULL && model->active == model->adapters && model->parameter_count == model->base_count + 2 * L * LINEARS,
           "something of the refused adapter is there");
}

TEST(p19_what_is_refused_leaves_nothing_behind)
{
    static const int ranks[LINEARS] = { 2, 2, 2, 2 };
    Transformer *model = new_model();
    fill_B(attach(model, "a", ALL, 3), 20);
    real *before = logits_of(model);
    int64_t bytes = ledger.total;
    LoraConfig good = { .r = 2, .alpha = 3, .targets = ALL, .last_block = -1 };
    expect_refused(model, transformer_add_adapter(model, "a", good, 3, error, sizeof error), "already attached");
    for (int i = 0; i < 2; i++) {
        char json[400];
        snprintf(json, sizeof json, "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":[\"c_attn\",\"c_proj\",\"c_fc\"],\"layers_to_transform\":[0],\"bias\":\"%s\"}", i ? "lora_only" : "all");
        write_adapter("biased", json, ranks);
        expect_refused(model, adapter_load(model, in_root("biased"), "b", false, error, sizeof error), "bias");
    }
    real *after = logits_of(model);
    EXPECT(same_bits(before, after, N * V) && ledger.total == bytes, "logits apart by %g, %" PRId64 " bytes more", apart(before, after), ledger.total - bytes);
    free(before), free(after);
    transformer_free(model);
}

TEST(p20_no_rank_and_no_such_layer)
{
    static const int ranks[LINEARS] = { 2, 2, 2, 2 };
    Transformer *model = new_model();
    fill_B(attach(model, "a", ALL, 3), 20);
    for (int r = -1; r <= 0; r++) {
        char json[200];
        expect_refused(model, transformer_add_adapter(model, "b", (LoraConfig){ .r = r, .alpha = 3, .targets = ALL, .last_block = -1 }, 3, error, sizeof error), "a rank is at least 1");
        snprintf(json, sizeof json, "{\"peft_type\":\"LORA\",\"r\":%d,\"target_modules\":[\"c_attn\",\"c_proj\",\"c_fc\"],\"layers_to_transform\":[0]}", r);
        write_adapter("ranks", json, ranks);
        expect_refused(model, adapter_load(model, in_root("ranks"), "b", false, error, sizeof error), "r");
    }
    LoraLayer layers[L * LINEARS] = { { 2, 1 }, { 2, (double)INFINITY } };
    expect_refused(model, transformer_add_layers(model, "b", (LoraConfig){ .targets = ALL }, layers, 3, error, sizeof error), "a finite number is needed");
    const char *bad = "";
    EXPECT(lora_targets("c_attn,q_proj", &bad) == 0 && strcmp(bad, "q_proj") == 0, "the word at fault is %s", bad);
    write_adapter("nowhere", "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":[\"q_proj\",\"v_proj\"]}", ranks);
    expect_refused(model, adapter_load(model, in_root("nowhere"), "b", false, error, sizeof error), "target_modules");
    transformer_free(model);
}

// ---------------------------------------------------------------------------------------------- the program, against plain loops

static char *words[10];
static void call_adapter(void) // in a child; what it prints goes where its errors go
{
    int count = 0;
    while (words[count] != NULL) count++;
    dup2(STDERR_FILENO, STDOUT_FILENO);
    optind = 1;
    int status = adapter_main(count, words);
    fflush(stdout);
    _exit(status);
}

#define CALL(...) (memcpy(words, (char *[10]){ (char[]){ "adapter" }, __VA_ARGS__ }, sizeof words), in_child(call_adapter))

static double entry(const Lora *lora, int i, int o) // of s A B
{
    double sum = 0;
    if (lora->A == NULL) return 0;
    for (int r = 0; r < lora->A->shape[1]; r++)
        sum += number(lora->A->data[i * lora->A->shape[1] + r]) * number(lora->B->data[r * lora->B->shape[1] + o]);
    return number(lora->scale) * sum;
}

static double length(const Tensor *t)
{
    double sum = 0;
    for (int64_t j = 0; j < t->size; j++) sum += number(t->data[j]) * number(t->data[j]);
    return sqrt(sum);
}

static bool near(double printed, double value) { return fabs(printed - value) <= 6e-4 * fabs(value) + 1e-7; } // four digits

static const char *line_of_layer(int i) // of the table in `said`; NULL: there is none
{
    char name[60];
    snprintf(name, sizeof name, "\nh.%d.%s ", i / LINEARS, linear_names[i % LINEARS]);
    const char *at = strstr(said, name);
    return at ? at + strlen(name) : NULL;
}

static int longest_line(const char *first) // of those that begin with one of these letters; "": of all
{
    int most = 0;
    for (const char *at = said; *at != '\0'; at += strcspn(at, "\n"), at += *at == '\n') {
        int n = (int)strcspn(at, "\n");
        if (n > most && (*first == '\0' || (n > 0 && strchr(first, *at)))) most = n;
    }
    return most;
}

static Vocabulary some_letters(void)
{
    Vocabulary vocabulary = { V, calloc(V, sizeof(uint32_t)) };
    for (int v = 0; v < V; v++) vocabulary.code_point[v] = (uint32_t)('a' + v);
    return vocabulary;
}

TEST(info_and_diff_say_what_plain_loops_say)
{
    Transformer *model = new_model();
    must(model_save(model, NULL, in_root("base"), error, sizeof error));
    Adapter *a = attach(model, "a", 1u << C_ATTN | 1u << C_FC | 1u << MLP_C_PROJ, 3), *b = transformer_add_adapter(model, "b",
        (LoraConfig){ .r = 5, .alpha = 2, .targets = 1u << C_ATTN | 1u << ATTN_C_PROJ, .first_block = 1, .last_block = -1 }, 4, error, sizeof error);
    must(b != NULL);
    fill_B(a, 20), fill_B(b, 50);
    for (int k = 0; k < 2 * C; k++) // in one layer they go the same way in part
        b->lora[LINEARS + C_ATTN].A->data[k / 2 * 5 + k % 2] = a->lora[LINEARS + C_ATTN].A->data[k];
    for (int k = 0; k < 2 * 3 * C; k++) b->lora[LINEARS + C_ATTN].B->data[k] = a->lora[LINEARS + C_ATTN].B->data[k];
    must(adapter_save(model, a, in_root("base"), in_root("first"), error, sizeof error));
    must(adapter_save(model, b, in_root("base"), in_root("second"), error, sizeof error));
    char first[600], second[600];
    snprintf(first, sizeof first, "%s", in_root("first"));
    snprintf(second, sizeof second, "%s", in_root("second"));
    EXPECT(CALL((char[]){ "info" }, first) == 0 && longest_line("hl") <= 80, "%s", said);
    EXPECT(strstr(said, "\nlayer ") && !strstr(said, "exactly 0"), "%s", said);
    for (int i = 0; i < L * LINEARS; i++) {
        const Lora *lora = &a->lora[i];
        const char *line = line_of_layer(i);
        const Tensor *W = model->blocks[i / LINEARS].linear[i % LINEARS].weight;
        double sum = 0, scale, A, B_, change, percent;
        int r;
        EXPECT((line != NULL) == (lora->A != NULL), "layer %d: %s", i, said);
        if (line == NULL || lora->A == NULL) continue;
        for (int k = 0; k < W->shape[0]; k++)
            for (int o = 0; o < W->shape[1]; o++) sum += entry(lora, k, o) * entry(lora, k, o);
        EXPECT(sscanf(line, "%d %lf %lf %lf %lf %lf%%", &r, &scale, &A, &B_, &change, &percent) == 6, "%s", line);
        EXPECT(r == 2 && near(scale, 1.5) && near(A, length(lora->A)) && near(B_, length(lora->B)) && near(change, sqrt(sum)),
               "layer %d: %.40s is |A| %g, |B| %g, |s A B| %g", i, line, length(lora->A), length(lora->B), sqrt(sum));
        EXPECT(fabs(percent - 100 * sqrt(sum) / length(W)) < 0.0051, "layer %d: %g %%, not %g", i, percent, 100 * sqrt(sum) / length(W));
    }
    EXPECT(CALL((char[]){ "diff" }, first, second) == 0 && longest_line("hl") <= 80, "%s", said);
    for (int i = 0; i < L * LINEARS; i++) {
        const Lora *x = &a->lora[i], *y = &b->lora[i];
        const char *line = line_of_layer(i);
        double xx = 0, yy = 0, dd = 0, xy = 0, printed[4];
        EXPECT((line != NULL) == (x->A != NULL || y->A != NULL), "layer %d: %s", i, said);
        if (line == NULL) continue;
        const Tensor *W = model->blocks[i / LINEARS].linear[i % LINEARS].weight;
        for (int k = 0; k < W->shape[0]; k++)
            for (int o = 0; o < W->shape[1]; o++) {
                double u = entry(x, k, o), v = entry(y, k, o);
                xx += u * u, yy += v * v, xy += u * v, dd += (u - v) * (u - v);
            }
        double cosine = xx > 0 && yy > 0 ? xy / sqrt(xx) / sqrt(yy) : 0;
        EXPECT(sscanf(line, "%lf %lf %lf %lf", &printed[0], &printed[1], &printed[2], &printed[3]) == 4, "%s", line);
        EXPECT(near(printed[0], sqrt(xx)) && near(printed[1], sqrt(yy)) && near(printed[2], sqrt(dd)) && fabs(printed[3] - cosine) < 5.1e-5,
               "layer %d: %.48s is %g %g %g %g", i, line, sqrt(xx), sqrt(yy), sqrt(dd), cosine);
    }
    transformer_free(model);
}

// Numbers with few digits, so that every sum and product is exact in any order: then W + s A B is one number, and the file has it.
static void make_exact(Tensor *t, uint64_t seed, double unit)
{
    for (int64_t j = 0; j < t->size; j++) t->data[j] = (real)(unit * ((double)(random_bits(seed, (uint64_t)j) % 33) - 16));
}

TEST(merged_values_are_right_to_the_bit)
{
    static const struct { SafetensorsDtype base, merged; const char *option; } cases[] = {
        { SAFETENSORS_F32, SAFETENSORS_F32, NULL }, { SAFETENSORS_BF16, SAFETENSORS_BF16, NULL }, { SAFETENSORS_F16, SAFETENSORS_F16, NULL },
        { SAFETENSORS_BF16, SAFETENSORS_F32, "float32" }, { SAFETENSORS_F32, SAFETENSORS_F16, "float16" },
    };
    static unsigned char wanted[8 * 4 * C * C], is[sizeof wanted];
    Vocabulary vocabulary = some_letters();
    Transformer *model = new_model();
    for (int i = 0; i < model->base_count; i++) make_exact(model->parameters[i], 300 + (uint64_t)i, 1.0 / 16);
    Adapter *adapter = attach(model, "a", 1u << C_ATTN | 1u << MLP_C_PROJ, 3);
    for (int i = model->base_count; i < model->parameter_count; i++) make_exact(model->parameters[i], 400 + (uint64_t)i, 1.0 / 8);
    char base[600], lora[600], out[600], option[20];
    snprintf(base, sizeof base, "%s", in_root("exact"));
    snprintf(lora, sizeof lora, "%s", in_root("lora"));
    must(adapter_save(model, adapter, base, lora, error, sizeof error));
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        Settings settings = { .dtype = cases[c].base };
        must(model_save_with(model, &vocabulary, &settings, base, error, sizeof error));
        snprintf(out, sizeof out, "%s-%zu", in_root("bits"), c);
        snprintf(option, sizeof option, "%s", cases[c].option ? cases[c].option : "");
        int status = cases[c].option ? CALL((char[]){ "merge" }, lora, (char[]){ "--out" }, out, (char[]){ "--dtype" }, option)
                                     : CALL((char[]){ "merge" }, lora, (char[]){ "--out" }, out);
        const char *type = model_dtype_name(cases[c].merged), *was = model_dtype_name(cases[c].base);
        size_t width = cases[c].merged == SAFETENSORS_F32 ? 4 : 2;
        char says[200];
        snprintf(says, sizeof says, ", %s of %s; the base is in %s\n", bytes_text((double)width * (double)transformer_base_size(model)), type, was);
        EXPECT(status == 0 && strstr(said, says), "status %d: %s, not %s", status, said, says);
        Safetensors *file;
        char path[700];
        snprintf(path, sizeof path, "%s/model.safetensors", out);
        must(!safetensors_open(path, &file, error, sizeof error));
        int inexact = 0;
        for (int p = 0; p < model->base_count; p++) {
            const Tensor *t = model->parameters[p];
            const SafetensorsEntry *e;
            const Lora *layer = NULL;
            for (int i = 0; i < L * LINEARS; i++) if (model->blocks[i / LINEARS].linear[i % LINEARS].weight == t) layer = &adapter->lora[i];
            must(!safetensors_find(file, t->name, &e, error, sizeof error));
            EXPECT(e->dtype == cases[c].merged && e->end - e->begin == width * (size_t)t->size && t->size * 8 <= (int64_t)sizeof wanted, "%s", t->name);
            for (int64_t j = 0; j < t->size; j++) { // row after row
                int O = t->ndim > 1 ? t->shape[1] : 1;
                double exact = number(t->data[j]) + (layer ? entry(layer, (int)(j / O), (int)(j % O)) : 0);
                safetensors_convert(&exact, SAFETENSORS_F64, 1, wanted + (size_t)j * width, cases[c].merged);
                inexact += (double)(float)exact != exact;
            }
            must(pread(file->fd, is, e->end - e->begin, (off_t)(file->data_start + e->begin)) == (ssize_t)(e->end - e->begin));
            EXPECT(memcmp(is, wanted, e->end - e->begin) == 0, "case %zu: %s has other bits", c, t->name);
        }
        EXPECT(inexact == 0, "%d numbers are not exact in 32 bits: what is demanded depends on an order", inexact);
        safetensors_close(file);
    }
    vocabulary_free(&vocabulary);
    transformer_free(model);
}

// Each thread that there is takes its part of each layer's product (lora.c's calls come here).
static _Atomic int product_calls[8], product_counts[8];
static void watched_product(Matrix C_, Matrix A, Matrix B_, Part part)
{
    if (part.index < 8) product_calls[part.index]++;
    if (part.count < 8) product_counts[part.count]++;
    product(C_, A, B_, part);
}

TEST(threads_share_the_work_of_a_merge)
{
    Transformer *model = new_model();
    fill_B(attach(model, "a", ALL, 3), 20);
    uint64_t hash = 0;
    for (int threads = 1; threads <= 3; threads++) {
        parallel_set_threads(threads);
        int parts = parallel_threads(); // 1 without fast/
        for (int i = 0; i < 8; i++) product_calls[i] = product_counts[i] = 0;
        transformer_merge(model);
        for (int i = 0; i < 8; i++)
            EXPECT(product_calls[i] == (i < parts ? L * LINEARS : 0), "%d threads: part %d of %d layers", parts, i, (int)product_calls[i]);
        EXPECT(product_counts[parts] == parts * L * LINEARS, "%d threads: %d calls", parts, (int)product_counts[parts]);
        if (threads == 1) hash = transformer_hash(model);
        EXPECT(transformer_hash(model) == hash, "%d threads give other bits", threads);
        transformer_unmerge(model);
    }
    parallel_set_threads(1);
    transformer_free(model);
}

TEST(a_merged_model_needs_a_directory_of_its_own)
{
    Transformer *model = new_model();
    Vocabulary vocabulary = some_letters();
    must(model_save(model, &vocabulary, in_root("base"), error, sizeof error));
    Adapter *adapter = attach(model, "a", ALL, 3);
    fill_B(adapter, 20);
    must(adapter_save(model, adapter, in_root("base"), in_root("own"), error, sizeof error));
    char lora[600], out[600];
    snprintf(lora, sizeof lora, "%s", in_root("own"));
    static const char *const files[] = { "adapter_config.json", "adapter_model.safetensors" };
    EXPECT(CALL((char[]){ "merge" }, lora, (char[]){ "--out" }, lora) == 2 && strstr(said, "holds an adapter"), "%s", said);
    EXPECT(!exists("own/model.safetensors") && !exists("own/config.json"), "a model was saved beside an adapter");
    for (int i = 0; i < 2; i++) { // either of its two files is enough
        char path[700];
        snprintf(out, sizeof out, "%s-%d", in_root("half"), i);
        snprintf(path, sizeof path, "%s/%s", out, files[i]);
        must(file_make_directories(out, error, sizeof error) && file_write_all(path, "x", 1, error, sizeof error));
        EXPECT(CALL((char[]){ "merge" }, lora, (char[]){ "--out" }, out) == 2 && strstr(said, "holds an adapter"), "%s: %s", files[i], said);
    }
    EXPECT(CALL((char[]){ "merge" }, lora, (char[]){ "--out" }, out, (char[]){ "--dtype" }, (char[]){ "int8" }) == 2 && strstr(said, "bfloat16"), "%s", said);
    model->blocks[1].linear[C_FC].weight->data[3] = (real)65519.5; // the nearest in float16 is the largest that there is,
    for (int i = 0; i < 2; i++, model->blocks[1].linear[C_FC].weight->data[3] = (real)65520) { // ... and of this infinity
        transformer_use_adapter(model, adapter);
        must(model_save(model, &vocabulary, in_root("base"), error, sizeof error));
        must(adapter_save(model, attach(model, i ? "c" : "b", 1u << C_ATTN, 3), in_root("base"), in_root("own"), error, sizeof error));
        snprintf(out, sizeof out, "%s-%d", in_root("sixteen"), i);
        int status = CALL((char[]){ "merge" }, lora, (char[]){ "--out" }, out, (char[]){ "--dtype" }, (char[]){ "float16" });
        EXPECT(i == 0 ? status == 0 : status == 1 && strstr(said, "too large for float16"), "%d: %s", status, said);
        EXPECT(directory_holds(out, "model.safetensors") == (i == 0), "an infinite number was saved");
    }
    EXPECT(CALL(NULL) == 0 && strstr(said, "./adapter merge") && longest_line("") <= 80, "%s", said); // alone: its help
    vocabulary_free(&vocabulary);
    transformer_free(model);
}

int main(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/meltwater-peft-XXXXXX", base ? base : "/tmp");
    if (mkdtemp(root) == NULL) { perror(root); return 1; }
    RUN(p01_fresh_A_is_uniform_and_B_zero);
    RUN(p02_a_fresh_adapter_changes_no_bit);
    RUN(p03_the_scale_is_alpha_over_r_for_each_module);
    RUN(p04_merged_equals_unmerged_after_training);
    RUN(p05_merging_twice_and_one_after_the_other);
    RUN(p06_a_broken_adapter_does_not_harm_the_base);
    RUN(p07_a_merged_model_is_saved_as_a_plain_one);
    RUN(p08_without_its_adapter_the_base_speaks);
    RUN(p09_every_adapter_tensor_has_a_gradient_and_no_base_tensor);
    RUN(p10_training_moves_every_adapter_tensor_and_no_base_byte);
    RUN(p11_one_block_alone_can_be_adapted);
    RUN(p12_a_saved_adapter_comes_back_alone);
    RUN(p13_one_of_several_is_saved_and_names_do_not_matter);
    RUN(p14_switching_back_and_forth);
    RUN(p15_rows_of_a_batch_may_use_different_adapters);
    RUN(p16_removing_adapters);
    RUN(p18_unloading_gives_the_base_back);
    RUN(p19_what_is_refused_leaves_nothing_behind);
    RUN(p20_no_rank_and_no_such_layer);
    RUN(info_and_diff_say_what_plain_loops_say);
    RUN(merged_values_are_right_to_the_bit);
    RUN(threads_share_the_work_of_a_merge);
    RUN(a_merged_model_needs_a_directory_of_its_own);
    remove_all(root);
    return test_summary();
}
