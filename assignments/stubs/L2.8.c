    // Not done yet. For each of the o->count parameters t = o->parameters[i]:
    //     - it does not require a gradient: drop_moments(o, i), for it may have been frozen since, and must not drift
    //     - it does, and has no gradient: check() names the tensor and stops
    //     - it does, and has no moments yet (o->m[i] is NULL): o->m[i] and o->v[i] become zeros() of its size
    // Who calls it: training_step of training.c, after backward().
    (void)zeros;
    return 0;
