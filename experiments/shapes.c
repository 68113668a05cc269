// shapes.c - the bytes of published models, by the formulas alone: nothing here runs the engine.
//
// Weights, gradients and moments are P numbers each, or of an adapter's p: what trains has a gradient and two moments. What a step
// needs beside them are activations, and its peak is the larger of two moments: at the end of forward, when every activation is
// kept but no gradient exists, and at the end of backward, when it is the other way round (predict.c has it in full).

#include "experiments/comparison.h"

typedef struct Shape { const char *name; int V, T, L, H, C, llama_inner; } Shape; // llama_inner 0: GPT-2's architecture
static const Shape shapes[SHAPES] = {
    { "gpt2-124m", 50257, 1024, 12, 12, 768, 0 },
    { "gpt-7b", 50257, 2048, 32, 32, 4096, 0 },
    { "gpt-65b", 50257, 2048, 80, 64, 8192, 0 },
    { "gpt3-175b", 50257, 2048, 96, 96, 12288, 0 },
    { "llama-7b", 32000, 2048, 32, 32, 4096, 11008 },
    { "llama-65b", 32000, 2048, 80, 64, 8192, 22016 },
};
enum { GPTS = 4, GPT_7B = 1, GPT65 = 2, GPT3 = 3 }; // the first ones are shapes of the engine; and which they are

const char *shape_name(int i) { return shapes[i].name; }

// Numbers in the model, and in an adapter of rank r on the attention's input projections (c_attn; in a llama q, k and v).
static double shape_parameters(const Shape *s)
{
    double V = s->V, L = s->L, C = s->C, F = s->llama_inner;
    if (s->llama_inner == 0) return base_parameters(V, s->T, L, C);
    return 2 * V * C + L * (4 * C * C + 3 * C * F + 2 * C) + C; // untied head, no biases, three matrices in the gated net
}

static double shape_adapter(const Shape *s, int r) { return (double)s->L * r * (s->llama_inner ? 6.0 : 4.0) * s->C; }

// Bytes for each number: of a weight, and of what trains for a copy of it in 32 bits, its gradient, and its two moments.
static const struct { const char *name; double weight, copy, gradient, moments; } formats[FORMATS] = {
    { "all 32-bit", 4, 0, 4, 8 },
    { "mixed", 2, 4, 2, 8 },
    { "mixed, no copy", 2, 0, 2, 8 },
    { "all 16-bit", 2, 0, 2, 4 },
};

enum { NO_COPY = 2 };
enum { WEIGHTS, COPY, GRADIENTS, MOMENTS, PARTS };

static void parts_of(const Shape *s, int format, int r, double bytes[PARTS]) // r 0: full
{
    double P = shape_parameters(s), p = r > 0 ? shape_adapter(s, r) : P;
    bytes[WEIGHTS] = (r > 0 ? P + p : P) * formats[format].weight;
    bytes[COPY] = p * formats[format].copy;
    bytes[GRADIENTS] = p * formats[format].gradient;
    bytes[MOMENTS] = p * formats[format].moments;
}

static double states(const Shape *s, int format, int r)
{
    double bytes[PARTS], sum = 0;
    parts_of(s, format, r, bytes);
    for (int i = 0; i < PARTS; i++) sum += bytes[i];
    return sum;
}

// What the same takes less with the linear layers of a GPT in nf4: half a byte a number, and 4 for each 64.
static double nf4_saves(const Shape *s, int format)
{
    return 12.0 * s->L * s->C * s->C * (formats[format].weight - 0.5 - 4 / 64.0);
}

// A step on one window of full length in 32 bits: full, LoRA, LoRA with the blocks recomputed, and that on nf4.
enum { WAYS = 4, IN_FLOATS = 3 };
static void predict_shape(const Shape *s, Prediction p[WAYS])
{
    Config config = { s->V, s->T, s->L, s->H, s->C, 0 };
    LoraConfig on_nf4 = on_c_attn;
    on_nf4.base_type = BASE_NF4;
    const LoraConfig *lora[WAYS] = { NULL, &on_c_attn, &on_c_attn, &on_nf4 };
    for (int way = 0; way < WAYS; way++) p[way] = predict_step(&config, lora[way], 1, s->T, way >= 2, 1, 4);
}

Ratios ratios_at_gpt3(void)
{
    Prediction p[WAYS];
    predict_shape(&shapes[GPT3], p);
    return (Ratios){ states(&shapes[GPT3], 0, 0) / states(&shapes[GPT3], 0, on_c_attn.r), (double)p[0].peak / (double)p[1].peak };
}

static void print_states(void)
{
    print_heading("The same formulas at larger shapes: weights + gradients + moments");
    printf("%-11s%16s", "", "parameters");
    for (int f = 0; f < FORMATS; f++) printf("%*s", f == 2 ? 15 : 12, formats[f].name);
    printf("\n");
    for (int i = 0; i < GPTS; i++)
        for (int r = 0; r <= 8; r += 8) {
            printf("%-11s%16s", r ? "  LoRA r=8" : shapes[i].name,
                   thousands((int64_t)(r ? shape_adapter(&shapes[i], r) : shape_parameters(&shapes[i]))));
            for (int f = 0; f < FORMATS; f++) printf("%*s", f == 2 ? 15 : 12, bytes_text(states(&shapes[i], f, r)));
            printf("\n");
            if (r == 0) continue;
            printf("%-11s%16s", "    on nf4", "");
            for (int f = 0; f < FORMATS; f++)
                printf("%*s", f == 2 ? 15 : 12, bytes_text(states(&shapes[i], f, r) - nf4_saves(&shapes[i], f)));
            printf("\n");
        }
    printf("`mixed`: weights and gradients in 16 bits, moments in 32, and of what trains a\n"
           "copy in 32 bits for the optimizer; `no copy`: without that. On nf4: the\n"
           "linear layers in four bits, embeddings and the rest as in the column.\n");
    printf("Published for GPT-3 175B (Hu et al. 2021): training 1.2 TB -> 350 GB, and\n"
           "a task's checkpoint 350 GB -> 35 MB (r = 4 on q and v: by formula %s).\n",
           bytes_text(2.0 * 96 * 2 * 4 * 2 * 12288));
    printf("1.2 TB are %.1f bytes a number, fewer than in any column here (%.0f at least); the\n"
           "paper does not say what it counts. 350 GB are 2: weights in 16 bits.\n",
           1.2e12 / shape_parameters(&shapes[GPT3]), formats[3].weight + formats[3].gradient + formats[3].moments);
    const Shape *large = &shapes[GPT65];
    printf("For 65B on nf4 (Dettmers et al. 2023): over 780 GB -> under 48 GB. By formula,\n"
           "`no copy`: %s -> %s, and activations.\n", bytes_text(states(large, NO_COPY, 0)),
           bytes_text(states(large, NO_COPY, 8) - nf4_saves(large, NO_COPY)));
}

static void print_peaks(void)
{
    printf("\nA step on one window of full length, 32-bit: activations kept, and the peak\n");
    printf("%-10s%10s%10s%12s%11s%10s%12s\n", "", "full", "LoRA", "recomputed", "peak, full", "LoRA", "recomputed");
    for (int i = 0; i < GPTS; i++) {
        Prediction p[WAYS];
        predict_shape(&shapes[i], p);
        printf("%-10s", shapes[i].name);
        for (int way = 0; way < IN_FLOATS; way++)
            printf("%*s", way == 2 ? 12 : 10, bytes_text((double)p[way].own_peak[MEMORY_KEPT_ACTIVATIONS]));
        for (int way = 0; way < IN_FLOATS; way++) printf("%*s", way == 0 ? 11 : way == 1 ? 10 : 12, bytes_text((double)p[way].peak));
        printf("\n");
    }
    printf("The peak of full training is the larger of two: at the end of forward 12 bytes a\n"
           "number and the activations; at the end of backward 16, and they are freed again.\n");
}

void print_shapes(void)
{
    print_states();
    print_peaks();
    printf("`./demo --shape NAME` has one of these in detail:\n");
    for (int i = 0; i < SHAPES; i++) printf("%s%s", shapes[i].name, i + 1 < SHAPES ? ", " : ".\n");
}

static void print_parts(const Shape *s)
{
    static const char *const names[PARTS] = { "  weights", "  32-bit copy", "  gradients", "  moments" };
    printf("\n%-19s%13s%20s%18s%9s\n", formats[0].name, "full", "LoRA r=8 attention", "adapter alone", "ratio");
    for (int f = 0; f < FORMATS; f++) {
        double full[PARTS], lora[PARTS], full_sum = states(s, f, 0), lora_sum = states(s, f, 8);
        parts_of(s, f, 0, full);
        parts_of(s, f, 8, lora);
        if (f > 0) printf("\n%s\n", formats[f].name);
        for (int i = 0; i < PARTS; i++)
            if (full[i] > 0)
                printf("%-19s%13s%20s%18s%8.1fx\n", names[i], bytes_text(full[i]), bytes_text(lora[i]),
                       i == WEIGHTS ? bytes_text(shape_adapter(s, 8) * formats[f].weight) : "", full[i] / lora[i]);
        printf("%-19s%13s%20s%18s%8.1fx\n", "  in all", bytes_text(full_sum), bytes_text(lora_sum), "", full_sum / lora_sum);
    }
}

bool print_one_shape(const char *name)
{
    int i = 0;
    while (i < SHAPES && strcmp(name, shapes[i].name) != 0) i++;
    if (i == SHAPES) return false;
    const Shape *s = &shapes[i];
    printf("%s: %s parameters\n  %d layers, %d heads, width %d, context %d, vocabulary %d\n", s->name,
           count_text(shape_parameters(s)), s->L, s->H, s->C, s->T, s->V);
    print_parts(s);
    if (s->llama_inner != 0) {
        printf("\nActivations depend on the architecture; the engine knows GPT-2's alone.\n");
        return true;
    }
    Prediction p[WAYS];
    predict_shape(s, p);
    printf("\nOne step on one window of %d tokens, 32-bit, at the peak:\n%-20s%14s%14s%16s%16s\n", s->T, "", "full", "LoRA",
           "LoRA, recompute", "the same, nf4");
    for (int k = 0; k < MEMORY_KINDS; k++) {
        printf("%-20s", memory_kind_names[k]);
        for (int way = 0; way < WAYS; way++) printf("%*s", way < 2 ? 14 : 16, bytes_text((double)p[way].at_peak[k]));
        printf("\n");
    }
    printf("%-20s", "in all");
    for (int way = 0; way < WAYS; way++) printf("%*s", way < 2 ? 14 : 16, bytes_text((double)p[way].peak));
    printf("\n");
    return true;
}

static void print_sending(const char *name, const char *way, double numbers) // of 32 bits
{
    printf("  %-12s %-6s %10s", name, way, bytes_text(4 * numbers));
    static const double rates[] = { 1e9, 1e10, 1e11 }; // bits a second
    for (int i = 0; i < 3; i++) {
        double seconds = 8 * 4 * numbers / rates[i];
        char text[24];
        snprintf(text, sizeof text, seconds < 1 ? "%.3g ms" : seconds < 1000 ? "%.3g s" : "%.0f s", seconds < 1 ? 1e3 * seconds : seconds);
        printf(" %12s", text);
    }
    printf("\n");
}

void print_wire(double full, double lora)
{
    printf("  %30s %12s %12s %12s\n", "a step, between two", "1 Gbit/s", "10 Gbit/s", "100 Gbit/s");
    print_sending("the demo's", "full", full);
    print_sending("", "LoRA", lora);
    for (int i = GPT_7B; i <= GPT3; i += GPT3 - GPT_7B) {
        print_sending(shapes[i].name, "full", shape_parameters(&shapes[i]));
        print_sending("", "LoRA", shape_adapter(&shapes[i], on_c_attn.r));
    }
}

void put_shapes(FILE *f)
{
    for (int i = 0; i < SHAPES; i++)
        fprintf(f, "%s{\"name\":\"%s\",\"V\":%d,\"T\":%d,\"L\":%d,\"H\":%d,\"C\":%d,\"gpt\":%s}", i ? "," : "[", shapes[i].name, shapes[i].V,
                shapes[i].T, shapes[i].L, shapes[i].H, shapes[i].C, i < GPTS ? "true" : "false");
    fputc(']', f);
}
