/* fuzz - see fuzz.h. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64];
static char names[8][32]; /* files that were written, to be removed */

static void remove_dir(void)
{
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof names[0] && names[i][0]; i++) {
        snprintf(path, sizeof path, "%.63s/%.31s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

const char *fuzz_dir(void)
{
    if (dir[0])
        return dir;
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(dir, sizeof dir, "%s/sfq-fuzz-XXXXXX", base);
    if (mkdtemp(dir) == NULL) {
        perror(dir);
        exit(1);
    }
    atexit(remove_dir);
    return dir;
}

static void remember(const char *name)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], name) == 0)
            return;
        if (names[i][0] == '\0') {
            snprintf(names[i], sizeof names[i], "%s", name);
            return;
        }
    }
}

const char *fuzz_file(const char *name, const void *data, size_t size)
{
    static char paths[4][160];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", fuzz_dir(), name);
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
    remember(name);
    return path;
}
