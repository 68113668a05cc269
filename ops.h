// ops.h - the ops. Each is one block in ops.c (first lessons, matmul, linear) or ops_gpt.c (the transformer, LoRA's second half):
// its formula by indices, forward, one gradient per input, its row, its constructor.
//
// All return a new result (autograd.h). N is the product of all dimensions but the last.
//
// Read next: ops.c.

#ifndef OPS_H
#define OPS_H

#include "autograd.h"

// ------------------------------------------------------------------------------------------------------------------- ops.c

Tensor *op_add(Tape *tape, Tensor *a, Tensor *b);                        // a + b                 same shapes
Tensor *op_sub(Tape *tape, Tensor *a, Tensor *b);                        // a - b                 same shapes
Tensor *op_mul(Tape *tape, Tensor *a, Tensor *b);                        // a * b, elementwise    same shapes
Tensor *op_scale(Tape *tape, Tensor *a, real s);                         // s a
Tensor *op_add_scaled(Tape *tape, Tensor *a, Tensor *b, real s);         // a + s b               same shapes
Tensor *op_relu(Tape *tape, Tensor *x);                                  // max(x, 0); gradient 0 at 0
Tensor *op_tanh(Tape *tape, Tensor *x);
Tensor *op_exp(Tape *tape, Tensor *x);
Tensor *op_sum(Tape *tape, Tensor *x);                                   // of all elements       -> [1]
Tensor *op_mean(Tape *tape, Tensor *x);                                  // of all elements       -> [1]
Tensor *op_softmax(Tape *tape, Tensor *x);                               // over the last dimension
Tensor *op_matmul(Tape *tape, Tensor *a, Tensor *b);                     // [..,I] x [I,O] -> [..,O]
// y = x W + b                          x [..,I], W [I,O] (GPT-2's orientation), b [O] -> [..,O]
Tensor *op_linear(Tape *tape, Tensor *x, Tensor *W, Tensor *b);

// --------------------------------------------------------------------------------------------------------------- ops_gpt.c

// y[b,t] = wte[ids[b,t]] + wpe[t]      wte [V,C], wpe [at least T,C], ids [B*T], each in 0..V-1 -> [B,T,C]
Tensor *op_embedding(Tape *tape, Tensor *wte, Tensor *wpe, const int *ids, int B, int T);
// y = (x - mean) / sqrt(variance + 1e-5) * gain + bias, over the last dimension; biased variance, as in GPT-2
Tensor *op_layernorm(Tape *tape, Tensor *x, Tensor *gain, Tensor *bias);
// logits = x wte^T, the output head tied to the token embedding        x [..,C], wte [V,C] -> [..,V]
Tensor *op_lm_head(Tape *tape, Tensor *x, Tensor *wte);
// causal multi-head attention: softmax(q k^T / sqrt(D), over positions up to t) v        qkv [B,T,3C] = q | k | v -> [B,T,C]
Tensor *op_attention(Tape *tape, Tensor *qkv, int heads);
// GPT-2's: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
Tensor *op_gelu(Tape *tape, Tensor *x);
// With a tape: each element is 0 with probability p, else x / (1 - p). Without a tape (evaluation): a copy of x. Element i
// is kept if a hash of (dropout_seed, number of the call, i) says so: there is no mask to store and no stream to keep in step.
Tensor *op_dropout(Tape *tape, Tensor *x, real p);
// -log softmax(logits)[target], one per row: no sum crosses rows; op_mean follows        logits [..,V], targets [N] -> [N,1]
Tensor *op_cross_entropy(Tape *tape, Tensor *logits, const int *targets);
// y + s h B, LoRA's second half. It takes over the caller's handle of y, and y's buffer too when no node keeps it.
// y [..,O], h [..,R], B [R,O], three different tensors -> [..,O]
Tensor *op_matmul_add(Tape *tape, Tensor *y, Tensor *h, Tensor *B, real s);

// ------------------------------------------------------------------------------------------------------------- recompute.c

// block(x), of which only x is kept: backward runs the block again (activation checkpointing). `block` must drop what it
// makes but its result, must not drop x, and must compute the same each time. `trains`: one leaf inside it that requires a
// gradient, or NULL if none does. x [..] -> the block's shape
Tensor *op_recompute(Tape *tape, Tensor *(*block)(Tape *tape, Tensor *x, void *context), void *context, Tensor *x,
                     Tensor *trains);

// ------------------------------------------------------------------------------------------------------------------- rows

extern const Op add_op, sub_op, mul_op, scale_op, add_scaled_op, relu_op, tanh_op, exp_op, sum_op, mean_op, softmax_op,
                matmul_op, linear_op;
extern const Op embedding_op, layernorm_op, lm_head_op, attention_op, gelu_op, dropout_op, cross_entropy_op, matmul_add_op;
extern const Op recompute_op;
extern const Op *const all_ops[]; // ends with NULL

// For ops in any file: two shapes that must be equal; the shape of x with another last dimension.
void check_same_shape(const char *op, const Tensor *a, const Tensor *b);
void with_last_dim(int shape[MAX_DIMS], const Tensor *x, int last);
// The share of an elementwise kernel, and of one that owns rows of the output.
static inline Share elements(const Node *n, Part part) { return share(part, n->out->size, GRAIN); }
static inline Share rows(const Node *n, Part part) { return share(part, rows_of(n->out), 1); }

#endif
