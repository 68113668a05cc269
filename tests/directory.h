// directory.h - what tests that write files share.

#ifndef TESTS_DIRECTORY_H
#define TESTS_DIRECTORY_H

#include <dirent.h>
#include <stdio.h>
#include <string.h>

// Removes a file, or a directory with all that is in it; silent if there is none.
static void remove_all(const char *path)
{
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d)); ) {
        char inside[1200];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        snprintf(inside, sizeof inside, "%s/%s", path, e->d_name);
        remove_all(inside);
    }
    if (d) closedir(d);
    remove(path);
}

#endif
