/* replay - runs a fuzz target over the files of the directories named on the command line: the
 * committed corpus as an ordinary test. */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#define REPLAY_BYTES ((size_t)4 << 20)

static int replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(REPLAY_BYTES);
    if (f == NULL || data == NULL) {
        perror(path);
        return 1;
    }
    size_t size = fread(data, 1, REPLAY_BYTES, f);
    fclose(f);
    /* An exact allocation, so that a sanitizer sees the first byte beyond. */
    uint8_t *exact = realloc(data, size ? size : 1);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    return 0;
}

int main(int argc, char **argv)
{
    int count = 0;
    for (int i = 1; i < argc; i++) {
        DIR *corpus = opendir(argv[i]);
        if (corpus == NULL) {
            perror(argv[i]);
            return 1;
        }
        for (struct dirent *e; (e = readdir(corpus)) != NULL;) {
            char path[4096];
            if (e->d_name[0] == '.')
                continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            if (replay(path) != 0)
                return 1;
            count++;
        }
        closedir(corpus);
    }
    printf("replay: %d inputs\n", count);
    return count > 0 ? 0 : 1;
}
