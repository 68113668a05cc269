// q02_through_frozen.c - do gradients flow through the adapters only, and not through the big frozen model?
//
// A transformer with fresh adapters on two layers of each block. A cut drops what a frozen weight would pass on, as the
// claim wants it: first inside the blocks, then at the output head too. Where no gradient arrives the engine computes none,
// which is not the same as computing a zero.
// Look at: linear_apply in lora.c (the two paths of a layer), and block_forward in transformer.c (op_add, the residual stream).

#include "claims.h"
#include "tiny.h"

enum { BLOCKS = 4, WAYS = 3 };

static const struct { const char *name; Cut *cut; } ways[WAYS] = {
    { "nothing cut", NULL },
    { "cut at frozen weights of the blocks", cut_frozen_linears },
    { "cut at the output head, too", cut_frozen_matrices },
};

int main(void)
{
    question("With LoRA, do gradients flow only through the adapters, and not through the frozen model?");
    predict("Cut the gradient at every frozen weight: how many of the 4 adapters on c_attn still get one?");

    Text text = tiny_text("builtin:tales");
    Transformer *model = tiny_model(&text, BLOCKS, 32, 1);
    attach(model, lora_on(1u << C_ATTN | 1u << ATTN_C_PROJ, 4), 1);
    int computed[WAYS][2] = { { 0 } }, nonzero[WAYS][2] = { { 0 } }; // how many dB of c_attn, of attn.c_proj
    bool A_zero = true;

    for (int way = 0; way < WAYS; way++) {
        one_pass(model, &text, ways[way].cut);
        printf("  %-38s (blocks 0 to 3)\n", ways[way].name);
        for (int kind = C_ATTN; kind <= ATTN_C_PROJ; kind++) {
            printf("    |dB| %-12s", linear_names[kind]);
            for (int i = 0; i < BLOCKS; i++) {
                const Lora *lora = model->blocks[i].linear[kind].lora;
                printf(" %12s", grad_text(lora->B));
                computed[way][kind] += lora->B->grad != NULL;
                A_zero &= grad_norm(lora->A) == 0;
            }
            printf("\n");
            nonzero[way][kind] = adapters_reached(model, (LinearKind)kind);
        }
        zero_grads(model);
    }

    why("A fresh B is 0, so an adapter passes on exactly 0: all of the gradient comes through the frozen W. In a "
        "block the residual stream leads past the frozen weights to c_proj's adapter; past the head nothing leads.");
    finding(nonzero[0][C_ATTN] == BLOCKS && nonzero[0][ATTN_C_PROJ] == BLOCKS, "nothing cut: all 8 adapters get a gradient");
    finding(computed[1][C_ATTN] == BLOCKS && nonzero[1][C_ATTN] == 0, "cut in the blocks: each c_attn adapter gets exactly 0");
    finding(nonzero[1][ATTN_C_PROJ] == BLOCKS, "... and each attn.c_proj adapter still gets one, from the residual stream");
    finding(computed[2][C_ATTN] == 0 && computed[2][ATTN_C_PROJ] == 0,
            "cut at the head too: no adapter's gradient is even computed");
    finding(A_zero, "no A got anything but 0 in this first step (question 10 says why)");
    transformer_free(model);
    text_free(&text);
    return answered();
}
