// adamw.c - see adamw.h. The fourth place where freezing is read: what does not require grad is passed over, and loses its
// moments.
//
// A step has three rounds. First the lists: moments are made for what trains now and freed for what was frozen since; a tensor
// that trains but got no gradient is an error, for it would never learn. Then the norm of all gradients together, for clipping;
// if it is not finite, nothing is changed. Then the update, element by element, each by one thread.
//
// The optimizer copies the list of parameters when it is made: an adapter that is attached later is not in it
// (experiments/q15 shows what that looks like). The gradients are still there afterwards; zero_grads frees them.
//
// Read next: training.h, where forward, backward and this make one step.

#include "adamw.h"

#include <stdlib.h>

AdamW *adamw_new(Tensor **parameters, int count, AdamWConfig config)
{
    static const char lists[] = "the optimizer's lists";
    size_t n = (size_t)count;
    AdamW *o = allocate(1, sizeof *o, lists);
    *o = (AdamW){ config, allocate(n, sizeof *o->parameters, lists), allocate(n, sizeof *o->m, lists),
                  allocate(n, sizeof *o->v, lists), .count = count };
    memcpy(o->parameters, parameters, n * sizeof *parameters);
    for (int i = 0; i < count; i++) tensor_use(parameters[i]); // their sizes are asked for until adamw_free
    return o;
}

static void drop_moments(AdamW *o, int i)
{
    memory_give(MEMORY_MOMENTS, o->m[i], o->parameters[i]->size);
    memory_give(MEMORY_MOMENTS, o->v[i], o->parameters[i]->size);
    o->m[i] = o->v[i] = NULL;
}

void adamw_free(AdamW *o)
{
    if (o == NULL) return;
    for (int i = 0; i < o->count; i++) {
        drop_moments(o, i);
        tensor_unuse(o->parameters[i]);
    }
    free(o->parameters);
    free(o->m);
    free(o->v);
    free(o);
}

static real *zeros(int64_t count)
{
    real *buffer = memory_take(MEMORY_MOMENTS, count);
    memset(buffer, 0, (size_t)count * sizeof(real));
    return buffer;
}

// |g|^2 in pieces, each summed by one part: so the sum does not depend on the number of parts.
static void square_part(void *context, Part part)
{
    AdamW *o = context;
    Share mine = share(part, NORM_PIECES, 1);
    for (int64_t piece = mine.begin; piece < mine.end; piece++) {
        double sum = 0;
        for (int i = 0; i < o->count; i++) {
            const Tensor *t = o->parameters[i];
            Share s = share((Part){ (int)piece, NORM_PIECES }, t->size, GRAIN);
            if (t->requires_grad) sum += row_norm2(t->grad + s.begin, s.end - s.begin);
        }
        o->squares[piece] = sum;
    }
}

static inline real real_sqrt(real x) { return sizeof(real) == sizeof(float) ? (real)sqrtf((float)x) : (real)sqrt((double)x); }

// The constants of one step.
typedef struct Step { AdamW *optimizer; real clip, lr, decay, beta1, beta2, correction1, correction2; } Step;

static void update_part(void *context, Part part)
{
    const Step *step = context;
    const AdamW *o = step->optimizer;
    real b1 = step->beta1, b2 = step->beta2, c1 = step->correction1, c2 = step->correction2, lr = step->lr, clip = step->clip;
    for (int i = 0; i < o->count; i++) {
        const Tensor *t = o->parameters[i];
        if (!t->requires_grad) continue;
        Share s = share(part, t->size, GRAIN);
        real keep = t->ndim >= 2 ? 1 - lr * step->decay : 1;
        real *restrict p = t->data, *restrict m = o->m[i], *restrict v = o->v[i];
        const real *restrict grad = t->grad;
        for (int64_t j = s.begin; j < s.end; j++) {
            real g = grad[j] * clip;
            m[j] = b1 * m[j] + (1 - b1) * g;
            v[j] = b2 * v[j] + (1 - b2) * g * g;
            p[j] = p[j] * keep - lr * (m[j] * c1) / (real_sqrt(v[j] * c2) + (real)1e-8);
        }
    }
}

// Moments only where they are needed.
static void prepare_moments(AdamW *o)
{
    for (int i = 0; i < o->count; i++) {
        const Tensor *t = o->parameters[i];
        if (!t->requires_grad) { drop_moments(o, i); continue; }
        if (o->m[i] != NULL) continue;
        o->m[i] = zeros(t->size);
        o->v[i] = zeros(t->size);
    }
}

// The numbers that this step's formula needs.
static Step step_of(AdamW *o, double learning_rate, double norm)
{
    const AdamWConfig *c = &o->config;
    double t = (double)o->step;
    return (Step){ o, c->grad_clip > 0 && norm > c->grad_clip ? (real)(c->grad_clip / norm) : 1, (real)learning_rate,
                   (real)c->weight_decay, (real)c->beta1, (real)c->beta2,
                   (real)(1 / (1 - pow(c->beta1, t))), (real)(1 / (1 - pow(c->beta2, t))) };
}

double adamw_step(AdamW *o, double learning_rate)
{
    double start = seconds_now(), sum = 0;
    memory_at("optimizer", "adamw");
    for (int i = 0; i < o->count; i++)
        check(!o->parameters[i]->requires_grad || o->parameters[i]->grad != NULL,
              "adamw_step: %s requires grad, but no gradient reached it; does it feed the loss, and did backward run?",
              o->parameters[i]->name);
    prepare_moments(o);
    parallel_run(square_part, o);
    for (int piece = 0; piece < NORM_PIECES; piece++) sum += o->squares[piece];
    double norm = sqrt(sum);
    if (!isfinite(norm)) return norm;
    o->step++;
    Step step = step_of(o, learning_rate, norm);
    parallel_run(update_part, &step);
    o->seconds += seconds_now() - start;
    return norm;
}
