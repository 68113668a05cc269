// q19_tied_head.c - one matrix as embedding and as output head: what happens to its gradient, and to an adapter on the head?
//
// A little net: logits = h wte^T, h = tanh(wte[ids] + wpe). First wte is one tensor; then two tensors with equal numbers, one
// for each use. After that a change of rank 2, meant for the head alone, is merged into wte, tied and untied.
// Asked in peft#2018, #2864, #2972; in unsloth#9331 a merged head was off by 5.9.
// Look at: lm_head_grad_wte and embedding_grad_wte in autograd.c, op_lm_head in transformer_logits in transformer.c.

#include "question.h"

enum { V = 11, C = 8, B = 2, T = 6, R = 2 };
static const int ids[B * T] = { 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8 }, targets[B * T] = { 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9 };

static void add_gradients(Tensor *embedding, Tensor *wpe, Tensor *head)
{
    Tape *tape = tape_new();
    Tensor *h = op_tanh(tape, op_embedding(tape, embedding, wpe, ids, B, T));
    backward(tape, op_mean(tape, op_cross_entropy(tape, op_lm_head(tape, h, head), targets)));
    tape_free(tape);
}

// Adds `change` to the head. moved[]: how far that moves an output of the embedding, and of the head, at most.
static void merge(Tensor *embedding, Tensor *wpe, Tensor *head, const Tensor *change, double moved[2])
{
    Tensor *output[2][2]; // of embedding and head, before and after
    Tensor *h = random_leaf("h", 1, 7, SHAPE(B * T, C));
    for (int after = 0; after < 2; after++) {
        output[0][after] = op_embedding(NULL, embedding, wpe, ids, B, T);
        output[1][after] = op_lm_head(NULL, h, head);
        for (int64_t i = 0; i < head->size && !after; i++) head->data[i] += change->data[i];
    }
    for (int use = 0; use < 2; use++) {
        moved[use] = largest_difference(output[use][0]->data, output[use][1]->data, output[use][0]->size);
        drop_all(2, output[use]);
    }
    tensor_drop(h);
}

int main(void)
{
    question("Embedding and head are one matrix. What is its gradient, and what does merging an adapter into it do?");
    predict("Merge a change meant for the head: how far do the embedding's outputs move? And if a copy is the head?");

    Tensor *wte = random_leaf("wte", 0.5, 1, SHAPE(V, C)), *wpe = random_leaf("wpe", 0.1, 2, SHAPE(T, C));
    Tensor *head = tensor_from("head", wte->data, SHAPE(V, C));
    wte->requires_grad = head->requires_grad = true;
    add_gradients(wte, wpe, wte);
    Tensor *tied = tensor_from("tied", wte->grad, SHAPE(V, C)), *sum = tensor_new("sum", MEMORY_WEIGHTS, SHAPE(V, C));
    tensor_drop_grad(wte);
    add_gradients(wte, wpe, head);
    for (int64_t i = 0; i < sum->size; i++) sum->data[i] = wte->grad[i] + head->grad[i];
    double apart = largest_difference(tied->data, sum->data, sum->size) / norm_of(sum->data, sum->size);
    measured("|g| as embedding, as head, of the tied one", "%.4f, %.4f, %.4f", grad_norm(wte), grad_norm(head),
             norm_of(tied->data, tied->size));
    measured("tied, and the sum of both: relative difference", "%.2g", apart);
    bool both = grad_norm(wte) > 0 && grad_norm(head) > 0;

    Tensor *left = random_leaf("left", 0.5, 3, SHAPE(V, R)), *right = random_leaf("right", 0.5, 4, SHAPE(R, C));
    Tensor *change = op_matmul(NULL, left, right);
    double untied[2], together[2];
    merge(wte, wpe, head, change, untied); // the copy first: it changes wte not at all
    merge(wte, wpe, wte, change, together);
    measured("merged, tied: head and embedding move by", "%.3f, %.3f", together[1], together[0]);
    measured("merged, untied: head and embedding move by", "%.3f, %.3f", untied[1], untied[0]);

    why("Two uses of one tensor: each adds its part to the one gradient. And what is merged into it is there for both "
        "uses, though it was meant for one. Copy the matrix before merging, and say so in the saved model.");
    finding(both && apart < 1e-6, "the tied gradient is the sum of the two uses' (within 1e-6: another order of addition)");
    finding(together[1] > 0.1 && together[0] > 0.1, "tied: merging into the head moves the embedding's outputs, too");
    finding(untied[1] == together[1] && untied[0] == 0, "untied: the head moves as far, the embedding not at all");
    drop_all(8, (Tensor *[]){ wte, wpe, head, tied, sum, left, right, change });
    return answered();
}
