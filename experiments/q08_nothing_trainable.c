// q08_nothing_trainable.c - "the loss does not require grad": is it enough to set the flag?
//
// A frozen layer without adapter; four attempts to train it. A refused call ends the program (check() in tensor.h), so each
// attempt runs in a process of its own, whose last words are read through a pipe.
// Asked in peft#137 and FastChat#581; microsoft/LoRA#124 has people setting loss.requires_grad to make the error go away.
// Look at: backward in autograd.c, its four checks.

#include "adamw.h"
#include "question.h"

#include <stdlib.h>
#include <sys/wait.h>

enum { WIDTH = 8, ATTEMPTS = 4 };
enum { AS_IT_IS, FLAG_ON_LOSS, FLAG_ON_INPUT, ADAPTER };
static const char *const names[ATTEMPTS] = { "everything frozen", "loss->requires_grad = true", "input->requires_grad = true",
                                             "an adapter attached" };

// Ten steps; prints the largest change of W and of B.
static void attempt(int way)
{
    Tensor *x = random_leaf("x", 1, 1, SHAPE(4, WIDTH)), *target = random_leaf("target", 1, 3, SHAPE(4, WIDTH));
    Layer layer;
    layer_init(&layer, WIDTH, WIDTH, 2, 0.3, 4);
    Tensor *W = layer.linear.weight, *A = layer.lora.A, *B = layer.lora.B;
    if (way != ADAPTER) layer.linear.lora = NULL;
    x->requires_grad = way == FLAG_ON_INPUT;
    A->requires_grad = B->requires_grad = way == ADAPTER;
    Tensor *parameters[] = { W, layer.linear.bias, A, B }, *before = tensor_from("before", W->data, SHAPE(WIDTH, WIDTH));
    AdamW *optimizer = adamw_new(parameters, 4, (AdamWConfig){ 0.9, 0.99, 0, 0 });
    Tape *tape = tape_new();
    for (int step = 0; step < 10; step++) {
        tape_clear(tape);
        Tensor *loss = squared_error(tape, linear_apply(tape, &layer.linear, x), target);
        if (way == FLAG_ON_LOSS) loss->requires_grad = true;
        backward(tape, loss);
        adamw_step(optimizer, 0.1);
        for (int i = 0; i < 4; i++) tensor_drop_grad(parameters[i]);
    }
    double change = largest_difference(W->data, before->data, W->size);
    printf("runs: largest change of W %g, |B| %.2g\n", change, norm_of(B->data, B->size));
}

static void attempt_apart(int way, char *words, size_t size)
{
    int ends[2];
    if (pipe(ends) != 0) exit(1);
    fflush(stdout);
    pid_t child = fork();
    if (child < 0) exit(1);
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        attempt(way);
        fflush(stdout);
        _exit(0);
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t got; n < size - 1 && (got = read(ends[0], words + n, size - 1 - n)) > 0; ) n += (size_t)got;
    words[n > 0 ? n - 1 : 0] = '\0'; // without the end of the line
    close(ends[0]);
    waitpid(child, NULL, 0);
}

int main(void)
{
    question("Nothing requires a gradient, so backward refuses. Does it help to set the flag on the loss?");
    predict("Which of four attempts run, and which train anything?");

    char words[ATTEMPTS][512];
    for (int way = 0; way < ATTEMPTS; way++) {
        attempt_apart(way, words[way], sizeof words[way]);
        printf("  %s\n", names[way]);
        const char *message = strstr(words[way], "backward("); // without file and line
        printf("     %s\n", message ? message : words[way]);
    }

    why("A result's flag says what was recorded; set by hand, it finds no node. Set on an input, it makes backward "
        "run and compute a gradient that no optimizer reads. An error that is gone is not a weight that trains.");
    finding(strstr(words[AS_IT_IS], "nothing trainable feeds the loss; did you attach an adapter?") != NULL,
            "all frozen: refused, with the cause");
    finding(strstr(words[FLAG_ON_LOSS], "the loss was not made on this tape") != NULL,
            "the flag on the loss: refused, for nothing was recorded");
    finding(strstr(words[FLAG_ON_INPUT], "runs: largest change of W 0, |B| 0") != NULL,
            "the flag on an input: it runs, and not one bit of W changes");
    finding(strstr(words[ADAPTER], "runs: largest change of W 0, |B| ") != NULL && strstr(words[ADAPTER], "|B| 0") == NULL,
            "an adapter: B moves, and W does not");
    return answered();
}
