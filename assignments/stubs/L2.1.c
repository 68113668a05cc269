    // Not done yet. A is [I,R] and B is [R,O], both zero so far. A fresh adapter must change no output, and yet be able to learn:
    // A uniform in +-1/sqrt(I) (fill_uniform of tensor.h, with `seed`), B zero; both require a gradient.
    // Who calls it: lora_new, for every linear layer that gets an adapter.
    (void)lora, (void)seed;
