    // Not done yet. The factor in front of (x A) B for an adapter of rank R: alpha over R, so that the rank can be changed
    // without a new learning rate; if rank_stabilized, alpha over the square root of R.
    // Who calls it: transformer_add_adapter, for each layer that gets one. The result is what add_adapter and linear_merge read.
    (void)alpha, (void)R, (void)rank_stabilized;
    return 0;
