    // Not done yet. Fill in `claims`: run the engine and read its ledger (memory.h) and a meter (meter.h). new_model() makes the
    // model, attach() an adapter on a frozen base, one_step() runs forward, backward and the optimizer once; all three are above.
    //     gradient_bytes, moment_bytes   the most that each kind held (ledger.own_peak), [0] everything trains, [1] LoRA
    //     dgrad, wgrad                   of a Meter that watches the tape: meter_watch(&meter, tape); the same two runs
    //     reached                        how many of the adapter's tensors have a gradient after backward, LoRA
    //     reached_when_cut               the same if no gradient goes through a frozen weight: meter.cut = at_frozen_weights
    // memory_reset_peaks() before each run; adamw_free, tape_free and transformer_free after it.
    // Who calls it: the grader, with shapes of its own.
    Claims claims = { .reached = 0 };
    (void)shape, (void)new_model, (void)attach, (void)one_step, (void)at_frozen_weights;
    return claims;
