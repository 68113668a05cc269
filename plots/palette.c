// palette.c - see palette.h.

#include "plots/palette.h"

#include "io/options.h"

Palette palette_read(void)
{
    Palette p = { .name = { "" } };
    char line[160], kind[32];
    FILE *file = fopen("web/kinds.csv", "r");
    if (file == NULL || fgets(line, sizeof line, file) == NULL)
        die(EXIT_FAILED, "web/kinds.csv cannot be read; run this in the project's directory");
    for (int k = 0; k < MEMORY_KINDS; k++)
        if (fgets(line, sizeof line, file) == NULL
            || sscanf(line, "%31[^,],%31[^,],%7[^,],%7s", kind, p.name[k], p.light[k], p.dark[k]) != 4
            || strcmp(kind, memory_kind_names[k]) != 0)
            die(EXIT_FAILED, "web/kinds.csv: line %d is not that of %s", k + 2, memory_kind_names[k]);
    fclose(file);
    return p;
}

void palette_rules(const Palette *p)
{
    for (int k = 0; k < MEMORY_KINDS; k++) printf(".k%d{fill:%s}", k, p->light[k]);
    printf("@media(prefers-color-scheme:dark){");
    for (int k = 0; k < MEMORY_KINDS; k++) printf(".k%d{fill:%s}", k, p->dark[k]);
    printf("}");
}
