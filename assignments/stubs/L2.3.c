    // Not done yet: y is x W + b. Add the adapter's part, y + scale (x A) B, from two ops of ops.h: the narrow product h = x A,
    // [..,R], and op_matmul_add, which takes y over. No product as large as W, and drop what you no longer need, but not x.
    // When training (tape not NULL) an adapter with a mask uses op_mul(tape, B, mask) in the place of B.
    // Who calls it: linear_apply, for each of the four linear layers of a block that has an adapter.
    (void)tape, (void)lora, (void)x;
    return y;
