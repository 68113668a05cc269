// test_quantise.c - a frozen weight in codes: the codes themselves, and that a step on them has the bits of a step on floats that
// hold the same values.

#include "predict.h"
#include "small_model.h"
#include "training.h"

#include "child.h"
#include "test.h"

static Tensor *weight_of(int rows, int columns, double size)
{
    Tensor *t = tensor_new("W", MEMORY_WEIGHTS, SHAPE(rows, columns));
    fill_irregular(t, 7, size);
    return t;
}

// The values that QLoRA's paper lists in its appendix, to the digits that it gives.
TEST(values_of_nf4)
{
    static const double listed[NF4_VALUES] = { -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
        -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0 };
    for (int i = 0; i < NF4_VALUES; i++)
        EXPECT(fabs((double)nf4_values()[i] - listed[i]) < 3e-7, "value %d is %.9g, listed %.9g", i, (double)nf4_values()[i], listed[i]);
}

// A plain reference: each number alone, by trying all codes.
static void check_codes(BaseType type, int rows, int columns)
{
    Tensor *t = weight_of(rows, columns, 0.3), *before = tensor_from("before", t->data, t->ndim, t->shape);
    tensor_quantise(t, type);
    EXPECT(t->data == NULL && t->codes != NULL, "data %p, codes %p", (void *)t->data, (void *)t->codes);
    for (int64_t i = 0; i < t->size; i++) {
        float largest = 0, best = HUGE_VALF;
        if (type == BASE_NF4)
            for (int64_t j = i / 64 * 64; j < i / 64 * 64 + 64 && j < t->size; j++) largest = fmaxf(largest, fabsf((float)before->data[j]));
        else for (int r = 0; r < rows; r++) largest = fmaxf(largest, fabsf((float)before->data[r * columns + i % columns]));
        for (int code = -127; code <= 127; code++) { // nf4 has the first 16
            float value = type == BASE_NF4 ? nf4_values()[(code + 127) % 16] * largest : (float)code * (largest / 127);
            best = fminf(best, fabsf(value - (float)before->data[i]));
        }
        real value;
        unpack(t->codes, i, 1, &value, 1);
        EXPECT(fabsf((float)value - (float)before->data[i]) <= best * 1.00001f + 1e-7f, "%s [%d,%d]: number %d is %g, its code's value %g, the "
               "nearest is %g away", base_type_names[type], rows, columns, (int)i, number(before->data[i]), number(value), (double)best);
    }
    tensor_drop(t);
    tensor_drop(before);
    EXPECT(ledger.live[MEMORY_WEIGHTS] == 0, "%" PRId64 " bytes are left", ledger.live[MEMORY_WEIGHTS]);
}

TEST(each_number_gets_the_nearest_code)
{
    static const int shapes[][2] = { { 1, 1 }, { 1, 63 }, { 5, 13 }, { 8, 64 }, { 64, 3 }, { 33, 65 } };
    for (int s = 0; s < 6; s++)
        for (BaseType type = BASE_NF4; type < BASE_TYPES; type++) check_codes(type, shapes[s][0], shapes[s][1]);
}

// Files hold these bytes, and other programs read them.
TEST(bytes_are_where_others_look)
{
    Tensor *four = tensor_from("W", (real[]){ 1, -1, 0 }, SHAPE(1, 3)), *eight = tensor_from("W", (real[]){ 2, 1, -1, -4 }, SHAPE(2, 2));
    tensor_quantise(four, BASE_NF4);
    tensor_quantise(eight, BASE_INT8);
    const uint8_t *a = four->codes->codes, *b = eight->codes->codes;
    EXPECT(a[0] == 0xF0 && a[1] == 0x70 && four->codes->scales[0] == 1, "%02x %02x", a[0], a[1]); // 15, 0; 7, and no number
    EXPECT(b[0] == 127 && b[1] == 32 && b[2] == 256 - 64 && b[3] == 256 - 127, "%d %d %d %d", b[0], b[1], b[2], b[3]); // -63.5 is as near to -64
    EXPECT(eight->codes->scales[0] == 2 / 127.0f && eight->codes->scales[1] == 4 / 127.0f, "%g", (double)eight->codes->scales[1]);
    tensor_drop(four), tensor_drop(eight);
}

// Columns and blocks of the least numbers there are: whatever comes back is no larger, and a number.
TEST(numbers_next_to_zero)
{
    for (BaseType type = BASE_NF4; type < BASE_TYPES; type++) {
        Tensor *t = tensor_new("W", MEMORY_WEIGHTS, SHAPE(64, 2));
        for (int i = 0; i < 128; i++) t->data[i] = (real)((i % 3 - 1) * (i % 2 ? 3e-37 : 1e-42));
        tensor_quantise(t, type);
        tensor_unpack(t);
        for (int i = 0; i < 128; i++) EXPECT(fabs(number(t->data[i])) <= 3.01e-37, "%s: number %d is %g", base_type_names[type], i, number(t->data[i]));
        tensor_drop(t);
    }
}

TEST(zeros_and_numbers_that_are_not_finite)
{
    for (BaseType type = BASE_NF4; type < BASE_TYPES; type++) {
        Tensor *t = tensor_new("W", MEMORY_WEIGHTS, SHAPE(64, 2));
        t->data[1] = (real)NAN; // block 0, column 1
        tensor_quantise(t, type);
        tensor_unpack(t);
        int odd = 0, other = 0;
        for (int i = 0; i < 128; i++) odd += isnan(number(t->data[i])), other += number(t->data[i]) == 0;
        EXPECT(odd == 64 && other == 64, "%s: %d are NaN, %d are 0", base_type_names[type], odd, other);
        tensor_drop(t);
    }
}

// Y += 0.75 X W, with W in codes and perhaps transposed, against W in floats of the same values: each bit.
static void check_product(BaseType type, int m, int k, int n, bool turned, int parts)
{
    Tensor *W = turned ? weight_of(n, k, 0.3) : weight_of(k, n, 0.3), *x = weight_of(m, k, 1);
    Tensor *y[2] = { weight_of(m, n, 1), weight_of(m, n, 1) };
    for (int floats = 0; floats < 2; floats++) {
        if (floats) tensor_unpack(W);
        else tensor_quantise(W, type);
        Matrix w = turned ? transposed(values(W)) : values(W);
        for (int p = 0; p < parts; p++) product(values(y[floats]), scaled(values(x), (real)0.75), w, (Part){ p, parts });
    }
    EXPECT(memcmp(y[0]->data, y[1]->data, (size_t)y[0]->size * sizeof(real)) == 0, "%s, %d x %d x %d%s, %d parts", base_type_names[type],
           m, k, n, turned ? ", transposed" : "", parts);
    tensor_drop(W), tensor_drop(x), tensor_drop(y[0]), tensor_drop(y[1]);
}

TEST(products_have_the_bits_of_floats)
{
    static const int sizes[][3] = { { 1, 5, 7 }, { 1, 130, 300 }, { 3, 64, 40 }, { 17, 129, 33 }, { 9, 130, 515 }, { 40, 16, 8 }, { 5, 3, 1 } };
    for (int s = 0; s < 7; s++)
        for (BaseType type = BASE_NF4; type < BASE_TYPES; type++)
            for (int turned = 0; turned < 2; turned++)
                for (int parts = 1; parts <= 3; parts++) check_product(type, sizes[s][0], sizes[s][1], sizes[s][2], turned, parts);
}

typedef struct Bits { real *logits, *grads; int64_t count; double loss; } Bits;

// Logits, loss and all adapters' gradients of one step on a base of that type, or on floats with its values.
static Bits step_on(BaseType type, bool floats, bool recompute, int threads)
{
    parallel_set_threads(threads);
    Transformer *model = model_of(3, 0);
    make_irregular(model);
    Adapter *adapter = adapter_on(model, "a", ALL_LINEARS, 0, -1, 3);
    fill_B(model, adapter, 0.2);
    transformer_train_base(model, false);
    transformer_hold_base(model, type);
    if (floats) transformer_hold_base(model, BASE_FLOAT);
    model->recompute = recompute;
    Bits bits = { .logits = logits_of(model) };
    Tape *tape = tape_new();
    bits.loss = model_backward(model, tape, ids, targets);
    bits.grads = calloc(1 << 16, sizeof(real));
    for (int i = model->base_count; i < model->parameter_count; i++) {
        const Tensor *t = model->parameters[i];
        memcpy(bits.grads + bits.count, t->grad, (size_t)t->size * sizeof(real));
        bits.count += t->size;
    }
    tape_free(tape);
    transformer_free(model);
    return bits;
}

TEST(a_step_has_the_bits_of_floats)
{
    for (BaseType type = BASE_NF4; type < BASE_TYPES; type++)
        for (int recompute = 0; recompute < 2; recompute++)
            for (int threads = 1; threads <= 3; threads++) {
                Bits a = step_on(type, false, recompute, threads), b = step_on(type, true, recompute, threads);
                EXPECT(memcmp(a.logits, b.logits, N * V * sizeof(real)) == 0, "%s: logits differ", base_type_names[type]);
                EXPECT(a.loss == b.loss && isfinite(a.loss), "%s: losses %.9g and %.9g", base_type_names[type], a.loss, b.loss);
                EXPECT(a.count == b.count && a.count > 0 && memcmp(a.grads, b.grads, (size_t)a.count * sizeof(real)) == 0,
                       "%s: gradients differ", base_type_names[type]);
                free(a.logits), free(b.logits), free(a.grads), free(b.grads);
            }
    parallel_set_threads(0);
}

// Training on codes moves no code; the adapter fits the base in floats, for its fingerprint is that of the file's values.
TEST(codes_stay_as_they_are)
{
    for (BaseType type = BASE_NF4; type < BASE_TYPES; type++) {
        Transformer *model = model_of(2, 0);
        uint64_t fingerprint = transformer_fingerprint(model), floats = transformer_hash(model);
        transformer_train_base(model, false);
        adapter_on(model, "a", ALL_LINEARS, 0, -1, 3);
        transformer_hold_base(model, type);
        uint64_t hash = transformer_hash(model);
        AdamW *optimizer = optimizer_of(model, 0.1);
        Tape *tape = tape_new();
        train(model, tape, optimizer, ids, targets, 5, 1e-2);
        EXPECT(transformer_hash(model) == hash && hash != floats, "%s: the codes have changed", base_type_names[type]);
        EXPECT(transformer_fingerprint(model) == fingerprint, "%s: another fingerprint", base_type_names[type]);
        transformer_hold_base(model, BASE_FLOAT);
        EXPECT(transformer_fingerprint(model) != fingerprint, "%s: rounded values have the fingerprint of exact ones", base_type_names[type]);
        uint64_t values = transformer_hash(model);
        transformer_hold_base(model, type);
        EXPECT(type == BASE_INT8 || transformer_hash(model) == hash, "nf4 of nf4's values are other codes");
        transformer_hold_base(model, BASE_FLOAT);
        EXPECT(type == BASE_INT8 || transformer_hash(model) == values, "nf4 of nf4's values has other values");
        adamw_free(optimizer);
        tape_free(tape);
        transformer_free(model);
    }
}

// From one code to the other is by way of floats: the same codes, and the fingerprint of the values between.
TEST(codes_become_other_codes)
{
    uint64_t hash[2], fingerprint[2];
    for (int way = 0; way < 2; way++) {
        Transformer *model = model_of(1, 0);
        transformer_train_base(model, false);
        transformer_hold_base(model, BASE_NF4);
        if (way == 1) transformer_hold_base(model, BASE_FLOAT);
        transformer_hold_base(model, BASE_INT8);
        hash[way] = transformer_hash(model), fingerprint[way] = transformer_fingerprint(model);
        transformer_free(model);
    }
    EXPECT(hash[0] == hash[1] && fingerprint[0] == fingerprint[1], "straight there, and by way of floats: they differ");
}

// The ledger holds codes, and at no moment of a step floats of the size of a weight.
TEST(bytes_are_those_of_the_codes)
{
    static const int64_t wanted[BASE_TYPES] = { 0, 12 * C * C / 2 + 12 * C * C / 64 * 4, 12 * C * C + 9 * C * 4 };
    for (BaseType type = BASE_NF4; type < BASE_TYPES; type++) {
        Transformer *model = model_of(1, 0);
        transformer_train_base(model, false);
        adapter_on(model, "a", ALL_LINEARS, 0, -1, 3);
        int64_t before = ledger.live[MEMORY_WEIGHTS];
        transformer_hold_base(model, type);
        int64_t saved = before - ledger.live[MEMORY_WEIGHTS], exact = bytes(12 * C * C) - wanted[type];
        EXPECT(llabs(saved - exact) < 4 * 64 + 4 * (int64_t)sizeof(real), "%s: %" PRId64 " bytes saved, not %" PRId64, base_type_names[type], saved, exact);
        Tape *tape = tape_new();
        memory_reset_peaks();
        int64_t held = ledger.live[MEMORY_WEIGHTS];
        model_backward(model, tape, ids, targets);
        EXPECT(ledger.own_peak[MEMORY_WEIGHTS] == held, "%s: weights had a peak", base_type_names[type]);
        int64_t scratch = parallel_threads() * bytes(scratch_size(T, C / H));
        EXPECT(ledger.own_peak[MEMORY_WORKSPACE] <= scratch, "%s: %" PRId64 " bytes of workspace, not %" PRId64, base_type_names[type],
               ledger.own_peak[MEMORY_WORKSPACE], scratch);
        tape_free(tape);
        transformer_free(model);
    }
}

static void train_codes(void)
{
    Tape *tape = tape_new();
    Tensor *W = weight_of(4, 4, 1), *x = weight_of(2, 4, 1), *b = tensor_new("b", MEMORY_WEIGHTS, SHAPE(4));
    tensor_quantise(W, BASE_NF4);
    W->requires_grad = true;
    op_linear(tape, x, W, b);
}

static void add_codes(void)
{
    Tensor *W = weight_of(4, 4, 1), *x = weight_of(4, 4, 1);
    tensor_quantise(W, BASE_NF4);
    op_add(NULL, W, x);
}

static void quantise_what_trains(void)
{
    Tensor *W = weight_of(4, 4, 1);
    W->requires_grad = true;
    tensor_quantise(W, BASE_INT8);
}

static void merge_into_codes(void)
{
    Transformer *model = model_of(1, 0);
    adapter_on(model, "a", ALL_LINEARS, 0, -1, 3);
    transformer_train_base(model, false);
    transformer_hold_base(model, BASE_NF4);
    linear_merge(&model->blocks[0].linear[0]);
}

TEST(mistakes_are_named)
{
    EXPECT_ABORT(train_codes, "cannot train");
    EXPECT_ABORT(add_codes, "is in codes");
    EXPECT_ABORT(quantise_what_trains, "only a frozen leaf");
    EXPECT_ABORT(merge_into_codes, "nothing can be added");
}

int main(void)
{
    RUN(values_of_nf4);
    RUN(each_number_gets_the_nearest_code);
    RUN(bytes_are_where_others_look);
    RUN(numbers_next_to_zero);
    RUN(zeros_and_numbers_that_are_not_finite);
    RUN(products_have_the_bits_of_floats);
    RUN(a_step_has_the_bits_of_floats);
    RUN(codes_stay_as_they_are);
    RUN(codes_become_other_codes);
    RUN(bytes_are_those_of_the_codes);
    RUN(mistakes_are_named);
    return test_summary();
}
