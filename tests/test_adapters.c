// test_adapters.c - adapters on a model: fresh, merged, switched, removed, in training, and what is refused.

#include "../meter.h"
#include "small_model.h"
#include "test.h"

TEST(a_fresh_adapter_changes_no_bit)
{
    Transformer *model = model_of(2, 0);
    make_irregular(model);
    real *base = logits_of(model);
    Adapter *adapter = adapter_on(model, "a", ALL_LINEARS, 0, -1, 3);
    EXPECT(model->active == adapter && model->blocks[1].linear[C_FC].lora != NULL, "it is not in use");
    real *fresh = logits_of(model);
    EXPECT(same_bits(base, fresh, N * V), "a fresh adapter changes the logits");
    for (int i = 0; i < 2 * LINEARS; i++) {
        const Tensor *A = adapter->lora[i].A, *B_ = adapter->lora[i].B;
        double bound = 1 / sqrt((double)A->shape[0]), most = 0;
        for (int64_t j = 0; j < A->size; j++) most = fmax(most, fabs(number(A->data[j])));
        EXPECT(most <= bound * (1 + EPSILON) && most > 0.7 * bound, "%s: entries up to %g, the bound is %g", A->name, most, bound);
        EXPECT(norm_of(B_->data, B_->size) == 0 && A->requires_grad && B_->requires_grad, "%s is not zero, or does not train", B_->name);
        EXPECT(A->shape[0] == linear_inputs(&model->config, (LinearKind)(i % LINEARS)) && A->shape[1] == 2 && B_->shape[0] == 2 &&
               B_->shape[1] == linear_outputs(&model->config,
                       (LinearKind)(i % LINEARS)), "%s %s, %s %s", A->name, shape_text(A), B_->name, shape_text(B_));
        EXPECT(fabs(number(adapter->lora[i].scale) - 1.5) < EPSILON, "the scale is %g, not alpha / r", number(adapter->lora[i].scale));
    }
    EXPECT(!same_bits(adapter->lora[0].A->data, adapter->lora[LINEARS].A->data, C), "two layers got the same A");
    fill_B(model, adapter, 0.5);
    real *filled = logits_of(model);
    EXPECT(!same_bits(base, filled, N * V), "an adapter with B not zero changes nothing");
    free(base), free(fresh), free(filled);
    transformer_free(model);
}

TEST(merged_equals_unmerged)
{
    Transformer *model = model_of(2, 0);
    make_irregular(model);
    Adapter *adapter = adapter_on(model, "a", ALL_LINEARS, 0, -1, 3);
    transformer_train_base(model, false);
    real *base = logits_of(model);
    Tape *tape = tape_new();
    AdamW *optimizer = optimizer_of(model, 0.1);
    train(model, tape, optimizer, ids, targets, 10, 0.05);
    real *before = logits_of(model);
    EXPECT(!same_bits(base, before, N * V), "training the adapter changed nothing");
    uint64_t hash = transformer_hash(model);
    int64_t weights = ledger.live[MEMORY_WEIGHTS];
    for (int round = 0; round < 3; round++) {
        transformer_merge(model);
        if (round == 1) transformer_merge(model); // a second time: nothing more is added
        EXPECT(transformer_hash(model) != hash, "merging changed no weight");
        real *after = logits_of(model);
        double worst = 0, largest = 0;
        for (int64_t i = 0; i < N * V; i++) {
            worst = fmax(worst, fabs(number(before[i]) - number(after[i])));
            largest = fmax(largest, fabs(number(before[i])));
        }
        EXPECT(worst <= (IN_DOUBLE ? 1e-10 : 1e-4) * largest, "round %d: merged and unmerged logits differ by %g of %g",
                round, worst, largest);
        free(after);
        transformer_unmerge(model);
        EXPECT(transformer_hash(model) == hash && ledger.live[MEMORY_WEIGHTS] == weights,
                "round %d: unmerging does not give the base back", round);
        after = logits_of(model);
        EXPECT(same_bits(before, after, N * V), "round %d: other bits after unmerging", round);
        free(after);
    }
    adamw_free(optimizer); // it must not outlive the adapter that it trains
    tape_free(tape);
    transformer_forget_original(model);
    EXPECT(model->active == adapter, "nothing is merged, and the adapter is put away");
    transformer_merge(model);
    uint64_t merged = transformer_hash(model);
    real *kept = logits_of(model);
    transformer_forget_original(model);
    transformer_unmerge(model); // nothing to go back to
    real *forgotten = logits_of(model);
    EXPECT(transformer_hash(model) == merged && ledger.live[MEMORY_WEIGHTS] == weights && same_bits(kept, forgotten, N * V),
            "the merged weights are not the only ones");
    EXPECT(model->active == NULL && model->adapters == NULL && model->blocks[0].linear[C_ATTN].lora == NULL,
            "the adapter is still in use on top of the merged weights");
    free(base), free(before), free(kept), free(forgotten);
    fill_B(model, adapter_on(model, "b", ALL_LINEARS, 0, -1, 5), 0.1);
    transformer_merge(model);
    transformer_free(model); // while it is merged
    EXPECT(ledger.live[MEMORY_WEIGHTS] == 0 && ledger.live[MEMORY_ADAPTERS] == 0, "%" PRId64 " bytes of weights are left",
            ledger.live[MEMORY_WEIGHTS]);
}

TEST(adapters_can_be_switched_and_removed)
{
    Transformer *model = model_of(2, 0);
    make_irregular(model);
    transformer_train_base(model, false);
    real *base = logits_of(model);
    uint64_t hash = transformer_hash(model);
    Adapter *a = adapter_on(model, "a", 1u << C_ATTN, 0, -1, 3), *b = adapter_on(model, "b", 1u << C_FC | 1u << MLP_C_PROJ,
            1, 1, 4), *c = adapter_on(model, "c", ALL_LINEARS, 0, 0, 5);
    fill_B(model, a, 0.5), fill_B(model, b, 0.5), fill_B(model, c, 0.5);
    EXPECT(model->active == c && model->parameter_count == model->base_count + 4 + 4 + 8, "%d parameters", model->parameter_count);
    Adapter *const order[] = { a, b, a, NULL, c, a };
    real *first_a = NULL;
    for (int i = 0; i < 6; i++) {
        transformer_use_adapter(model, order[i]);
        real *logits = logits_of(model);
        if (i == 0) first_a = copy_of(logits, N * V);
        if (order[i] == a) EXPECT(same_bits(first_a, logits, N * V), "use %d: adapter a gives other bits", i);
        else EXPECT(!same_bits(first_a, logits, N * V), "use %d: the logits are still those of a", i);
        EXPECT(same_bits(base, logits, N * V) == (order[i] == NULL), "use %d: the base's bits, or not", i);
        int64_t trainable = order[i] ? adapter_size(order[i]) : 0;
        EXPECT(transformer_trainable_size(model) == trainable, "use %d: %" PRId64 " numbers train, not %" PRId64, i,
                transformer_trainable_size(model), trainable);
        free(logits);
    }
    // gradients of one that is put away are freed
    Tape *tape = tape_new();
    model_backward(model, tape, ids, targets);
    EXPECT(a->lora[0].A->grad != NULL && b->lora[LINEARS + C_FC].A->grad == NULL, "only the one in use gets gradients");
    transformer_use_adapter(model, b);
    EXPECT(ledger.live[MEMORY_PARAMETER_GRADIENTS] == 0, "%" PRId64 " bytes of gradients of an adapter that is not in use",
            ledger.live[MEMORY_PARAMETER_GRADIENTS]);
    // removing b, which is in use, leaves the base; a and c are as before
    int64_t before = ledger.live[MEMORY_ADAPTERS], size = adapter_size(b);
    transformer_remove_adapter(model, b);
    real *logits = logits_of(model);
    EXPECT(model->active == NULL && same_bits(base, logits, N * V), "after removing the one in use, the base does not run alone");
    EXPECT(ledger.live[MEMORY_ADAPTERS] == before - bytes(size) && model->parameter_count == model->base_count + 12,
            "its bytes are still there");
    free(logits);
    transformer_use_adapter(model, a);
    transformer_remove_adapter(model, c); // not in use
    logits = logits_of(model);
    EXPECT(model->active == a && same_bits(first_a, logits, N * V), "removing another adapter changed the one in use");
    EXPECT(model->adapters == a && a->next == NULL && model->parameter_count == model->base_count + 4, "the list is wrong");
    for (int i = model->base_count; i < model->parameter_count; i++)
        EXPECT(model->parameters[i] == a->lora[(i - model->base_count) / 2 * LINEARS].A ||
                model->parameters[i] == a->lora[(i - model->base_count) / 2 * LINEARS].B,
                "the list of parameters is wrong at %d", i);
    EXPECT(transformer_hash(model) == hash, "the base changed");
    free(logits), free(base), free(first_a);
    tape_free(tape);
    transformer_free(model);
    EXPECT(ledger.live[MEMORY_ADAPTERS] == 0 && ledger.live[MEMORY_WEIGHTS] == 0, "the model left something behind");
}

TEST(adapters_train_as_configured)
{
    Transformer *model = model_of(3, 0);
    make_irregular(model);
    transformer_train_base(model, false);
    static const int ranks[] = { 3, 0, 5 };
    Adapter *a = transformer_add_adapter(model, "ranks", (LoraConfig){ .alpha = 6, .targets = 1u << C_FC, .last_block = -1,
            .r_by_block = ranks, .rank_stabilized = true, .freeze_A = true }, 3, error, sizeof error);
    EXPECT(a != NULL, "refused: %s", error);
    if (a == NULL) return;
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < LINEARS; k++) {
            const Lora *lora = &a->lora[i * LINEARS + k];
            bool expected = k == C_FC && ranks[i] > 0;
            EXPECT((lora->A != NULL) == expected && (model->blocks[i].linear[k].lora != NULL) == expected,
                    "block %d, %s: attached or not?", i, linear_names[k]);
            if (!expected || lora->A == NULL) continue;
            EXPECT(lora->A->shape[1] == ranks[i] && lora->B->shape[0] == ranks[i], "block %d: rank %d", i, lora->A->shape[1]);
            EXPECT(fabs(number(lora->scale) - 6 / sqrt(ranks[i])) < 4 * EPSILON, "block %d: scale %g, not alpha / sqrt(r)",
                    i, number(lora->scale));
            EXPECT(!lora->A->requires_grad && lora->B->requires_grad, "A is to be frozen, and B not");
        }
    EXPECT(adapter_size(a) == (3 + 5) * (C + 4 * C), "%" PRId64 " numbers", adapter_size(a));
    real *A = copy_of(a->lora[C_FC].A->data, a->lora[C_FC].A->size);
    Tape *tape = tape_new();
    AdamW *optimizer = optimizer_of(model, 0.1);
    Meter meter = { 0 };
    meter_watch(&meter, tape);
    train(model, tape, optimizer, ids, targets, 2, 0.01);
    model_backward(model, tape, ids, targets);
    EXPECT(a->lora[C_FC].A->grad == NULL && meter.adapter_gradients == 3 * 2, "A is frozen: %" PRId64 " adapter gradients",
            meter.adapter_gradients);
    EXPECT(same_bits(A, a->lora[C_FC].A->data, a->lora[C_FC].A->size) && norm_of(a->lora[C_FC].B->data,
            a->lora[C_FC].B->size) > 0, "A moved, or B did not");
    transformer_use_adapter(model, NULL);
    transformer_use_adapter(model, a);
    EXPECT(!a->lora[C_FC].A->requires_grad, "switching away and back lets A train");
    free(A);
    adamw_free(optimizer);
    tape_free(tape);
    transformer_free(model);
}

TEST(a_fingerprint_knows_every_number)
{
    Transformer *model = model_of(1, 0);
    make_irregular(model);
    uint64_t hash = transformer_hash(model), fingerprint = transformer_fingerprint(model);
    for (int i = 0; i < model->base_count; i++) {
        Tensor *t = model->parameters[i];
        for (int64_t j = 0; j < t->size; j += t->size > 1 ? t->size - 1 : 1) { // the first number and the last
            real before = t->data[j];
            t->data[j] = -before;
            EXPECT(transformer_hash(model) != hash, "%s[%" PRId64 "] has changed, and the hash has not", t->name, j);
            EXPECT(transformer_fingerprint(model) != fingerprint, "%s[%" PRId64 "] has changed, and the fingerprint has not", t->name, j);
            t->data[j] = before;
        }
    }
    adapter_on(model, "a", ALL_LINEARS, 0, -1, 3);
    EXPECT(transformer_hash(model) == hash && transformer_fingerprint(model) == fingerprint, "an adapter beside the base changes its hash");
    transformer_free(model);
}

// Adapters know their base by it, whichever build and machine wrote them: the number was computed outside of the project, from the
// bytes that a file in 32 bits would hold. One value, 0.1 more, is not exact in them.
TEST(a_fingerprint_is_the_same_in_every_build)
{
    Transformer *model = transformer_new((Config){ 3, 2, 1, 1, 2, 0 }, 5, error, sizeof error);
    int k = 0;
    for (int i = 0; i < model->base_count; i++)
        for (int64_t j = 0; j < model->parameters[i]->size; j++, k++)
            model->parameters[i]->data[j] = (real)((k * 37 % 101 - 50) / 64.0 + (k == 5 ? 0.1 : 0));
    EXPECT(k == 88 && transformer_fingerprint(model) == 0x0f56318f07856a07ull, "%d numbers, fingerprint %016" PRIx64, k, transformer_fingerprint(model));
    transformer_free(model);
}

static void names_of_an_adapter(const char *name, Transformer *model)
{
    const Adapter *adapter = adapter_on(model, name, ALL_LINEARS, 0, -1, 3);
    int wrong = 0;
    for (int i = model->base_count; i < model->parameter_count; i++) {
        const char *here = model->parameters[i]->name;
        wrong += strstr(here, name) == NULL;
        for (int j = 0; j < i; j++) wrong += strcmp(here, model->parameters[j]->name) == 0;
    }
    EXPECT(wrong == 0 && model->parameter_count == model->base_count + 2 * 2 * LINEARS, "a name of %zu characters: %d tensors are called as another one, or not by it, such as %s",
           strlen(name), wrong, adapter->lora[0].A->name);
}

TEST(no_two_tensors_have_one_name)
{
    char name[sizeof ((Adapter *)0)->name];
    static const size_t lengths[] = { 1, 20, 40, 60, sizeof name - 1 };
    for (int l = 0; l < 5; l++) {
        Transformer *model = model_of(2, 0);
        memset(name, 'n', lengths[l]), name[lengths[l]] = '\0';
        names_of_an_adapter(name, model);
        transformer_free(model);
    }
}

TEST(impossible_configurations_are_refused)
{
    static const Config bad[] = {
        { 0, 9, 2, 3, 12, 0 }, { 11, 0, 2, 3, 12, 0 }, { 11, 9, 0, 3, 12, 0 }, { 11, 9, 2, 0, 12, 0 }, { 11, 9, 2, 3, 0, 0 }, { 11, 9, 2, 5, 12, 0 },
        { 11, 9, 2, 3, -12, 0 }, { 11, 9, 2, 3, 12, 1 }, { 11, 9, 2, 3, 12, -0.1 }, { 11, 9, 2, 3, 12, (double)NAN }, { 2000000000, 9, 2, 3, 3000, 0 },
    };
    static const char *const names[] = { "vocab_size", "block_size", "n_layer", "n_head", "n_embd", "not a multiple",
            "n_embd -12", "dropout 1", "dropout -0.1", "dropout", "larger" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        error[0] = '\0';
        Transformer *model = transformer_new(bad[i], 1, error, sizeof error);
        EXPECT(model == NULL && strstr(error, names[i]), "configuration %d: %s", (int)i, error);
        transformer_free(model);
    }
    Config almost = { 11, 9, 2, 3, 12, 0.99999999999 }; // rounds to 1 in float
    if ((real)almost.dropout >= 1) EXPECT(transformer_new(almost, 1, error, sizeof error) == NULL, "dropout %.17g", almost.dropout);
    Transformer *model = model_of(2, 0);
    char long_name[80];
    memset(long_name, 'n', 79), long_name[79] = '\0';
    adapter_on(model, "there", 1, 0, -1, 3);
    int parameters = model->parameter_count;
    static const int negative[] = { 2, -1 }, none[] = { 0, 0 };
    const struct { const char *what, *name; LoraConfig config; } refused[] = {
        { "a name that exists", "there", { .r = 2, .targets = 1, .last_block = -1 } },
        { "rank 0", "x", { .r = 0, .targets = 1, .last_block = -1 } },
        { "rank -3", "x", { .r = -3, .targets = 1, .last_block = -1 } },
        { "no target", "x", { .r = 2, .targets = 0, .last_block = -1 } },
        { "an unknown target", "x", { .r = 2, .targets = 8u << LINEARS, .last_block = -1 } },
        { "c_attn and a part of it", "x", { .r = 2, .targets = 1u << C_ATTN | TARGET_V, .last_block = -1 } },
        { "a block that does not exist", "x", { .r = 2, .targets = 1, .first_block = 0, .last_block = 2 } },
        { "a first block that does not exist", "x", { .r = 2, .targets = 1, .first_block = 2, .last_block = -1 } },
        { "an empty range", "x", { .r = 2, .targets = 1, .first_block = 1, .last_block = 0 } },
        { "a negative rank of a block", "x", { .targets = 1, .last_block = -1, .r_by_block = negative } },
        { "a rank beyond reason", "x", { .r = 1 << 30, .alpha = 1, .targets = 1, .last_block = -1 } },
        { "an alpha that is no number", "x", { .r = 2, .alpha = (double)NAN, .targets = 1, .last_block = -1 } },
        { "rank 0 in every block", "x", { .targets = 1, .last_block = -1, .r_by_block = none } },
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        error[0] = '\0';
        Adapter *adapter = transformer_add_adapter(model, refused[i].name, refused[i].config, 1, error, sizeof error);
        EXPECT(adapter == NULL && error[0], "%s is accepted", refused[i].what);
        if (adapter) transformer_remove_adapter(model, adapter);
    }
    EXPECT(model->parameter_count == parameters && strcmp(model->adapters->name, "there") == 0, "a refused adapter left something behind");
    error[0] = '\0';
    LoraConfig fine = { .r = 2, .alpha = 4, .targets = 1, .last_block = -1 };
    if (transformer_add_adapter(model, long_name, fine, 1, error, sizeof error)) // if a name that does not fit is cut, then it exists now
        EXPECT(transformer_add_adapter(model, long_name, fine, 1, error, sizeof error) == NULL, "a long name can be attached twice");
    EXPECT(error[0], "no word about a name that is too long, or exists");
    transformer_free(model);
}

TEST(targets_are_parsed)
{
    static const struct { const char *names; unsigned targets; } good[] = {
        { "c_attn", 1u << C_ATTN }, { "attn.c_attn", 1u << C_ATTN }, { "c_proj", 1u << ATTN_C_PROJ | 1u << MLP_C_PROJ }, { "attn.c_proj", 1u << ATTN_C_PROJ },
        { "mlp.c_proj", 1u << MLP_C_PROJ }, { "c_fc,c_attn", 1u << C_FC | 1u << C_ATTN }, { "c_attn,attn.c_proj,c_fc,mlp.c_proj", ALL_LINEARS }, { "c_fc,c_fc", 1u << C_FC },
        { "q", TARGET_Q }, { "v,q", TARGET_Q | TARGET_V }, { "k,c_fc", TARGET_K | 1u << C_FC },
    };
    const char *bad = NULL;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        unsigned targets_ = lora_targets(good[i].names, &bad);
        EXPECT(targets_ == good[i].targets, "%s: %#x", good[i].names, targets_);
        EXPECT(lora_targets(lora_targets_text(targets_), &bad) == targets_, "%s is written as %s", good[i].names,
                lora_targets_text(targets_));
    }
    static const struct { const char *names, *word; } wrong[] = { { "", "" }, { "c_attn,", "" }, { ",c_attn", ",c_attn" },
            { "c_attn,lm_head", "lm_head" }, { "proj", "proj" }, { "qv", "qv" }, { "w", "w" }, { "attn", "attn" },
                                                                  { "c_att", "c_att" }, { "c_attnn,c_fc", "c_attnn,c_fc" }, { "x.attn.c_attn", "x.attn.c_attn" }, { "c_attn c_fc", "c_attn c_fc" } };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        bad = NULL;
        EXPECT(lora_targets(wrong[i].names, &bad) == 0 && bad && strcmp(bad, wrong[i].word) == 0,
                "\"%s\" is accepted, or the bad word is %s", wrong[i].names, bad ? bad : "not named");
    }
    for (unsigned on = 1; on <= ALL_LINEARS; on++) EXPECT(lora_targets(lora_targets_text(on), &bad) == on,
            "%#x is written as %s", on, lora_targets_text(on));
    EXPECT(strcmp(lora_targets_text(ALL_LINEARS), "c_attn,attn.c_proj,c_fc,mlp.c_proj") == 0, "%s", lora_targets_text(ALL_LINEARS));
}

int main(void)
{
    parallel_set_threads(2);
    RUN(a_fresh_adapter_changes_no_bit);
    RUN(merged_equals_unmerged);
    RUN(adapters_can_be_switched_and_removed);
    RUN(adapters_train_as_configured);
    RUN(a_fingerprint_knows_every_number);
    RUN(a_fingerprint_is_the_same_in_every_build);
    RUN(no_two_tensors_have_one_name);
    RUN(impossible_configurations_are_refused);
    RUN(targets_are_parsed);
    return test_summary();
}
