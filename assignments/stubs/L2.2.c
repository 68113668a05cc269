        // Not done yet. The factor in front of (x A) B for an adapter of rank r: alpha over r, so that the rank can be changed
        // without a new learning rate; if config.rank_stabilized, alpha over the square root of r.
        // It goes into the Lora of each layer, which linear_apply and linear_merge read.
        double scale = 0;
