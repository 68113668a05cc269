// torch_helper.c - small steps that tests/against_torch.py asks for, one command each:
//
//     torch_helper make OUT SEED V T L H C             a random model, as if trained: no bias is 0, no gain 1
//     torch_helper attach MODEL OUT SEED R ALPHA TARGETS FRESH   a random adapter, saved; FRESH 1: its B is 0
//     torch_helper gradients MODEL ADAPTER OUT B T     logits, loss and every gradient, as tensors of the file OUT
//     torch_helper train MODEL ADAPTER OUT B STEPS RATE MIN_RATE WARM_UP DECAY BETA1 BETA2 CLIP
//
// ADAPTER - is none: then all of the model trains; with one, it alone does. gradients reads B * T ids and B * T targets from
// stdin. train reads a text, as token numbers, from stdin; its model goes through the training loop's own training_step(). For
// each step it prints loss, norm, rate, ids and targets, and at the end it writes all parameters to the file OUT.

#include "../io/adapter_file.h"
#include "../io/model_file.h"
#include "../io/safetensors.h"
#include "../training.h"

#include <stdlib.h>

static char error[1024];

static void *need(void *thing)
{
    if (thing == NULL) { fprintf(stderr, "torch_helper: %s\n", error); exit(1); }
    return thing;
}

static void must(bool good) { need(good ? error : NULL); }

static void disturb(Tensor *t, double deviation, uint64_t seed)
{
    for (int64_t i = 0; i < t->size; i++) t->data[i] += (real)(deviation * random_normal(seed, (uint64_t)i));
}

static void make(char **a)
{
    Config config = { .vocab_size = atoi(a[2]), .block_size = atoi(a[3]), .n_layer = atoi(a[4]), .n_head = atoi(a[5]), .n_embd = atoi(a[6]) };
    Transformer *model = need(transformer_new(config, (uint64_t)atoi(a[1]), error, sizeof error));
    for (int i = 0; i < model->base_count; i++) disturb(model->parameters[i], 0.1, (uint64_t)(1000 + i));
    must(model_save(model, NULL, a[0], error, sizeof error));
    transformer_free(model);
}

static void attach(char **a)
{
    Transformer *model = need(model_load(a[0], NULL, error, sizeof error));
    const char *bad;
    LoraConfig lora = { .r = atoi(a[3]), .alpha = atof(a[4]), .targets = lora_targets(a[5], &bad), .last_block = -1 };
    Adapter *adapter = need(transformer_add_adapter(model, "random", lora, (uint64_t)atoi(a[2]), error, sizeof error));
    for (int i = model->base_count; i < model->parameter_count && !atoi(a[6]); i++) disturb(model->parameters[i], 0.2, (uint64_t)i);
    must(adapter_save(model, adapter, a[0], a[1], error, sizeof error));
    transformer_free(model);
}

static Transformer *load(const char *base, const char *adapter)
{
    Transformer *model = need(model_load(base, NULL, error, sizeof error));
    if (strcmp(adapter, "-") == 0) return model;
    transformer_train_base(model, false);
    need(adapter_load(model, adapter, "default", false, error, sizeof error));
    return model;
}

static int read_tokens(int *tokens, int most)
{
    int count = 0;
    while (count < most && scanf("%d", &tokens[count]) == 1) count++;
    return count;
}

static const SafetensorsDtype dtype = sizeof(real) == sizeof(float) ? SAFETENSORS_F32 : SAFETENSORS_F64;

// The adapter's tensors are named as the layer they are on: transformer.h.0.attn.c_attn.A
static const char *full_name(const Transformer *model, int parameter, char name[160])
{
    const char *of = model->parameters[parameter]->name;
    snprintf(name, 160, "%s%s", parameter < model->base_count ? "" : "transformer", parameter < model->base_count ? of : strchr(of, '.'));
    return name;
}

static void write_tensors(const Transformer *model, const char *path, bool gradients, const Tensor *logits, const Tensor *loss)
{
    SafetensorsTensor *tensors = need(calloc((size_t)model->parameter_count + 2, sizeof *tensors));
    char (*names)[160] = need(calloc((size_t)model->parameter_count, sizeof *names));
    size_t count = 0;
    for (int i = 0; i < model->parameter_count; i++) {
        const Tensor *t = model->parameters[i];
        const real *data = gradients ? t->grad : t->data;
        if (data != NULL) tensors[count++] = (SafetensorsTensor){ full_name(model, i, names[i]), dtype, t->ndim, t->shape, data };
    }
    if (logits != NULL) tensors[count++] = (SafetensorsTensor){ "logits", dtype, logits->ndim, logits->shape, logits->data };
    if (loss != NULL) tensors[count++] = (SafetensorsTensor){ "loss", dtype, loss->ndim, loss->shape, loss->data };
    must(safetensors_write(path, tensors, count, &(SafetensorsMetadata){ "format", "pt" }, 1, error, sizeof error) == SAFETENSORS_OK);
    free(tensors);
    free(names);
}

static void gradients(char **a)
{
    Transformer *model = load(a[0], a[1]);
    int B = atoi(a[3]), T = atoi(a[4]), *ids = need(malloc(2 * (size_t)(B * T) * sizeof *ids));
    if (read_tokens(ids, 2 * B * T) < 2 * B * T) snprintf(error, sizeof error, "too few tokens on stdin"), must(false);
    Tape *tape = tape_new();
    Tensor *logits = transformer_logits(model, NULL, ids, B, T), *loss = transformer_loss(model, tape, ids, ids + B * T, B, T);
    backward(tape, loss);
    write_tensors(model, a[2], true, logits, loss);
    tensor_drop(logits);
    tape_free(tape);
    transformer_free(model);
    free(ids);
}

static void train(char **a)
{
    enum { MOST = 100000 };
    Transformer *model = load(a[0], a[1]);
    int B = atoi(a[3]), T = model->config.block_size, *tokens = need(malloc(MOST * sizeof *tokens)), *batch = need(malloc(2 * (size_t)(B * T) * sizeof *batch));
    Text text = { .tokens = tokens, .count = read_tokens(tokens, MOST) };
    text.train_count = text.count * 9 / 10;
    int64_t steps = atol(a[4]);
    Schedule schedule = { .learning_rate = atof(a[5]), .min_lr = atof(a[6]), .warmup_iters = atol(a[7]), .max_iters = steps };
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ .weight_decay = atof(a[8]), .beta1 = atof(a[9]), .beta2 = atof(a[10]), .grad_clip = atof(a[11]) });
    Tape *tape = tape_new();
    for (int64_t step = 0; step < steps; step++) {
        double rate = schedule_rate(&schedule, step);
        text_batch(&text, B, T, 1, step, batch, batch + B * T);
        StepResult result = training_step(model, tape, optimizer, batch, batch + B * T, B, T, 1, step, rate);
        printf("%.17g %.17g %.17g", result.loss, result.gradient_norm, rate);
        for (int i = 0; i < 2 * B * T; i++) printf(" %d", batch[i]);
        printf("\n");
    }
    write_tensors(model, a[2], false, NULL, NULL);
    adamw_free(optimizer);
    tape_free(tape);
    transformer_free(model);
    free(tokens);
    free(batch);
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    char **a = argv + 2;
    int count = argc - 2;
    if (strcmp(command, "make") == 0 && count == 7) make(a);
    else if (strcmp(command, "attach") == 0 && count == 7) attach(a);
    else if (strcmp(command, "gradients") == 0 && count == 5) gradients(a);
    else if (strcmp(command, "train") == 0 && count == 12) train(a);
    else {
        fprintf(stderr, "torch_helper: unknown command; see the top of tests/torch_helper.c\n");
        return 2;
    }
    return 0;
}
