/* complete - continue a text with a model. The smallest useful program over libsfq:
 *
 *     cc complete.c $(pkg-config --cflags --libs sfq) -o complete
 *     ./complete MODEL-DIR "It was a dark and" */
#include <sfq/sfq.h>

#include <stdio.h>
#include <string.h>

static bool print_piece(void *ud, const char *text, size_t bytes)
{
    (void)ud;
    fwrite(text, 1, bytes, stdout);
    return fflush(stdout) == 0;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: complete MODEL TEXT\n");
        return 2;
    }
    sfq_error err;
    sfq_model *model = NULL;
    sfq_generation answer = {0};
    sfq_generate_options options;
    sfq_generate_options_default(&options);
    options.max_tokens = 24;
    options.on_text = print_piece;

    sfq_status status = sfq_model_open(&model, argv[1], NULL, &err);
    if (status == SFQ_OK)
        status = sfq_generate(model, argv[2], strlen(argv[2]), &options, &answer, &err);
    if (status == SFQ_OK)
        printf("\n(%zu tokens, %s)\n", answer.token_count, answer.finish);
    else
        fprintf(stderr, "complete: %s\n", err.message);
    sfq_generation_clear(&answer);
    sfq_model_close(&model);
    return sfq_status_exit(status);
}
