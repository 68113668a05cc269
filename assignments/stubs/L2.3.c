    // Not done yet: y is x W + b so far. Add the adapter's part, y + scale (x A) B, from two ops of autograd.h: the narrow product
    // h = x A, [..,R], and op_matmul_add, which takes y over. No product as large as W, and drop what you no longer need.
    // When training (tape not NULL) an adapter with a mask uses op_mul(tape, B, mask) in the place of B.
    // Who calls it: block_forward of transformer.c, for each of the four linear layers of a block.
