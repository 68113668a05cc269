// test_micro_batches.c - a step whose batch is taken in parts is the step on the whole batch, but for rounding; and parts that
// other processes take give the same bits as parts that follow each other here.

#include "adapters.h"
#include "training.h"

#include "child.h"
#include "test.h"

#include <stdlib.h>

enum { V = 7, T = 5, MOST_B = 12, N = MOST_B * T };
static char error[256];
static int tokens[N + 1];
static const int *const ids = tokens, *const targets = tokens + 1;

// What trains, and how.
typedef struct Way { const char *name; bool lora, recompute; double dropout, clip; } Way;
static const Way ways[] = {
    { "full", false, false, 0, 0 },
    { "full, clipped", false, false, 0, 0.01 },
    { "full, recomputed", false, true, 0, 1 },
    { "LoRA", true, false, 0, 1 },
};
enum { WAYS = sizeof ways / sizeof *ways };

typedef struct Run { Transformer *model; Tape *tape; AdamW *optimizer; } Run;

static Run begin(const Way *way)
{
    Run run = { .model = transformer_new((Config){ V, T, 2, 2, 8, way->dropout }, 5, error, sizeof error), .tape = tape_new() };
    for (int i = 0; i < run.model->base_count; i++) fill_normal(run.model->parameters[i], 0.5, (uint64_t)i);
    if (way->lora) {
        transformer_train_base(run.model, false);
        const LoraConfig on_all = { .r = 2, .alpha = 4, .targets = 15, .last_block = -1 };
        Adapter *adapter = transformer_add_adapter(run.model, "a", on_all, 3, error, sizeof error);
        for (int i = 0; i < adapter->count; i++) fill_normal(adapter->lora[i].B, 0.3, (uint64_t)(100 + i));
    }
    run.model->recompute = way->recompute;
    run.optimizer = adamw_new(run.model->parameters, run.model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, way->clip });
    for (int i = 0; i <= N; i++) tokens[i] = (int)(random_bits(9, (uint64_t)i) % V);
    return run;
}

static void end(Run *run)
{
    tape_free(run->tape);
    adamw_free(run->optimizer);
    transformer_free(run->model);
}

static uint64_t hash_of(const Run *run)
{
    uint64_t hash = HASH_START;
    for (int i = 0; i < run->model->parameter_count; i++)
        hash = hash_bytes(hash, run->model->parameters[i]->data, (size_t)run->model->parameters[i]->size * sizeof(real));
    return hash;
}

static StepResult step_of(Run *run, int B, int64_t step, const Parts *parts)
{
    return parts ? training_step_in_parts(run->model, run->tape, run->optimizer, ids, targets, B, T, 7, step, 0.01, parts)
                 : training_step(run->model, run->tape, run->optimizer, ids, targets, B, T, 7, step, 0.01);
}

static StepResult in_parts(Run *run, int B, int64_t step, int count)
{
    return step_of(run, B, step, &(Parts){ .count = count, .end = count });
}

// Four steps, with unequal parts too. In float a step of AdamW turns a gradient's rounding around 0 into a step's full length, so
// there only what is printed is compared; in double the weights as well.
TEST(parts_are_the_whole_but_for_rounding)
{
    const bool exact = sizeof(real) == 8;
    for (int w = 0; w < WAYS; w++)
        for (int B = 1; B <= MOST_B; B++)
            for (int count = 1; count <= B; count++) {
                Run whole = begin(&ways[w]), parted = begin(&ways[w]);
                double apart = 0, furthest = 0;
                for (int64_t step = 0; step < 4; step++) {
                    StepResult a = step_of(&whole, B, step, NULL), b = in_parts(&parted, B, step, count);
                    apart = fmax(apart, fmax(fabs(a.loss - b.loss) / a.loss, fabs(a.gradient_norm - b.gradient_norm) / a.gradient_norm));
                }
                for (int i = 0; i < whole.model->parameter_count; i++)
                    for (int64_t j = 0; j < whole.model->parameters[i]->size; j++)
                        furthest = fmax(furthest, fabs((double)(whole.model->parameters[i]->data[j] - parted.model->parameters[i]->data[j])));
                EXPECT(apart < (exact ? 1e-9 : 1e-2), "%s, %d windows in %d parts: loss or norm is %g off", ways[w].name, B, count, apart);
                EXPECT(furthest < (exact ? 1e-6 : 1e-1), "%s, %d windows in %d parts: a weight is %g off", ways[w].name, B, count, furthest);
                if (count == 1) EXPECT(hash_of(&whole) == hash_of(&parted), "%s, %d windows: one part has other bits", ways[w].name, B);
                end(&whole), end(&parted);
            }
}

// Windows of very different losses, in parts of 2 and 3: a mean of means would be another number.
TEST(the_mean_is_over_all_targets)
{
    enum { B = 5 };
    Run run = begin(&ways[0]);
    for (int i = 0; i <= N; i++) tokens[i] = i < 2 * T ? 3 : (int)(random_bits(4, (uint64_t)i) % V);
    double sum = 0, means = 0;
    for (int b = 0; b < B; b++) {
        Tensor *loss = transformer_loss(run.model, NULL, ids + b * T, targets + b * T, 1, T);
        sum += (double)loss->data[0];
        means += (double)loss->data[0] / (b < 2 ? 2 : 3) / 2;
        tensor_drop(loss);
    }
    double loss = in_parts(&run, B, 0, 2).loss;
    EXPECT(fabs(loss - sum / B) < 1e-5, "%.9g, and by windows %.9g", loss, sum / B);
    EXPECT(fabs(loss - means) > 1e-3, "the windows are too much alike for this test: %.9g, mean of means %.9g", loss, means);
    end(&run);
}

// ---------------------------------------------------------------------------------------------------------------- processes

enum { RANKS = 5 };
typedef struct Given { real *gradient[100]; double loss; } Given; // what a process has to give
static Given given[RANKS];
static int giving;                                                // which it is

static void give_all(void *context, Transformer *model, double *loss)
{
    (void)context;
    given[giving].loss = *loss;
    for (int i = 0; i < model->parameter_count; i++) {
        const Tensor *t = model->parameters[i];
        given[giving].gradient[i] = NULL;
        if (t->grad == NULL) continue;
        given[giving].gradient[i] = malloc((size_t)t->size * sizeof(real));
        memcpy(given[giving].gradient[i], t->grad, (size_t)t->size * sizeof(real));
    }
}

static void take_all(void *context, Transformer *model, double *loss) // of as many as *context says, in order
{
    const int *ranks = context;
    *loss = given[0].loss;
    for (int r = 1; r < *ranks; r++) *loss += given[r].loss;
    for (int i = 0; i < model->parameter_count; i++) {
        const Tensor *t = model->parameters[i];
        for (int64_t j = 0; t->grad != NULL && j < t->size; j++) {
            t->grad[j] = given[0].gradient[i][j];
            for (int r = 1; r < *ranks; r++) t->grad[j] += given[r].gradient[i][j];
        }
        for (int r = 0; r < *ranks; r++) free(given[r].gradient[i]);
    }
}

// Each process in turn computes its part of the step with the weights that all have, and keeps it; then the sum goes to one.
static void step_among(const Way *way, Run *run, int B, int64_t step, int ranks)
{
    for (giving = 0; giving < ranks; giving++) {
        Run other = begin(way);
        for (int i = 0; i < run->model->parameter_count; i++)
            memcpy(other.model->parameters[i]->data, run->model->parameters[i]->data, (size_t)run->model->parameters[i]->size * sizeof(real));
        step_of(&other, B, step, &(Parts){ ranks, giving, giving + 1, give_all, NULL });
        end(&other);
    }
    step_of(run, B, step, &(Parts){ ranks, ranks - 1, ranks, take_all, &ranks });
}

TEST(processes_give_the_bits_of_micro_batches)
{
    Way all[WAYS + 1];
    memcpy(all, ways, sizeof ways);
    all[WAYS] = (Way){ "dropout", false, false, 0.3, 1 };
    for (int w = 0; w <= WAYS; w++)
        for (int ranks = 1; ranks <= RANKS; ranks++)
            for (int B = ranks; B <= MOST_B; B += 3) {
                Run alone = begin(&all[w]), among = begin(&all[w]);
                for (int64_t step = 0; step < 3; step++) {
                    in_parts(&alone, B, step, ranks);
                    step_among(&all[w], &among, B, step, ranks);
                }
                EXPECT(hash_of(&alone) == hash_of(&among), "%s, %d windows: %d processes have other bits than %d micro-batches", all[w].name, B, ranks, ranks);
                end(&alone), end(&among);
            }
}

// With the same windows in each part, only dropout can make the parts' losses differ.
TEST(dropout_differs_from_part_to_part)
{
    for (int dropout = 0; dropout < 2; dropout++) {
        Run run = begin(&(Way){ "dropout", false, false, dropout ? 0.3 : 0, 1 });
        for (int i = 0; i <= N; i++) tokens[i] = i % T;
        double loss[3];
        for (int part = 0; part < 3; part++) {
            Run other = begin(&(Way){ "dropout", false, false, dropout ? 0.3 : 0, 1 });
            for (int i = 0; i <= N; i++) tokens[i] = i % T;
            loss[part] = step_of(&other, 3, 4, &(Parts){ 3, part, part + 1, NULL, NULL }).loss;
            end(&other);
        }
        EXPECT((loss[0] != loss[1]) == dropout && (loss[1] != loss[2]) == dropout && (loss[0] != loss[2]) == dropout, "dropout %d: %.9g, %.9g, %.9g", dropout, loss[0], loss[1], loss[2]);
        double sum = in_parts(&run, 3, 4, 3).loss;
        EXPECT(fabs(sum - (loss[0] + loss[1] + loss[2])) < 1e-6, "dropout %d: the parts are %.9g, together %.9g", dropout, loss[0] + loss[1] + loss[2], sum);
        end(&run);
    }
}

// ------------------------------------------------------------------------------------------------------------------- errors

// A number that is not finite stops the step, after all of its parts, and their sums are there for find_bad_number.
TEST(a_bad_number_stops_the_step)
{
    Run run = begin(&ways[0]);
    run.model->wte->data[3] = (real)NAN;
    uint64_t before = hash_of(&run);
    char where[256] = "";
    StepResult result = in_parts(&run, 4, 0, 4);
    EXPECT(isnan(result.loss) && isnan(result.gradient_norm), "%g, %g", result.loss, result.gradient_norm);
    EXPECT(hash_of(&run) == before && run.optimizer->step == 0, "the step was taken");
    EXPECT(find_bad_number(run.model, where, sizeof where), "nothing was found");
    for (int i = 0; i < run.model->parameter_count; i++)
        EXPECT(run.model->parameters[i]->grad != NULL, "%s: its gradient is gone", run.model->parameters[i]->name);
    zero_grads(run.model);
    end(&run);
    EXPECT(ledger.live[MEMORY_PARAMETER_GRADIENTS] == 0, "%" PRId64 " bytes of gradients are left", (int64_t)ledger.live[MEMORY_PARAMETER_GRADIENTS]);
}

static int bad_first, bad_end, bad_count;
static void take_bad_parts(void)
{
    Run run = begin(&ways[0]);
    step_of(&run, 4, 0, &(Parts){ bad_count, bad_first, bad_end, NULL, NULL });
}

TEST(parts_that_cannot_be_are_a_mistake)
{
    static const int bad[][3] = { { -1, 1, 2 }, { 1, 1, 2 }, { 0, 3, 2 }, { 0, 5, 5 } };
    for (int i = 0; i < 4; i++) {
        bad_first = bad[i][0], bad_end = bad[i][1], bad_count = bad[i][2];
        int status = in_child(take_bad_parts);
        EXPECT(status == -1 && strstr(said, "training_step_in_parts: parts"), "%d up to %d of %d: status %d, %s", bad_first, bad_end, bad_count, status, said);
    }
}

int main(void)
{
    parallel_set_threads(2);
    RUN(parts_are_the_whole_but_for_rounding);
    RUN(the_mean_is_over_all_targets);
    RUN(processes_give_the_bits_of_micro_batches);
    RUN(dropout_differs_from_part_to_part);
    RUN(a_bad_number_stops_the_step);
    RUN(parts_that_cannot_be_are_a_mistake);
    return test_summary();
}
