// llmc.c - llm.c's CPU program beside ours: a peer of the bench, which says what to do (the protocol: bench.h, at `Peer`).
//
//     make bench LLMC=DIR      DIR holds llm.c's train_gpt2.c, of the time since its checkpoints have version 3
//
// llm.c's own program trains GPT-2's shapes on token files of its own. Here its functions train the small shape of the bench,
// from the bench's weights and batches: forward, zero_grad, backward, update, as in its main. It clips nothing and decays all
// parameters, so only the first loss is the same as ours.

#include <stdbool.h>

#define TESTING // leaves out its main
#include "train_gpt2.c"

enum { BATCHES = 16 }; // as in bench.h

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    char path[1024], line[128];
    static GPT2 model;
    snprintf(path, sizeof path, "%s/llmc.bin", argv[1]);
    gpt2_build_from_checkpoint(&model, path);
    int B = atoi(argv[2]), T = (int)model.config.max_seq_len, n = B * T, step = 0, count;
    int *batches = malloc(sizeof *batches * 2 * BATCHES * (size_t)n);
    snprintf(path, sizeof path, "%s/batches", argv[1]);
    FILE *file = fopen(path, "rb");
    size_t numbers = 2 * BATCHES * (size_t)n;
    if (batches == NULL || file == NULL || fread(batches, sizeof *batches, numbers, file) != numbers) return 1;
    fclose(file);

    gpt2_forward(&model, batches, batches + n, B, T); // it prints something the first time
    printf("ready llm.c\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (strncmp(line, "open full", 9) == 0) printf("loss %.9g", (double)model.mean_loss);
        else if (sscanf(line, "step full %d", &count) != 1) printf("skipped llm.c has nothing like it");
        else {
            printf("seconds");
            for (int i = 0; i <= count; i++) { // the first is not timed
                int *ids = batches + 2 * (step % BATCHES) * n;
                double start = seconds();
                gpt2_forward(&model, ids, ids + n, B, T);
                gpt2_zero_grad(&model);
                gpt2_backward(&model);
                gpt2_update(&model, 1e-3f, 0.9f, 0.99f, 1e-8f, 0.1f, ++step);
                if (i > 0) printf(" %.9f", seconds() - start);
            }
        }
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
